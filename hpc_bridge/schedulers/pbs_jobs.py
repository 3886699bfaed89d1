"""One job as ``qstat -f`` tells of it, alive or from PBS's history."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hpc_bridge.errors import UnexpectedOutput
from hpc_bridge.jobs import NEVER_STARTED, JobId, JobState, JobStatus
from hpc_bridge.schedulers.pbs_answers import Record
from hpc_bridge.schedulers.pbs_fields import hosts, is_element, moment, number, parent_of

# qstat(1B), "job state"; of a job that is over the end is read from what it left.
_LIVE = {
    "Q": JobState.PENDING,
    "H": JobState.HELD,
    "W": JobState.PENDING,  # for its -a time, or for files that are staged in
    "T": JobState.PENDING,  # on its way to an execution queue
    "M": JobState.PENDING,  # moved to another server, where nobody here can follow it
    "R": JobState.RUNNING,
    "B": JobState.RUNNING,  # an array, some element of which has started
    "S": JobState.SUSPENDED,
    "U": JobState.SUSPENDED,  # by somebody at the workstation
    "E": JobState.COMPLETING,
}
_OVER = frozenset("FX")
"""X: an element, while others of its array are alive."""
_STARTING = "41"
_HELD_BY_DEPENDENCY = "22"
_DELETED = "91"

# job.h, JOB_EXEC_*: below 0 PBS itself ended the job, or never started it.
_ENDED_BY_PBS = {
    -30: (JobState.NODE_FAIL, "one of its nodes did not join it at the start"),
    -29: (JobState.TIMEOUT, "its walltime was over"),
    -28: (JobState.FAILED, "it used more CPU time (cput) than it asked for"),
    -27: (JobState.OUT_OF_MEMORY, "it used more memory than it asked for"),
    -26: (JobState.OUT_OF_MEMORY, "it used more virtual memory (vmem) than it asked for"),
    -25: (JobState.FAILED, "it used more CPUs on average than it asked for"),
    -24: (JobState.FAILED, "it used more CPUs at once than it asked for"),
    -23: (JobState.FAILED, "its Kerberos credentials could not be used"),
    -22: (JobState.FAILED, "a hook of the site failed"),
    -21: (JobState.FAILED, "its security context could not be made on the node"),
    -20: (JobState.NODE_FAIL, "its first node failed"),
    -19: (JobState.FAILED, "a hook of the site deleted it"),
    -18: (JobState.FAILED, "a hook of the site wanted it run again"),
    -17: (JobState.FAILED, "a hook of the site failed and deleted it"),
    -16: (JobState.FAILED, "a hook of the site failed and wanted it run again"),
    -15: (JobState.FAILED, "it was to be started again from a checkpoint"),
    -14: (JobState.NODE_FAIL, "one of its nodes failed at the start"),
    -13: (JobState.FAILED, "its owner's password was not accepted on the node"),
    -12: (JobState.FAILED, "it was checkpointed and ended"),
    -11: (JobState.FAILED, "it was to be run again"),
    -10: (JobState.FAILED, "its user or group is not valid on the node"),
    -7: (JobState.FAILED, "its checkpoint could not be used"),
    -6: (JobState.NODE_FAIL, "PBS was started again on its node"),
    -5: (JobState.NODE_FAIL, "PBS was started again on its node"),
    -4: (JobState.NODE_FAIL, "PBS was started again on its node"),
    -3: (JobState.BOOT_FAIL, "it could not be started now"),
    -2: (JobState.BOOT_FAIL, "it could not be started"),
    -1: (JobState.BOOT_FAIL, "it could not be started"),
}
# Comments of an array that say nothing of an element which waits.
_OF_THE_ARRAY = re.compile(r"Job Array Began|Subjob (?:finished|failed|terminated)")
# Not what qhold writes, which says less than the kind of the hold.
_HELD_BY_PBS = re.compile(r"job (?:array )?held(?:,| due)|.*bad password", re.IGNORECASE)
_DELETED_BY = re.compile(r"terminated by (\w[\w.-]*)@")
_UNDELIVERED = "its output could not be copied to its place; PBS keeps it on the node (undelivered)"
_TOP_SHELL_KILLED = 256


@dataclass(frozen=True, slots=True)
class _End:
    state: JobState
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    cancelled_by: str | None = None


def is_told_by_array(record: Record) -> bool:
    """Whether a record of an element is its array's: PBS has nothing of the element itself.

    ``status_subjob()`` then gives substate, times, comment and even Exit_status of the array. The
    element has not run yet, was deleted before it ran, or has ended and there is no history.
    """
    return is_element(record.id) and not number(record.get("run_count"))


def live_statuses(records: Iterable[Record]) -> dict[JobId, JobStatus]:
    """As ``statuses``, of the queue: without elements that are over and of which PBS has nothing.

    How they ended is not known from here.
    """
    return statuses(
        record
        for record in records
        if record.get("job_state") not in _OVER or not is_told_by_array(record)
    )


def statuses(records: Iterable[Record]) -> dict[JobId, JobStatus]:
    """Every job that can be read; the rest is named by UnexpectedOutput.

    An array is told by its elements where the answer has any (``qstat -t``).
    """
    found: dict[str, JobStatus] = {}
    unknown: list[str] = []
    for record in records:
        try:
            found[record.id] = job_status(record)
        except UnexpectedOutput as error:
            unknown.append(str(error))
    arrays = {parent_of(name) for name in found if parent_of(name) != name}
    told = {
        JobId(name): _as_its_array(status, found.get(parent_of(name)))
        for name, status in found.items()
        if name not in arrays
    }
    if unknown:
        raise UnexpectedOutput("; ".join(sorted(set(unknown))), readable=told)
    return told


def job_status(record: Record) -> JobStatus:
    """Raises UnexpectedOutput for a word that is not known."""
    word, exit_status = record.get("job_state"), record.get("Exit_status")
    if exit_status and number(exit_status) is None:
        raise UnexpectedOutput(f"job {record.id} has Exit_status {exit_status!r}, which is none")
    # While a rerun job lives, Exit_status and obittime are those of the start before.
    over = word in _OVER
    end = _end(record) if over else _End(_live(record), _reason(record))
    waits = end.state.is_waiting
    has_own = not is_told_by_array(record)
    started = moment(record.get("stime")) if has_own and not waits else None
    ended = moment(record.get("obittime")) or moment(record.get("history_timestamp"))
    return JobStatus(
        job_id=JobId(record.id),
        name=record.get("Job_Name"),
        state=end.state,
        scheduler_state=word,
        reason=end.reason,
        exit_code=end.exit_code,
        signal=end.signal,
        nodes=None if waits else hosts(record.get("exec_host")),
        submitted=moment(record.get("ctime")),
        started=started,
        estimated_start=moment(record.get("estimated.start_time")) if waits else None,
        ended=ended if has_own and over else None,
        cancelled_by=end.cancelled_by,
    )


def _live(record: Record) -> JobState:
    word, substate = record.get("job_state"), record.get("substate")
    state = _LIVE.get(word)
    if state is None:
        raise UnexpectedOutput(f"job {record.id} is in state {word!r}, which is not known here")
    if word == "R" and substate == _STARTING:
        return JobState.STARTING
    if word == "H" and substate == _HELD_BY_DEPENDENCY:
        return JobState.PENDING
    if word == "Q" and (number(record.get("run_count")) or 0) > 0:
        return JobState.REQUEUED
    return state


def _reason(record: Record) -> str | None:
    """Of a job that waits, in PBS's own words: its comment, or what holds it."""
    word = record.get("job_state")
    if word not in "QHWTM":
        return None
    if word == "M":
        return "moved to another server"
    if word == "H" and record.get("substate") == _HELD_BY_DEPENDENCY:
        return f"depend = {record.get('depend')}"
    if word == "W" and (when := record.get("Execution_Time")):
        return f"Execution_Time = {when}"
    comment = record.get("comment").strip()
    if word == "H" and not _HELD_BY_PBS.match(comment):
        return f"Hold_Types = {record.get('Hold_Types', 'n')}"
    return None if _OF_THE_ARRAY.match(comment) else comment or None


