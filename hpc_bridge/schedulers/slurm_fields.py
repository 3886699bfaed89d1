"""How Slurm writes times, sizes, resources and the ids of array elements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from hpc_bridge.jobs import JobId

_NOTHING = frozenset({"", "None", "(null)", "None assigned", "N/A", "Unknown"})
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)")
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_ARRAY = re.compile(r"(\d+)_\[([^\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_IN_BRACKETS = re.compile(r"\([^()]*\)")
NO_TYPE = "gpu"
"""Stands for the type of GPUs that the site gave none."""


def text(value: str) -> str | None:
    """None for the words that stand for nothing."""
    return None if value in _NOTHING else value


def moment(value: str) -> datetime | None:
    """A time in UTC, which the command's TZ has made it."""
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None  # N/A, Unknown, None, NONE


def seconds(value: str) -> float | None:
    """``[days-][hours:]minutes:seconds[.fraction]``; None for ``infinite`` and the like."""
    match = _CLOCK.fullmatch(value)
    if match is None:
        return None
    days, hours, minutes = (int(field or 0) for field in match.groups()[:3])
    return days * 86400 + hours * 3600 + minutes * 60 + float(match[4])


def mebibytes(value: str, *, default: float) -> float | None:
    """``92184K``, ``1.50G``; ``default`` is how many MiB a number without a unit counts in."""
    match = _SIZE.fullmatch(value)
    if match is None:
        return None
    return float(match[1]) * (_MIB[match[2]] if match[2] else default)


def resources(value: str) -> dict[str, str]:
    """Trackable resources: ``cpu=2,mem=500M,gres/gpu=1``."""
    pairs = (entry.partition("=") for entry in value.split(","))
    return {name: amount for name, equals, amount in pairs if equals}


def gpus(value: str) -> dict[str, int]:
    """GPUs by type of a GRES list: ``gpu:a100:4(S:0-1),gpu:a100_1g.5gb:7(IDX:0,3),shard:8``."""
    found: dict[str, int] = {}
    for entry in _IN_BRACKETS.sub("", value).split(","):
        name, *rest = entry.strip().split(":")
        words = [word for word in rest if word != "no_consume"]
        if name == "gpu":
            count = int(words.pop()) if words and words[-1].isdecimal() else 1
            kind = words[0] if words else NO_TYPE
            found[kind] = found.get(kind, 0) + count
    return found


def elements(job_id: str) -> Iterator[JobId]:
    """The jobs that a record is about: ``4_[0-2,7%3]`` stands for elements that did not start."""
    match = _ARRAY.fullmatch(job_id)
    if match is None:
        yield JobId(job_id)
        return
    for part in match[2].partition("%")[0].split(","):
        if indices := _RANGE.fullmatch(part):
            first, last = int(indices[1]), int(indices[2] or indices[1])
            for index in range(first, last + 1, int(indices[3] or 1)):
                yield JobId(f"{match[1]}_{index}")
