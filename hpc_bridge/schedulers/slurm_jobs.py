"""One job as squeue and sacct tell of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from hpc_bridge.errors import UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.schedulers.slurm_fields import elements, moment, text

STATUS_FIELDS = ("%i", "%j", "%T", "%r", "%N", "%V", "%S", "%e")
HISTORY_FIELDS = (
    "JobID",
    "JobName",
    "State",
    "ExitCode",
    "Reason",
    "NodeList",
    "Submit",
    "Start",
    "End",
)

# squeue(1) and sacct(1), "JOB STATE CODES".
_STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.STARTING,
    "POWER_UP_NODE": JobState.STARTING,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "EXPEDITING": JobState.PENDING,
    "SUSPENDED": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
    "COMPLETING": JobState.COMPLETING,
    "STAGE_OUT": JobState.COMPLETING,
    "UPDATE_DB": JobState.COMPLETING,
    "REQUEUED": JobState.REQUEUED,
    "REQUEUE_FED": JobState.REQUEUED,
    "REQUEUE_HOLD": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "COMPLETED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "RECONFIG_FAIL": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMEOUT,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "NODE_FAIL": JobState.NODE_FAIL,
    "PREEMPTED": JobState.PREEMPTED,
    "BOOT_FAIL": JobState.BOOT_FAIL,
    "DEADLINE": JobState.DEADLINE,
}
_HELD_REASONS = re.compile(r"JobHeld|JobHoldMaxRequeue|held state", re.IGNORECASE)
_CANCELLED_BY = re.compile(r"CANCELLED by (\S+)")


def statuses(
    rows: Iterator[list[str]], status: Callable[[list[str]], JobStatus]
) -> dict[JobId, JobStatus]:
    """Every job that can be read; the rest is named by UnexpectedOutput."""
    found: dict[JobId, JobStatus] = {}
    shared: dict[JobId, JobStatus] = {}
    unknown: list[str] = []
    for row in rows:
        try:
            parsed = status(row)
        except UnexpectedOutput as error:
            unknown.append(str(error))
            continue
        for job_id in elements(parsed.job_id.value):
            if job_id == parsed.job_id:
                found[job_id] = parsed
            else:  # of elements that had not started; one that has started since has its own
                shared[job_id] = replace(parsed, job_id=job_id)
    found = shared | found
    if unknown:
        raise UnexpectedOutput("; ".join(sorted(set(unknown))), readable=found)
    return found


def queue_status(row: list[str]) -> JobStatus:
    """Of a line with STATUS_FIELDS."""
    job_id, name, word, reason, nodes, submitted, started, ended = row
    state = _state(job_id, word)
    if state is JobState.PENDING and _HELD_REASONS.search(reason):
        state = JobState.HELD
    start = moment(started)
    return JobStatus(
        job_id=JobId(job_id),
        name=name,
        state=state,
        scheduler_state=word,
        reason=text(reason),
        nodes=text(nodes),
        submitted=moment(submitted),
        # squeue's %S is the expected start of a job that waits, and the end of one that never ran.
        started=None if state.is_waiting or not nodes else start,
        estimated_start=start if state.is_waiting else None,
        ended=moment(ended) if state.is_terminal else None,
    )


def history_status(row: list[str]) -> JobStatus:
    """Of a line with HISTORY_FIELDS."""
    job_id, name, word, exit_code, reason, nodes, submitted, started, ended = row
    state = _state(job_id, word)
    code, _, signal = exit_code.partition(":")
    cancelled_by = _CANCELLED_BY.match(word)
    return JobStatus(
        job_id=JobId(job_id),
        name=name,
        state=state,
        scheduler_state=word,
        reason=text(reason),
        exit_code=int(code) if state.is_terminal and code.isdigit() else None,
        signal=int(signal) if state.is_terminal and signal.isdigit() and int(signal) else None,
        nodes=text(nodes),
        submitted=moment(submitted),
        started=moment(started),
        ended=moment(ended),
        cancelled_by=cancelled_by[1] if cancelled_by else None,
    )


def _state(job_id: str, word: str) -> JobState:
    plain = word.split(" ")[0].rstrip("+")
    state = _STATES.get(plain)
    if state is None:
        raise UnexpectedOutput(f"job {job_id} is in state {word!r}, which is not known here")
    return state
