"""The line that runs a command over SSH, whatever the login shell, and what comes back of it.

sshd hands the line to the account's login shell: bash, csh, fish, zsh. It therefore consists of
plain words for ``sh``. The command's own output lies between marks with a random word, so that
banners and the noise of start-up files are told from it:

    stdout   noise  MARK pid group LF  output
    stderr   noise  MARK LF            errors  MARK exit-code stage LF
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from hpc_bridge.errors import CommandError
from hpc_bridge.script import quote

# Linux takes 128 KiB in one argument, and the login shell gets the line as one.
_LONGEST_LINE = 120_000
# A line break ends a line of csh; fish reads backslashes between quotes; csh may replace "!".
_NOT_FOR_EVERY_SHELL = re.compile(r"[\\!\n\r]")
_KEPT = ("SLURM_CONF",)
_NOISE_KEPT = 4000
_END = re.compile(rb" ([0-9]+) ([a-z]+)\n")

TRANSFER, COMMAND = "transfer", "command"
"""The stages of a line: what failed is told by the one in which it ended."""


def login_line(program: str) -> str:
    """A line that every login shell hands to ``sh`` as ``program``."""
    if _NOT_FOR_EVERY_SHELL.search(program):
        coded = _NOT_FOR_EVERY_SHELL.sub(lambda match: f"\\0{ord(match[0]):03o}", program)
        line = f"""exec sh -c 'eval "$(printf %b "$1")"' sh {quote(coded)}"""
    else:
        line = f"exec sh -c {quote(program)}"
    if len(line.encode(errors="surrogateescape")) > _LONGEST_LINE:
        raise CommandError(
            f"a command of {len(line):,} characters is longer than a login shell takes; give it"
            " less at a time, or its input on stdin"
        )
    return line


def marked(mark: str, steps: str) -> str:
    """A program that runs ``steps`` between the marks; ``w`` is the stage that they are in.

    The group is read from /proc, by the shell itself: no other process is started for it.
    """
    return (
        f"w={COMMAND}; read -r p c s f g r </proc/$$/stat; echo {mark} >&2; echo {mark} $$ $g;"
        f" {steps}; echo {mark} $? $w >&2"
    )


def words(argv: Sequence[str], unset: Sequence[str] = ()) -> str:
    """The step that runs ``argv`` as it is: no builtin, keyword or assignment of the shell's."""
    step = f'set -- {" ".join(quote(word) for word in argv)}; (exec "$@")'
    return f"{_without(unset)}{step}" if unset else step


def _without(unset: Sequence[str]) -> str:
    patterns = "|".join(_pattern(pattern) for pattern in unset)
    return (
        "for v in $(awk 'BEGIN {for (v in ENVIRON) if (v ~ /^[A-Za-z_][A-Za-z0-9_]*$/) print v}');"
        f" do case $v in {'|'.join(_KEPT)}) ;; {patterns}) unset $v;; esac; done; "
    )


def _pattern(pattern: str) -> str:
    """Shell-style patterns are the shell's own; anything else in them is a mistake of ours."""
    if not re.fullmatch(r"[\w*?\[\]-]+", pattern):
        raise ValueError(f"{pattern!r} is not a pattern of variable names")
    return pattern


def ending(pid: int, leftover: str | None = None) -> str:
    """A program that ends what a program above has started, and removes what it left over.

    sshd gives each command a session of its own, so usually a group to kill; where something
    stands between, its descendants are looked up.
    """
    steps = (
        f'g=; read -r p c s f g r </proc/{pid}/stat; [ "$g" = {pid} ] && kill -9 -{pid};'
        f" kill -9 $(ps -A -o pid= -o ppid= | awk -v top={pid}"
        " '{parent[$1] = $2} END {for (p in parent) {q = p; while (q > 1 && q != top)"
        " q = parent[q]; if (q == top) print p}}')"
    )
    if leftover is not None:
        steps += f"; rm -rf {quote(leftover)}"
    return f"{{ {steps}; }} 2>/dev/null; :"


class Exchange:
    """One command over a connection: bytes in as they come, and what they mean.

    A connection calls ``on_stdout`` and ``on_stderr``, and sends ``stdin`` once ``started``: what
    is refused before has then lost none of it.
    """

    def __init__(
        self,
        program: str,
        mark: str,
        *,
        stdin: Iterable[bytes] = (),
        sink: Callable[[bytes], object] | None = None,
        leftover: str | None = None,
    ) -> None:
        """``sink`` takes the output as it comes; without it, ``stdout`` gathers it."""
        self.line = login_line(marked(mark, program))
        self.stdin: Iterator[bytes] = iter(stdin)
        self.leftover = leftover
        self.stdout = bytearray()
        self.noise = b""
        self.pid: int | None = None
        self._sink = sink or self.stdout.extend
        self._mark = mark.encode()
        self._out = bytearray()
        self._err = bytearray()

    @property
    def started(self) -> bool:
        """Whether the command has begun."""
        return self.pid is not None

    def on_stdout(self, data: bytes) -> None:
        """Take what came; calls ``sink``, whose errors pass through."""
        if self.started:
            self._sink(data)
            return
        self._out += data
        noise, found, rest = self._out.partition(self._mark)
        line, whole, output = rest.partition(b"\n")
        if found and whole:
            self.pid = int(line.split()[0])
            self.noise = bytes(noise[-_NOISE_KEPT:])
            self._out.clear()
            if output:
                self._sink(bytes(output))
        elif not found and len(self._out) > 2**20:  # noise without an end
            del self._out[:-_NOISE_KEPT]

    def on_stderr(self, data: bytes) -> None:
        """Take what came."""
        self._err += data

    @property
    def stderr(self) -> bytes:
        """What the command itself has said so far."""
        said = self._err.split(self._mark)
        if len(said) == 1:
            return b"" if self.started else bytes(said[0])
        return bytes(said[1].removeprefix(b"\n"))

    @property
    def end(self) -> tuple[int, str] | None:
        """Exit code and stage, once the command has ended by itself, and all of that has come."""
        said = bytes(self._err).split(self._mark)
        told = _END.match(said[2]) if len(said) > 2 else None
        return (int(told[1]), told[2].decode()) if told else None

    @property
    def unasked(self) -> str:
        """All that came although the command has not begun: why it could not."""
        return b" ".join([bytes(self._out), bytes(self._err)]).decode(errors="replace").strip()
