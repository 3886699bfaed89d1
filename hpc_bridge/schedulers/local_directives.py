"""What a batch script asks for in its ``#SBATCH`` lines, read as sbatch reads them.

Standard library only: the embedded scheduler's command starts often and must start fast. Sources:
sbatch(1) of 24.11 for the options, ``get_argument`` and ``getopt_long`` in its source for the way
lines are cut into words.
"""

from __future__ import annotations

import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAGIC = "#SBATCH"

# Long name, then the short one. With a value, with an optional value, without.
_VALUE = """
    account:A acctg-freq array:a batch bb bbf begin:b chdir:D cluster-constraint clusters:M comment
    constraint:C container container-id core-spec:S cores-per-socket cpu-freq cpus-per-gpu
    cpus-per-task:c deadline delay-boot dependency:d distribution:m error:e exclude:x export
    export-file extra extra-node-info:B gid gpu-bind gpu-freq gpus:G gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags hint input:i job-name:J kill-on-invalid-dep licenses:L mail-type
    mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile:F nodelist:w
    nodes:N ntasks:n ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode
    output:o partition:p power prefer priority profile qos:q reservation segment signal
    sockets-per-node switches tasks-per-node thread-spec threads-per-core time:t time-min tmp
    tres-bind tres-per-task uid wait-all-nodes wckey wrap
"""
_OPTIONAL_VALUE = "exclusive get-user-env nice no-kill:k oom-kill-step propagate resv-ports"
_FLAG = """
    contiguous help:h hold:H ignore-pbs no-requeue overcommit:O oversubscribe:s parsable quiet:Q
    reboot requeue spread-job stepmgr test-only usage use-min-nodes verbose:v version:V wait:W
"""
# What would change the meaning of the job if it were ignored.
_MISSING = {
    "array": "job arrays",
    "container": "OCI containers",
    "dependency": "job dependencies",
    "export-file": "--export-file",
    "wrap": "--wrap in a script",
}
_HET_JOB = ("hetjob", "packjob")


class Refused(Exception):
    """A request that cannot be met; the message is one sentence for the user."""


class Fields:
    """Named values with types that survive JSON; a value of another type is refused."""

    def __init__(self, **values: Any) -> None:
        for name, kinds in self.__annotations__.items():
            value = values.get(name, getattr(type(self), name, None))
            kind = "None" if value is None else type(value).__name__
            if kind not in kinds.partition("[")[0].split(" | "):
                raise ValueError(f"{name} is {value!r}, not {kinds}")
            setattr(self, name, value)


class Request(Fields):
    """What a script asks for. Walltime and signal lead in seconds, memory in MiB."""

    name: str = "sbatch"
    walltime: int | None = None
    begin: float | None = None
    """Seconds since the epoch."""
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    memory_per_node: int | None = None
    memory_per_cpu: int | None = None
    work_dir: str | None = None
    input: str | None = None
    output: str | None = None
    error: str | None = None
    append: bool = False
    export: str = "NONE"
    comment: str = ""
    hold: bool = False
    requeue: bool = True
    signal: int | None = None
    signal_lead: int = 60
    signal_shell: bool = False
    """The batch shell alone gets the signal, not what it started."""
    test_only: bool = False

    @property
    def cpus(self) -> int:
        return (self.ntasks or self.ntasks_per_node or 1) * (self.cpus_per_task or 1)

    @property
    def memory(self) -> int | None:
        """Asked for, in MiB; nothing holds a job to it."""
        per_cpu = self.memory_per_cpu
        return self.memory_per_node if per_cpu is None else per_cpu * self.cpus


def read_request(script: str, now: float) -> Request:
    """The request in ``script``; raises Refused with sbatch's words where it has some."""
    _check_script(script)
    request = Request()
    for option, value in _options(_words(script)):
        if option in _MISSING:
            raise Refused(f"the embedded scheduler has no {_MISSING[option]} (--{option})")
        _apply(request, option, value, now)
    return request


def _check_script(script: str) -> None:
    if not script:
        raise Refused("Batch script is empty!")
    if not script.strip():
        raise Refused("Batch script contains only whitespace!")
    if "\0" in script:
        raise Refused("Batch script contains a NULL character")
    if "\r\n" in script:
        raise Refused(
            "Batch script contains DOS line breaks (\\r\\n) instead of expected UNIX line breaks"
        )


def _words(script: str) -> list[str]:
    """All words of all directives, up to the first command line."""
    words: list[str] = []
    for number, line in enumerate(script.split("\n"), start=1):
        if line.startswith(_MAGIC):
            words += split_directive(line.removeprefix(_MAGIC), number)
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return words


