"""Slurm: argv for its commands and parsers for their answers.

Formats use 0x1F between fields: a reason may hold blanks and commas, and the JSON outputs change
between versions and are some forty times slower on a large queue. Read on 22.05, 24.11 and 26.05.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    InvalidJobSpec,
    SchedulerUnavailable,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.schedulers.base import Answer, Queue, Scheduler

SEPARATOR = "\x1f"

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
# What run directories, exit records and the search for a job by its name rest on.
_OWN_OPTIONS = (
    *("--job-name", "--array", "--output", "--open-mode", "--export", "--chdir", "--wrap"),
    *("--wait", "--parsable", "--test-only", "-J", "-a", "-o", "-D", "-W"),
)
_HELD_REASONS = re.compile(r"JobHeld|JobHoldMaxRequeue|held state", re.IGNORECASE)
_CANCELLED_BY = re.compile(r"CANCELLED by (\S+)")

_UNAVAILABLE = re.compile(
    r"Unable to contact slurm|Socket timed out|Zero Bytes were transmitted|Connection refused"
    r"|temporarily unable to accept job|Resource temporarily unavailable|Connection timed out"
    r"|Slurm database|slurmdbd|Unexpected message received",
    re.IGNORECASE,
)
_JOB_ID = re.compile(r"(\d+)(?:;[\w.-]+)?")

_STATUS_FIELDS = ("%i", "%j", "%T", "%r", "%N", "%V", "%S", "%e")
_HISTORY_FIELDS = (
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
_QUEUE_FIELDS = ("%P", "%a", "%l")

# SQUEUE_FORMAT and its like change outputs; times are printed in the zone of the command.
_PINNED = (
    "env",
    "--unset=SQUEUE_FORMAT",
    "--unset=SQUEUE_FORMAT2",
    "--unset=SQUEUE_STATES",
    "--unset=SQUEUE_SORT",
    "--unset=SACCT_FORMAT",
    "--unset=SINFO_FORMAT",
    "TZ=UTC",
    "LC_ALL=C.UTF-8",
    "SLURM_TIME_FORMAT=standard",
)


class SlurmScheduler(Scheduler):
    """Slurm 22.05 and later."""

    name = "slurm"
    template = "slurm.sh.j2"
    leaked_variables = (
        "SLURM_*",
        "SLURMD_*",
        "SBATCH_*",
        "SALLOC_*",
        "SQUEUE_*",
        "SACCT_*",
        "SCANCEL_*",
        "SINFO_*",
        "PMI_*",
        "PMIX_*",
    )

    def submit_command(self, name: str) -> list[str]:
        return [*_PINNED, "sbatch", "--parsable", f"--job-name={name}"]

    def check_directives(self, directives: Sequence[str]) -> None:
        for line in directives:
            option = line.split("=")[0].split()[0]
            long = option.startswith("--")
            if any(
                own.startswith(option) if long and len(option) > 4 else option[:2] == own
                for own in _OWN_OPTIONS
                if own.startswith("--") == long
            ):
                raise InvalidJobSpec(
                    f"directives: {line!r} is decided by hpc-bridge, which finds the job and its"
                    " output by it; leave it out"
                )

    def parse_submit(self, answer: Answer) -> JobId:
        if answer.exit_code != 0:
            raise _error(answer, SubmissionRefused, "Slurm refused the job")
        # A login script may print before sbatch does.
        for line in reversed(answer.stdout.splitlines()):
            if match := _JOB_ID.fullmatch(line.strip()):
                return JobId(match[1])
        raise UnexpectedOutput(f"sbatch printed no job id but {answer.stdout[-200:]!r}")

    def status_command(self, user: str) -> list[str]:
        return [
            *_PINNED,
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            f"--user={user}",
            f"--format={SEPARATOR.join(_STATUS_FIELDS)}",
        ]

    def parse_status(self, answer: Answer) -> dict[JobId, JobStatus]:
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "squeue failed")
        return _statuses(_rows(answer, len(_STATUS_FIELDS)), _queue_status)

    def history_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        return [
            *_PINNED,
            "sacct",
            "--noheader",
            "--parsable2",
            f"--delimiter={SEPARATOR}",
            "--allocations",
            "--duplicates",
            f"--user={user}",
            f"--starttime={since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
            f"--jobs={','.join(job.value for job in jobs)}",
            f"--format={','.join(_HISTORY_FIELDS)}",
        ]

    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:
        if "accounting storage is disabled" in answer.stderr:
            return {}  # the site keeps no records, which is an answer
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "sacct failed")
        return _statuses(_rows(answer, len(_HISTORY_FIELDS)), _history_status)

    def cancel_command(self, jobs: Collection[JobId]) -> list[str]:
        return [*_PINNED, "scancel", *(job.value for job in jobs)]

    def parse_cancel(self, answer: Answer) -> None:
        over = re.compile(r"Job/step already completing or completed|Invalid job id")
        words = [line for line in answer.stderr.splitlines() if line.strip()]
        harmless = bool(words) and all(over.search(line) for line in words)
        if answer.exit_code != 0 and not harmless:
            raise _error(answer, CommandError, "scancel failed")

    def find_command(self, name: str, user: str) -> list[str]:
        return [*self.status_command(user), f"--name={name}"]

    def parse_find(self, answer: Answer) -> list[JobStatus]:
        found = self.parse_status(answer).values()
        return sorted(found, key=lambda status: int(status.job_id.value.split("_")[0]))[::-1]

    def queue_command(self) -> list[str]:
        return [*_PINNED, "sinfo", "--noheader", f"--format={SEPARATOR.join(_QUEUE_FIELDS)}"]

    def parse_queues(self, answer: Answer) -> Mapping[str, Queue]:
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "sinfo failed")
        queues = {}
        for name, availability, limit in _rows(answer, len(_QUEUE_FIELDS)):
            plain = name.removesuffix("*")
            queues[plain] = Queue(
                name=plain,
                is_default=name.endswith("*"),
                is_up=availability == "up",
                walltime_seconds=_limit(limit),
            )
        return queues


def _error(answer: Answer, kind: type[CommandError], what: str) -> CommandError:
    words = answer.stderr.strip() or answer.stdout.strip() or "no message"
    if answer.exit_code == 127:
        return CommandNotFound(
            f"a command of Slurm was not found ({words}). Run this where they are on PATH (a login"
            " node), or use the embedded scheduler of this machine: HPC_BRIDGE_SCHEDULER=local.",
            command=answer.command,
            exit_code=127,
            stderr=answer.stderr,
        )
    if _UNAVAILABLE.search(words):
        kind = SchedulerUnavailable
    return kind(
        f"{what}: {words}",
        command=answer.command,
        exit_code=answer.exit_code,
        stderr=answer.stderr,
    )


def _rows(answer: Answer, width: int) -> Iterator[list[str]]:
    # Not splitlines: a name may hold what Unicode counts as a line break.
    for line in answer.stdout.split("\n"):
        fields = line.split(SEPARATOR)
        if len(fields) == width:
            yield [field.strip() for field in fields]


def _statuses(
    rows: Iterator[list[str]], status: Callable[[list[str]], JobStatus]
) -> dict[JobId, JobStatus]:
    found: dict[JobId, JobStatus] = {}
    unknown: list[str] = []
    for row in rows:
        try:
            parsed = status(row)
        except UnexpectedOutput as error:
            unknown.append(str(error))
        else:
            found[parsed.job_id] = parsed
    if unknown:
        raise UnexpectedOutput("; ".join(sorted(set(unknown))), readable=found)
    return found


def _queue_status(row: list[str]) -> JobStatus:
    job_id, name, word, reason, nodes, submitted, started, ended = row
    state = _state(job_id, word)
    if state is JobState.PENDING and _HELD_REASONS.search(reason):
        state = JobState.HELD
    start = _time(started)
    return JobStatus(
        job_id=JobId(job_id),
        name=name,
        state=state,
        scheduler_state=word,
        reason=_text(reason),
        nodes=_text(nodes),
        submitted=_time(submitted),
        # squeue's %S is the expected start of a job that waits, and the end of one that never ran.
        started=None if state.is_waiting or not nodes else start,
        estimated_start=start if state.is_waiting else None,
        ended=_time(ended) if state.is_terminal else None,
    )


def _history_status(row: list[str]) -> JobStatus:
    job_id, name, word, exit_code, reason, nodes, submitted, started, ended = row
    state = _state(job_id, word)
    code, _, signal = exit_code.partition(":")
    cancelled_by = _CANCELLED_BY.match(word)
    return JobStatus(
        job_id=JobId(job_id),
        name=name,
        state=state,
        scheduler_state=word,
        reason=_text(reason),
        exit_code=int(code) if state.is_terminal and code.isdigit() else None,
        signal=int(signal) if state.is_terminal and signal.isdigit() and int(signal) else None,
        nodes=_text(nodes),
        submitted=_time(submitted),
        started=_time(started),
        ended=_time(ended),
        cancelled_by=cancelled_by[1] if cancelled_by else None,
    )


def _state(job_id: str, word: str) -> JobState:
    plain = word.split(" ")[0].rstrip("+")
    state = _STATES.get(plain)
    if state is None:
        raise UnexpectedOutput(f"job {job_id} is in state {word!r}, which is not known here")
    return state


def _text(value: str) -> str | None:
    return None if value in ("", "None", "(null)", "None assigned", "N/A") else value


def _time(value: str) -> datetime | None:
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None  # N/A, Unknown, None, NONE


def _limit(value: str) -> int | None:
    """``sinfo %l``: ``[days-]hours:minutes:seconds``, ``minutes:seconds`` or ``infinite``."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", value)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(field or 0) for field in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds
