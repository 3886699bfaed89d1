"""How PBS writes times, sizes, hosts and the ids of array elements."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# Not strptime: what it calls a month depends on the language of this process.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOMENT = re.compile(r"\w{3} (\w{3}) +(\d+) (\d+):(\d+):(\d+) (\d{4})")
_SIZE = re.compile(r"(\d+)([kmgtp]?)([bw])?", re.IGNORECASE)
_MIB = {"": 1 / 1024**2, "k": 1 / 1024, "m": 1, "g": 1024, "t": 1024**2, "p": 1024**3}
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+)(?:\.\d+)?")
_ELEMENT = re.compile(r"(\d+)\[(\d*)\](.*)")


def moment(value: str) -> datetime | None:
    """``Sat Nov 21 02:04:46 2026`` in UTC, which the command's TZ has made it, or seconds."""
    if value.isdecimal():
        return datetime.fromtimestamp(int(value), UTC)
    match = _MOMENT.fullmatch(value.strip())
    if match is None or match[1] not in _MONTHS:
        return None
    day, hour, minute, second, year = (int(field) for field in match.groups()[1:])
    try:
        return datetime(year, _MONTHS.index(match[1]) + 1, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def seconds(value: str) -> int | None:
    """``[[hours:]minutes:]seconds``."""
    match = _CLOCK.fullmatch(value)
    if match is None:
        return None
    hours, minutes, rest = (int(field or 0) for field in match.groups())
    return hours * 3600 + minutes * 60 + rest


def mebibytes(value: str) -> float | None:
    """``100mb``, ``6020kb``, ``8gb``; words are of eight bytes."""
    match = _SIZE.fullmatch(value)
    if match is None:
        return None
    per_unit = 8 if (match[3] or "").lower() == "w" else 1
    return int(match[1]) * _MIB[match[2].lower()] * per_unit


def number(value: object) -> int | None:
    """A whole number; None for anything else."""
    text = str(value)
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else None


def hosts(exec_host: str) -> str | None:
    """``c1/0*2+c2/3`` -> ``c1,c2``."""
    names = dict.fromkeys(part.partition("/")[0] for part in exec_host.strip("()").split("+"))
    return ",".join(name for name in names if name) or None


def parent_of(job_id: str) -> str:
    """``41[3].server`` -> ``41[].server``; a job that is no element is its own."""
    match = _ELEMENT.fullmatch(job_id)
    return f"{match[1]}[]{match[3]}" if match else job_id


def is_element(job_id: str) -> bool:
    """Whether it is the id of one element of a job array."""
    match = _ELEMENT.fullmatch(job_id)
    return match is not None and bool(match[2])


def element_of(job_id: str, element: int) -> str:
    """``41[].server``, 3 -> ``41[3].server``."""
    match = _ELEMENT.fullmatch(job_id)
    if match is None:
        raise ValueError(f"{job_id!r} is not the id of a job array")
    return f"{match[1]}[{element}]{match[3]}"


def sequence_number(job_id: str) -> str:
    """``41[3].server`` -> ``41``."""
    return re.split(r"[\[.]", job_id, maxsplit=1)[0]