def split_directive(text: str, number: int = 1) -> list[str]:
    """The words of one directive line, cut as sbatch does.

    A backslash takes the next character literally, inside quotes too, but does not keep a blank
    outside quotes from ending the word; an unquoted ``#`` begins a comment; an empty word (``""``)
    ends the line.
    """
    words: list[str] = []
    position = 0
    while True:
        word, position = _next_word(text, position, number)
        if not word:
            return words
        words.append(word)


def _next_word(text: str, position: int, number: int) -> tuple[str, int]:
    while position < len(text) and text[position].isspace():
        position += 1
    word, quote, escaped = "", "", False
    while position < len(text) and (quote or not text[position].isspace()):
        character = text[position]
        if escaped:
            escaped = False
            word += character
        elif character == "\\":
            escaped = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "\"'":
            quote = character
        elif character == "#":
            break
        else:
            word += character
        position += 1
    if quote:
        raise Refused(f"line {number}: Unmatched `{quote}` in [{_MAGIC}{text}]")
    return word, position


def option_words(text: str) -> list[str]:
    """The words of a directive that are options; sbatch takes several in one line."""
    try:
        words = split_directive(text)
    except Refused:  # sbatch says why
        words = text.split()
    return [word for word in words if word.startswith("-")]


def option_name(text: str) -> str:
    """Long name of the first option of a directive; one that is not known here is its own name."""
    takes, by_short = _table()
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    if word.startswith("--"):
        name = word[2:].partition("=")[0]
        try:
            return _complete(name, takes)
        except Refused:
            return name
    return by_short.get(word[1:2], word)


def _table() -> tuple[dict[str, str], dict[str, str]]:
    """How each long option takes its value (``=``, ``?`` or nothing), and long by short."""
    takes: dict[str, str] = {}
    by_short: dict[str, str] = {}
    for kind, names in (("=", _VALUE), ("?", _OPTIONAL_VALUE), ("", _FLAG)):
        for entry in names.split():
            name, _, short = entry.partition(":")
            takes[name] = kind
            if short:
                by_short[short] = name
    return takes, by_short


def _options(words: list[str]) -> list[tuple[str, str]]:
    """getopt_long(3) with sbatch's table: (long option, value) in order."""
    takes, by_short = _table()
    found: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        if word in _HET_JOB:
            raise Refused("the embedded scheduler has no heterogeneous jobs (hetjob)")
        if word.startswith("--") and word != "--":
            name, has_value, value = word[2:].partition("=")
            name = _complete(name, takes)
            if has_value and not takes[name]:
                raise Refused(f"option '--{name}' doesn't allow an argument")
            if takes[name] == "=" and not has_value:
                value = _value_of(rest, f"option '--{name}' requires an argument")
            found.append((name, value))
        elif word.startswith("-") and word not in ("-", "--"):
            found += _short_options(word[1:], rest, takes, by_short)
        else:
            raise Refused(f"Invalid directive found in batch script: {word}")
    return found


def _value_of(rest: Any, complaint: str) -> str:
    value: str | None = next(rest, None)
    if value is None:
        raise Refused(complaint)
    return value


def _complete(name: str, known: dict[str, str]) -> str:
    """getopt_long takes a beginning of a name when only one option begins like that."""
    if name in known:
        return name
    candidates = [option for option in known if name and option.startswith(name)]
    if len(candidates) > 1:
        raise Refused(
            f"option '--{name}' is ambiguous; possibilities: "
            + " ".join(f"'--{candidate}'" for candidate in candidates)
        )
    if not candidates:
        raise Refused(f"unrecognized option '--{name}'")
    return candidates[0]


