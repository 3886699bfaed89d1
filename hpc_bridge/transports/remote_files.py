"""What moves files over SSH: programs for ``sh``, and the streams that they read and write.

Writing: a folder aside, next to where the files belong, takes the archive. Its last member is the
program that compares the sums and renames; so an archive that breaks off does nothing. Reading:
a first line tells size and sum, then the bytes follow.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hpc_bridge.errors import TransferFailed
from hpc_bridge.script import quote
from hpc_bridge.transports.archive import (
    CHECKED_ABOVE,
    Meter,
    Packing,
    archive_of_links,
    end_of_archive,
    relative_name,
)
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.remote_shell import COMMAND, TRANSFER

NO_SUCH_FILE = 66
NEEDED = (
    *("tar", "mkdir", "mv", "rm", "cat", "head", "tail", "wc", "find", "awk", "ps"),
    *("xargs", "touch", "ln", "env", "id"),
)
_IN_ONE_MOVE = 100
_ESCAPED = re.compile(rb"\\([nr\\])")
_UNESCAPED = {b"n": b"\n", b"r": b"\r", b"\\": b"\\"}
# Reasons are told by the C library's words; bash reads LC_ALL at once, dash has no other language.
_OWN_WORDS = "export LC_ALL=C"
_SUMS = """\
if command -v sha256sum >/dev/null; then sha256sum -c sums
elif command -v shasum >/dev/null; then shasum -a 256 -c sums
else echo "no sha256sum and no shasum: sums are not compared" >&2
fi >/dev/null || { echo "what arrived is not what was sent" >&2; exit 1; }
"""


def aside_of(folder: str, word: str) -> str:
    """The folder that takes an archive: on the same file system as what it becomes."""
    return f"{folder.rstrip('/')}/.hpc-bridge-{word}"


def receiving(aside: str, then: str | None = None) -> str:
    """Steps that unpack the archive of ``sending`` from stdin, and run the step ``then``.

    ``then`` finds what was sent as ``stdin`` there.
    """
    q, parent = quote(aside), quote(str(PurePosixPath(aside).parent))
    unpacked = (
        f"(umask 077; {_OWN_WORDS}; mkdir -p {parent} && mkdir {q} && cd {q} && tar -xf - &&"
        " { [ -f finish ] || { echo the archive broke off >&2; false; }; } && . ./finish)"
    )
    after = "true" if then is None else f"{{ w={COMMAND}; {then} <{q}/stdin; }}"
    # What stopped a transfer has no use for what it left.
    return (
        f"w={TRANSFER}; trap 'rm -rf {_in_single_quotes(q)}; exit 1' HUP TERM;"
        f" {unpacked} && {after}; x=$?; rm -rf {q}; (exit $x)"
    )


def _in_single_quotes(word: str) -> str:
    return word.replace("'", "'\\''")


def sending(files: Files | None, meter: Meter, stdin: bytes = b"") -> Iterator[bytes]:
    """An archive with files and a command's input. Raises TransferFailed for a local file."""
    packing = Packing(meter)
    moves: list[str] = []
    if files is not None:
        folder = files.folder.rstrip("/")
        named = [
            (PurePosixPath(relative_name(name)), files.content[name]) for name in files.content
        ]
        groups = itertools.groupby(named, key=lambda item: item[0].parent)
        for number, (parent, group) in enumerate(groups):
            members = []
            for path, content in group:
                members.append(f"f/{number}/{path.name}")
                yield from _readable(packing.member(members[-1], content))
            moves += _moves(members, f"{folder}/{parent}")
        if files.links:
            yield from packing.own_member("links", archive_of_links(files.links))
            moves.append(f"tar -xPf links --skip-old-files -C {quote(folder)} || exit 1")
    yield from packing.own_member("stdin", stdin)
    yield from _finish(packing, moves)


def _moves(names: list[str], folder: str) -> list[str]:
    lines = [f"mkdir -p {quote(folder)} || exit 1"]
    for start in range(0, len(names), _IN_ONE_MOVE):
        group = " ".join(quote(name) for name in names[start : start + _IN_ONE_MOVE])
        lines.append(f"mv -f -- {group} {quote(folder)}/ || exit 1")
    return lines