def _end(record: Record) -> _End:
    if is_told_by_array(record):
        return _End(JobState.CANCELLED, "it was deleted before it started")
    comment = record.get("comment").strip()
    exit_status = number(record.get("Exit_status"))
    if record.get("substate") == _DELETED:
        by = _DELETED_BY.search(comment)
        return _End(JobState.CANCELLED, comment or None, cancelled_by=by[1] if by else None)
    if exit_status is None:
        return _never_ended(record, comment)
    if exit_status < 0:
        unknown = (JobState.FAILED, "its code is not known here")
        state, meaning = _ENDED_BY_PBS.get(exit_status, unknown)
        return _End(state, f"PBS ended the job: {meaning} (Exit_status {exit_status})")
    reason = _UNDELIVERED if record.get("Stageout_status") == "0" else None
    if exit_status >= _TOP_SHELL_KILLED:
        return _End(JobState.FAILED, reason, signal=exit_status - _TOP_SHELL_KILLED)
    state = JobState.FAILED if exit_status else JobState.COMPLETED
    return _End(state, reason, exit_code=exit_status)


def _never_ended(record: Record, comment: str) -> _End:
    """Over without an exit status: it never ran, whatever its substate says."""
    if record.get("exec_host"):
        return _End(JobState.FAILED, comment or "PBS recorded no exit status")
    if depend := record.get("depend"):
        why = f"what it depends on did not end as asked, or is not known ({depend})"
        return _End(JobState.CANCELLED, NEVER_STARTED + why)
    return _End(JobState.CANCELLED, comment or "it never started")


def _as_its_array(element: JobStatus, array: JobStatus | None) -> JobStatus:
    """Elements that wait look queued while what holds them is said of their array alone."""
    if array is None or element.state is not JobState.PENDING or not array.state.is_waiting:
        return element
    return replace(element, state=array.state, reason=array.reason or element.reason)