def _short_options(
    letters: str, rest: Any, takes: dict[str, str], by_short: dict[str, str]
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter not in by_short:
            raise Refused(f"invalid option -- '{letter}'")
        name = by_short[letter]
        if not takes[name]:
            found.append((name, ""))
            continue
        if not letters and takes[name] == "=":
            letters = _value_of(rest, f"option requires an argument -- '{letter}'")
        found.append((name, letters))
        break
    return found


_NAMED = {
    "job-name": "name",
    "chdir": "work_dir",
    "input": "input",
    "output": "output",
    "error": "error",
    "comment": "comment",
}
_COUNTED = {
    "ntasks": "ntasks",
    "cpus-per-task": "cpus_per_task",
    "ntasks-per-node": "ntasks_per_node",
    "tasks-per-node": "ntasks_per_node",
}
_SIZED = {"mem": "memory_per_node", "mem-per-cpu": "memory_per_cpu"}
_SET = {"hold": ("hold", True), "requeue": ("requeue", True), "no-requeue": ("requeue", False)}


def _apply(request: Request, option: str, value: str, now: float) -> None:
    if option in _NAMED:
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise Refused(f"Invalid --{option} specification: it holds a control character")
        setattr(request, _NAMED[option], value)
    elif option in _COUNTED:
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", value):
            raise Refused(f'Invalid numeric value "{value}" for --{option}.')
        setattr(request, _COUNTED[option], int(value))
    elif option in _SIZED:
        setattr(request, _SIZED[option], read_memory(option, value))
    elif option in _SET:
        setattr(request, *_SET[option])
    elif option == "test-only":
        request.test_only = True
    elif option == "time":
        request.walltime = read_walltime(value)
    elif option == "begin":
        request.begin = read_begin(value, now)
    elif option == "signal":
        request.signal, request.signal_shell, request.signal_lead = read_signal(value)
    elif option == "nodes":
        _check_nodes(value)
    elif option == "open-mode":
        if value[:1] not in ("a", "t"):
            raise Refused(f"Invalid --open-mode specification: {value}")
        request.append = value.startswith("a")
    elif option == "export":
        if value.upper() not in ("NONE", "ALL", "NIL"):
            raise Refused(f"the embedded scheduler knows --export=NONE, ALL and NIL, not {value!r}")
        request.export = value.upper()


def _check_nodes(value: str) -> None:
    match = re.fullmatch(r"(\d+)([km]?)(?:-(\d+)[km]?(?::\d+)?)?", value, re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise Refused(f'"{value}" is not a valid node count')
    if int(match[1]) > 1 or match[2]:
        raise Refused(f"the embedded scheduler has one node, and --nodes={value} asks for more")


def read_memory(option: str, value: str) -> int:
    """``4G``, ``1500`` -> MiB, rounded up."""
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", value, re.IGNORECASE)
    if match is None:
        raise Refused(f"Invalid --{option} specification: {value!r}")
    size = int(match[1])
    return -(-size // 1024) if match[2].upper() == "K" else size * _MIB[match[2].upper()]


_MIB = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}


def read_walltime(value: str) -> int | None:
    """sbatch(1) ``--time`` -> seconds, not rounded to minutes; None is no limit."""
    if value.upper() in ("UNLIMITED", "INFINITE", "-1"):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", value)
    if match is None:
        raise Refused(f"Invalid --time specification: {value!r}")
    days, *fields = match.groups()
    numbers = [int(field) for field in fields if field is not None]
    if days is not None or len(numbers) == 3:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds or None


_SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12,
    "PIPE": 13, "ALRM": 14, "TERM": 15, "URG": 23, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21,
    "TTOU": 22, "XCPU": 24,
}  # fmt: skip


def signal_number(text: str) -> int | None:
    """``USR1``, ``SIGUSR1``, ``10`` -> 10; None when it is no signal (numbers of Linux)."""
    if text.isdecimal():
        return int(text) if 0 < int(text) < 65 else None
    return _SIGNALS.get(text.upper().removeprefix("SIG"))


def read_signal(value: str) -> tuple[int, bool, int]:
    """sbatch(1) ``--signal=[{R|B}:]<signal>[@seconds]`` -> (signal, shell only, lead)."""
    match = re.fullmatch(r"(?:([RB]+):)?(\w+)(?:@(\d{1,5}))?", value, re.IGNORECASE)
    number = signal_number(match[2]) if match else None
    if match is None or number is None:
        raise Refused(f"Invalid --signal specification: {value!r}")
    return number, "B" in (match[1] or "").upper(), int(match[3] or 60)


_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2}))?)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def read_begin(value: str, now: float) -> float:
    """``now+60``, ``now+5minutes``, ``2030-01-31T08:00``, ``08:00`` -> seconds since the epoch."""
    if match := re.fullmatch(r"now(?:\+(\d+)([a-z]*))?", value, re.IGNORECASE):
        word = match[2].lower() if match[2] else "second"
        unit = next((_UNITS[unit] for unit in _UNITS if word in (unit, unit + "s")), None)
        if unit is not None:
            return now + int(match[1] or 0) * unit
    if match := _DATE.fullmatch(value):
        year, month, day, hour, minute, second = (int(field or 0) for field in match.groups())
        if 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60:
            return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
    if match := _CLOCK.fullmatch(value):
        hour, minute, second = (int(field or 0) for field in match.groups())
        today = time.localtime(now)
        if hour < 24 and minute < 60 and second < 60:
            moment = time.mktime((*today[:3], hour, minute, second, 0, 0, -1))
            return moment if moment >= now else moment + 86400
    raise Refused(f"Invalid --begin specification: {value!r}")