def sending_tree(local: Path, remote: str, meter: Meter) -> Iterator[bytes]:
    """An archive with a folder that becomes ``remote``."""
    packing, target = Packing(meter), quote(remote)
    yield from _readable(packing.tree("tree", local))
    exists = f"{{ echo {target} exists already >&2; exit 1; }}"
    yield from _finish(packing, [f"[ -e {target} ] && {exists}", f"mv tree {target}"])


def _finish(packing: Packing, moves: list[str]) -> Iterator[bytes]:
    lines = [*moves]
    if packing.sums:
        sums = "".join(f"{digest}  {name}\n" for name, digest in packing.sums.items())
        yield from packing.own_member("sums", sums.encode(errors="surrogateescape"))
        lines.insert(0, _SUMS)
    program = "\n".join(lines) + "\n"
    yield from packing.own_member("finish", program.encode(errors="surrogateescape"))
    yield end_of_archive()


def _readable(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except OSError as error:
        if isinstance(error, TransferFailed):
            raise
        raise TransferFailed(f"a local file cannot be read: {error}") from error


# the way back


def reading(path: str) -> str:
    """Steps that write size and sum of a file, and its bytes."""
    q = quote(path)
    return (
        f"w={TRANSFER}; ({_OWN_WORDS}; [ -f {q} ] || exit {NO_SUCH_FILE};"
        f" n=$(wc -c <{q}) || exit 1; n=$((n)); d=-;"
        f" [ $n -gt {CHECKED_ABOVE} ] && d=$(sha256sum <{q} || shasum -a 256 <{q});"
        f" set -- $d; echo $n ${{1:--}}; [ $n -eq 0 ] || head -c $n {q})"
    )


def reading_part(path: str, offset: int, limit: int) -> str:
    """Steps that write some bytes of a file."""
    q = quote(path)
    return (
        f"w={TRANSFER}; ({_OWN_WORDS}; [ -f {q} ] || exit {NO_SUCH_FILE};"
        f" tail -c +{int(offset) + 1} <{q} | head -c {int(limit)})"
    )


def reading_tree(path: str) -> str:
    """Steps that write the sums of a folder's large files, an empty line, and its archive."""
    q = quote(path)
    return (
        f"w={TRANSFER}; ({_OWN_WORDS}; cd {q} 2>/dev/null || exit {NO_SUCH_FILE};"
        f" find . -type f -size +{CHECKED_ABOVE // 512} -exec sha256sum {{}} + 2>/dev/null;"
        " echo; tar -cf - .)"
    )


class FileBack:
    """A sink for ``reading``: checks what it passes on."""

    def __init__(self, write: Callable[[bytes], object], meter: Callable[[int], Meter]) -> None:
        """``meter`` makes one from the size."""
        self._write = write
        self._make_meter = meter
        self._head = bytearray()
        self._meter: Meter | None = None
        self._size = 0
        self._sum = "-"
        self._count = 0
        self._digest = hashlib.sha256()

    def __call__(self, data: bytes) -> None:
        if self._meter is None:
            self._head += data
            line, found, rest = bytes(self._head).partition(b"\n")
            if not found:
                return
            try:
                size, self._sum = line.decode().split()
                self._size = int(size)
            except ValueError:
                raise TransferFailed(f"no size comes before a file: {line[:200]!r}") from None
            self._meter = self._make_meter(self._size)
            data = rest
        if data:
            self._write(data)
            self._count += len(data)
            if self._sum != "-":
                self._digest.update(data)
            self._meter.add(len(data))

    def check(self, path: str) -> None:
        """Raises TransferFailed when not all has arrived as it was."""
        if self._meter is None or self._count != self._size:
            raise TransferFailed(
                f"{path}: {self._count:,} of {self._size:,} bytes have arrived", retryable=True
            )
        if self._sum not in ("-", self._digest.hexdigest()):
            raise TransferFailed(f"{path}: what arrived is not what was sent", retryable=True)


def read_sums(stream: BinaryIO) -> dict[str, str]:
    """Name -> digest, from the lines before the archive."""
    sums = {}
    while (line := stream.readline()) not in (b"\n", b""):
        digest, _, name = line.rstrip(b"\n").partition(b"  ")
        if digest.startswith(b"\\"):  # how sha256sum writes names with line breaks
            digest = digest[1:]
            name = _ESCAPED.sub(lambda match: _UNESCAPED[match[1]], name)
        sums[name.decode(errors="surrogateescape")] = digest.decode()
    return sums
