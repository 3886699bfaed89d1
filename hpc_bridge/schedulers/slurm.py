"""Slurm: argv for its commands and parsers for their answers.

Formats use 0x1F between fields: a reason may hold blanks and commas, and the JSON outputs change
between versions and are some forty times slower on a large queue. Read on 22.05, 24.11 and 26.05.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
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
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers import slurm_usage
from hpc_bridge.schedulers.base import Answer, Queue, Scheduler, newest_first
from hpc_bridge.schedulers.slurm_fields import elements, moment, seconds, text
from hpc_bridge.schedulers.slurm_reasons import explain

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
_ARRAY_LIMIT = re.compile(r"(?:MaxArraySize\s*=\s*|max_array_tasks=)(\d+)")
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
# Without ids, sacct looks for jobs that were eligible to run before its end time, which is now: not
# for one cancelled before its begin time. With states it also takes those that ended in time.
_EVEN_NEVER_ELIGIBLE = (
    "--endtime=2037-01-01T00:00:00",
    "--state=BF,CA,CD,DL,F,NF,OOM,PD,PR,R,RQ,RS,RV,S,TO",
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
    "SLURM_BITSTR_LEN=0",  # else 64 characters of an array's indices, and then "..."
)


class SlurmScheduler(Scheduler):
    """Slurm 22.05 and later."""

    name = "slurm"
    template = "slurm.sh.j2"
    supports_arrays = True
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

    def element_id(self, job_id: JobId, element: int) -> JobId:
        return JobId(f"{job_id}_{element}")

    def array_id(self, job_id: JobId) -> JobId:
        return JobId(job_id.value.partition("_")[0])

    def array_limit_command(self) -> list[str]:
        return [*_PINNED, "scontrol", "--oneliner", "show", "config"]

    def parse_array_limit(self, answer: Answer) -> int:
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "scontrol show config failed")
        # Indices end one below MaxArraySize (slurm.conf(5)); max_array_tasks is a second limit.
        sizes = _ARRAY_LIMIT.findall(answer.stdout)
        if not sizes:
            raise UnexpectedOutput("scontrol show config names no MaxArraySize")
        return max(1, min(int(size) for size in sizes))

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

    def explain_reason(self, status: JobStatus) -> QueueReason | None:
        if status.reason is None or not status.state.is_waiting:
            return None
        return explain(status.reason, status.job_id.value)

    def history_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        # Elements that did not start have one record together, which is found by the array's id.
        ids = dict.fromkeys(self.array_id(job).value for job in jobs)
        return [*_sacct(_HISTORY_FIELDS, user, since), "--allocations", f"--jobs={','.join(ids)}"]

    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:
        return _statuses(_records(answer, len(_HISTORY_FIELDS)), _history_status)

    def find_history_command(self, name: str, user: str, since: datetime) -> list[str]:
        sacct = _sacct(_HISTORY_FIELDS, user, since)
        return [*sacct, *_EVEN_NEVER_ELIGIBLE, "--allocations", f"--name={name}"]

    def without_record(
        self, jobs: Collection[JobId], found: Mapping[JobId, JobStatus]
    ) -> dict[JobId, JobStatus]:
        """Elements that were cancelled one by one before they started.

        They leave the queue, and the record that an array's waiting elements share, without a trace
        (seen on 22.05, 24.11 and 26.05); every other one is in one record or another of its array.
        """
        arrays = {self.array_id(job): status for job, status in found.items()}
        return {
            job: JobStatus(
                job_id=job,
                name=array.name,
                state=JobState.CANCELLED,
                scheduler_state="",
                reason="cancelled while it waited; Slurm does not record by whom",
                submitted=array.submitted,
            )
            for job in jobs
            if job not in found
            and self.array_id(job) != job
            and (array := arrays.get(self.array_id(job))) is not None
        }

    def usage_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        ids = ",".join(job.value for job in jobs)
        return [*_sacct(slurm_usage.FIELDS, user, since), f"--jobs={ids}"]

    def parse_usage(self, answer: Answer) -> dict[JobId, JobUsage]:
        return slurm_usage.usages(_records(answer, len(slurm_usage.FIELDS)))

    def cancel_command(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> list[str]:
        states = ["--state=PENDING"] if only_waiting else []
        return [*_PINNED, "scancel", *states, *(job.value for job in jobs)]

    def parse_cancel(self, answer: Answer) -> None:
        over = re.compile(r"Job/step already completing or completed|Invalid job id")
        words = [line for line in answer.stderr.splitlines() if line.strip()]
        harmless = bool(words) and all(over.search(line) for line in words)
        if answer.exit_code != 0 and not harmless:
            raise _error(answer, CommandError, "scancel failed")

    def find_command(self, name: str, user: str) -> list[str]:
        return [*self.status_command(user), f"--name={name}"]

    def parse_find(self, answer: Answer) -> list[JobStatus]:
        return newest_first(self.parse_status(answer).values())

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
                walltime_seconds=None if (walltime := seconds(limit)) is None else int(walltime),
            )
        return queues


def _sacct(fields: Sequence[str], user: str, since: datetime) -> list[str]:
    return [
        *_PINNED,
        "sacct",
        "--noheader",
        "--parsable2",
        f"--delimiter={SEPARATOR}",
        "--duplicates",
        f"--user={user}",
        f"--starttime={since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        f"--format={','.join(fields)}",
    ]


def _records(answer: Answer, width: int) -> Iterator[list[str]]:
    if "accounting storage is disabled" in answer.stderr:
        return iter(())  # the site keeps no records, which is an answer
    if answer.exit_code != 0:
        raise _error(answer, CommandError, "sacct failed")
    return _rows(answer, width)


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
        kind, what = SchedulerUnavailable, "Slurm does not answer"
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


def _queue_status(row: list[str]) -> JobStatus:
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
