"""``hpc-bridge jobs``: the live jobs of this account with their flow runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from hpc_bridge.cli.here import Here
from hpc_bridge.cli.server_access import flow_runs
from hpc_bridge.errors import ServerUnreachable, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.journal import RunDirectory, is_submission_id
from hpc_bridge.schedulers.base import Scheduler
from hpc_bridge.sites.words import queue_word
from hpc_bridge.storage.asking import each
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.tracking.lookup import journals

_ELEMENT = re.compile(r"\d+(?:_|\[)(\d+)", re.ASCII)
"""In Slurm's ``123_4`` and PBS's ``123[4].server``."""


@dataclass(frozen=True, slots=True)
class JobLine:
    """One job and what is known of its flow run."""

    job_id: str
    state: str
    reason: str
    """Why it waits, in the scheduler's own word."""
    meaning: str
    """The same in sentences."""
    start: datetime | None
    """When it started, or is expected to."""
    partition: str
    nodes: str
    submission: str
    element: int
    flow_run: str
    flow_run_id: str
    output: str


def list_jobs(here: Here, *, all_: bool, as_json: bool) -> None:
    """Print the jobs. Raises CommandError when the scheduler does not answer."""
    cluster = here.connection().cluster
    try:
        answer: Mapping[JobId, JobStatus] = cluster.status()
    except UnexpectedOutput as error:
        sys.stderr.write(f"hpc-bridge: some jobs could not be read: {error}\n")
        answer = error.readable
    ours = [
        status
        for status in answer.values()
        if is_submission_id(status.name) and (all_ or not status.state.is_terminal)
    ]
    lines = job_lines(ours, here.shared, cluster.scheduler, here.files)
    word = queue_word(cluster.scheduler.name)
    if as_json:
        sys.stdout.write(json.dumps([asdict(line) for line in lines], default=_text) + "\n")
    elif sys.stdout.isatty():
        Console().print(_table(lines, word) if lines else "no jobs")
    else:
        sys.stdout.write(aligned(lines, word))


def job_lines(
    statuses: Iterable[JobStatus], shared: Path, scheduler: Scheduler, files: ClusterFiles = HERE
) -> list[JobLine]:
    """In the order of submission; names of flow runs only when the server answers."""
    jobs = sorted(statuses, key=_order)
    runs = {job.name: RunDirectory(shared / "runs" / job.name, files) for job in jobs}
    # Those of another shared directory have none here.
    known = {run.submission_id: journal for run, journal in journals(list(runs.values()))}
    found = [(job, known.get(job.name, {})) for job in jobs]
    ids = {run for job, journal in found if (run := _flow_run_id(job, journal))}
    names = _names({UUID(run) for run in ids})
    outputs = _outputs([(runs[job.name], _element(job)) for job in jobs])
    return [
        _line(job, journal, output, scheduler, names)
        for (job, journal), output in zip(found, outputs, strict=True)
    ]


def _outputs(wanted: Sequence[tuple[RunDirectory, int]]) -> list[Path]:
    """As ``RunDirectory.output``, of all with one question."""
    if not wanted:
        return []
    folders = [run.element(element) for run, element in wanted]
    listings = each(wanted[0][0].files.listings, folders)
    return [
        run.outputs(element)[0 if isinstance(listing, dict) and "job.out" in listing else 1]
        for (run, element), listing in zip(wanted, listings, strict=True)
    ]


def aligned(lines: Iterable[JobLine], queue: str = "partition") -> str:
    """Columns with blanks between them, empty cells as ``-``, for other programs and for logs."""
    columns = [field.name for field in fields(JobLine) if field.name != "meaning"]
    rows = [[queue if column == "partition" else column for column in columns]]
    rows += [[_text(getattr(line, column)) or "-" for column in columns] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def _line(
    status: JobStatus,
    journal: dict[str, Any],
    output: Path,
    scheduler: Scheduler,
    names: Mapping[UUID, str],
) -> JobLine:
    flow_run_id = _flow_run_id(status, journal)
    reason = scheduler.explain_reason(status)
    return JobLine(
        job_id=str(status.job_id),
        state=str(status.state),
        reason=reason.word if reason else "",
        meaning=reason.meaning if reason else "",
        start=status.started or status.estimated_start,
        partition=journal.get("spec", {}).get("partition", ""),
        nodes=status.nodes or "",
        submission=status.name,
        element=_element(status),
        flow_run=names.get(UUID(flow_run_id), "") if flow_run_id else "",
        flow_run_id=flow_run_id,
        output=str(output),
    )


def _table(lines: Iterable[JobLine], queue: str) -> Table:
    table = Table()
    for column in ("job", "state", "start", queue, "flow run", "output"):
        table.add_column(column, overflow="fold")  # an id is only good whole
    for line in lines:
        state = f"{line.state} ({line.reason})\n{line.meaning}" if line.reason else line.state
        run = f"{line.flow_run}\n{line.flow_run_id}" if line.flow_run else line.flow_run_id
        start = line.start.astimezone().strftime("%m-%d %H:%M:%S") if line.start else ""
        table.add_row(line.job_id, state, start, line.partition, run, line.output)
    return table


def _order(status: JobStatus) -> tuple[str, int]:
    return status.name, _element(status)


def _element(status: JobStatus) -> int:
    match = _ELEMENT.match(status.job_id.value)
    return int(match[1]) if match else 0


def _flow_run_id(status: JobStatus, journal: dict[str, Any]) -> str:
    return str(journal.get("flow_runs", {}).get(str(_element(status)), ""))


def _names(ids: set[UUID]) -> dict[UUID, str]:
    if not ids:
        return {}
    try:
        return {run.id: run.name for run in flow_runs(ids).values()}
    except ServerUnreachable as error:
        sys.stderr.write(f"hpc-bridge: names of flow runs are not known: {error}\n")
        return {}


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return str(value) if value is not None else ""
