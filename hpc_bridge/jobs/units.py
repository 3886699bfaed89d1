"""Units that people write: memory and walltime.

Memory is kept in MiB and walltime in seconds, because both schedulers take whole numbers of them.
Suffixes are powers of 1024, as in sbatch(1) ``--mem`` and the PBS ``size`` type.
"""

from __future__ import annotations

import re
from datetime import timedelta

_MEMORY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT])(?:i?B)?", re.IGNORECASE)
_MIB_PER_UNIT = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}

_WORDS = re.compile(r"(?:\d+\s*[dhms]\s*)+", re.IGNORECASE)
_WORD = re.compile(r"(\d+)\s*([dhms])", re.IGNORECASE)
_SECONDS_PER_UNIT = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d{1,2}){0,2})")

MEMORY_FORMS = "write a number with K, M, G or T, like '1500M' or '16G'"
WALLTIME_FORMS = "write '90m', '2h', '1d12h', '02:00:00', '1-12:00:00' or a timedelta"


def parse_memory(value: object) -> int:
    """``"16G"``, ``"1500M"``, ``"1.5 GiB"`` -> MiB, rounded up.

    Raises ValueError for anything else, a bare number included: schedulers disagree on its unit.
    """
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not an amount of memory; {MEMORY_FORMS}")
    mebibytes = float(match["number"]) * _MIB_PER_UNIT[match["unit"].upper()]
    if mebibytes <= 0:
        raise ValueError(f"{value!r} is no memory at all; {MEMORY_FORMS}")
    return -int(-mebibytes // 1)


def format_memory(mebibytes: int) -> str:
    """MiB -> the shortest exact text (``16384`` -> ``"16G"``)."""
    for unit in "TG":
        size = int(_MIB_PER_UNIT[unit])
        if mebibytes % size == 0:
            return f"{mebibytes // size}{unit}"
    return f"{mebibytes}M"


def parse_walltime(value: object) -> int:
    """``"2h"``, ``"90m"``, ``"1-12:00:00"``, ``timedelta`` -> seconds.

    A clock has hours, minutes and seconds; after ``days-`` the last ones may be left out
    (sbatch(1), ``--time``). Raises ValueError for anything else: a bare number is minutes in Slurm
    and seconds in PBS, and ``"2:00"`` is two minutes to both and two hours to most people.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"{value!r} is not a walltime; {WALLTIME_FORMS}")
    if seconds <= 0:
        raise ValueError(f"{value!r} leaves no time to run; {WALLTIME_FORMS}")
    return seconds


def _seconds(value: object) -> int | None:
    if isinstance(value, timedelta):
        return -int(-value.total_seconds() // 1)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _WORDS.fullmatch(text):
        parts = _WORD.findall(text.lower())
        units = [unit for _, unit in parts]
        if len(set(units)) != len(units):
            return None
        return sum(int(number) * _SECONDS_PER_UNIT[unit] for number, unit in parts)
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    fields = [int(field) for field in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = (*fields, 0, 0)[:3]
        return int(match["days"]) * 86400 + hours * 3600 + minutes * 60 + seconds
    if len(fields) != 3:
        return 0 if not any(fields) else None
    hours, minutes, seconds = fields
    return hours * 3600 + minutes * 60 + seconds


def format_walltime(seconds: int) -> str:
    """Seconds -> ``[D-]HH:MM:SS``, which both Slurm and people read."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock
