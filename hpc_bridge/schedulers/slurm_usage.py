"""What a job used, from the records of its steps (sacct(1))."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hpc_bridge.jobs import JobId
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers.slurm_fields import elements, mebibytes, moment, resources, seconds

FIELDS = (
    "JobID",
    "State",
    "Submit",
    "Start",
    "End",
    "NNodes",
    "NTasks",
    "AllocTRES",
    "ReqTRES",
    "TotalCPU",
    "MaxRSS",
    "TRESUsageInAve",
    "TRESUsageInMax",
    "TRESUsageInTot",
    "ConsumedEnergyRaw",
)
_BYTE = 1 / 1024**2
_NO_ENERGY = 2**62
"""Where nothing measures it, sacct says 0, nothing, or a number near 2**64."""

Row = Mapping[str, str]


@dataclass
class _Attempt:
    job: Row
    steps: list[Row] = field(default_factory=list)


def usages(rows: Iterable[list[str]]) -> dict[JobId, JobUsage]:
    """The newest attempt of every job; a job's line is followed by those of its steps."""
    newest: dict[str, _Attempt] = {}
    latest: dict[str, _Attempt] = {}
    for fields in rows:
        row = dict(zip(FIELDS, fields, strict=True))
        job, dot, _ = row["JobID"].partition(".")
        if dot:
            if job in latest:
                latest[job].steps.append(row)
            continue
        latest[job] = _Attempt(row)
        # The format of a time sorts as the time does.
        if job not in newest or newest[job].job["Submit"] <= row["Submit"]:
            newest[job] = latest[job]
    return {job_id: _usage(attempt) for job, attempt in newest.items() for job_id in elements(job)}


def _usage(attempt: _Attempt) -> JobUsage:
    row, steps = attempt.job, attempt.steps
    # 22.05 gives a job that never started the moment of its end.
    started = bool(row["AllocTRES"])
    given = resources(row["AllocTRES"] or row["ReqTRES"])
    return JobUsage(
        submitted=moment(row["Submit"]),
        started=moment(row["Start"]) if started else None,
        ended=moment(row["End"]),
        nodes=_whole(given.get("node", row["NNodes"])),
        cpus=_whole(given.get("cpu", "")),
        memory=_memory(given.get("mem", ""), 1),
        gpus=_gpus(given) if given else None,
        cpu_seconds=_cpu_seconds(row, steps),
        max_memory=_max_memory(row, steps),
        gpu_utilisation=_largest(steps, "TRESUsageInAve", "gres/gpuutil", 1),
        max_gpu_memory=_up(_largest(steps, "TRESUsageInMax", "gres/gpumem", _BYTE)),
        energy_joules=_energy(row, steps),
    )


def _cpu_seconds(row: Row, steps: list[Row]) -> float | None:
    """TotalCPU counts processes that somebody waited for: not those of a job that was killed."""
    waited_for = seconds(row["TotalCPU"]) or 0.0
    if _word(row) in ("COMPLETED", "FAILED"):
        return waited_for or None
    sampled = sum(
        seconds(resources(step["TRESUsageInTot"]).get("cpu", "")) or 0.0 for step in steps
    )
    best = max(waited_for, sampled)
    return best if best >= 1.0 else None


def _max_memory(row: Row, steps: list[Row]) -> int | None:
    """Of the largest step; 0 is a job that ended before the first sample.

    MaxRSS is that of the largest task, TRESUsageInTot the sum of the tasks' largest.
    """
    if _word(row) == "OUT_OF_MEMORY":
        return None  # the last sample is from before
    largest = 0.0
    for step in steps:
        of_task = mebibytes(step["MaxRSS"], default=_BYTE) or 0.0
        of_all = resources(step["TRESUsageInTot"]).get("mem", "")
        several = step["NTasks"] not in ("", "0", "1")
        total = (mebibytes(of_all, default=_BYTE) or 0.0) if several else 0.0
        largest = max(largest, of_task, total)
    return _up(largest or None)


def _largest(steps: list[Row], column: str, name: str, default: float) -> float | None:
    amounts = [resources(step[column]).get(name, "") for step in steps]
    sizes = [size for amount in amounts if (size := mebibytes(amount, default=default)) is not None]
    return max(sizes, default=None)


def _gpus(given: Mapping[str, str]) -> int:
    typed = sum(_whole(n) or 0 for name, n in given.items() if name.startswith("gres/gpu:"))
    return _whole(given.get("gres/gpu", "")) or typed


def _energy(row: Row, steps: list[Row]) -> int | None:
    own = _whole(row["ConsumedEnergyRaw"]) or 0
    amounts = [own] if own else [_whole(step["ConsumedEnergyRaw"]) or 0 for step in steps]
    total = sum(amount for amount in amounts if amount < _NO_ENERGY)
    return total or None


def _word(row: Row) -> str:
    return row["State"].split(" ")[0]


def _whole(value: str) -> int | None:
    return int(value) if value.isdecimal() else None


def _memory(value: str, default: float) -> int | None:
    return _up(mebibytes(value, default=default))


def _up(value: float | None) -> int | None:
    return None if value is None else math.ceil(value)
