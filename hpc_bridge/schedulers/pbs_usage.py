"""What a job used, as PBS keeps it with the job (``resources_used``)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hpc_bridge.jobs import JobId
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers.pbs_answers import Record
from hpc_bridge.schedulers.pbs_fields import mebibytes, moment, number, seconds
from hpc_bridge.schedulers.pbs_jobs import is_told_by_array


def usages(records: Iterable[Record], gpu_resource: str) -> dict[JobId, JobUsage]:
    """Of every job but arrays as a whole, whose elements have their own, and those never run."""
    return {
        JobId(record.id): _usage(record, gpu_resource)
        for record in records
        if record.get("array") != "True" and not is_told_by_array(record)
    }


def _usage(record: Record, gpu_resource: str) -> JobUsage:
    """0 in ``cput`` or ``mem`` is a job that ended before it was first looked at."""
    over = record.get("job_state") in ("F", "X")
    ended = moment(record.get("obittime")) or moment(record.get("history_timestamp"))
    return JobUsage(
        submitted=moment(record.get("qtime")),
        started=moment(record.get("stime")),
        ended=ended if over else None,
        nodes=number(record.get("Resource_List.nodect")),
        cpus=number(record.get("Resource_List.ncpus")),
        memory=_up(mebibytes(record.get("Resource_List.mem"))),
        gpus=number(record.get(f"Resource_List.{gpu_resource}")) or 0,
        cpu_seconds=seconds(record.get("resources_used.cput")) or None,
        max_memory=_up(mebibytes(record.get("resources_used.mem"))) or None,
    )


def _up(value: float | None) -> int | None:
    return None if value is None else math.ceil(value)
