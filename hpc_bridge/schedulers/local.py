"""The embedded scheduler: argv for its command and parsers for its answers."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.jobs.reasons import Clears, QueueReason
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers.base import Answer, Demand, Queue, QueueNode, Scheduler
from hpc_bridge.schedulers.local_directives import option_name
from hpc_bridge.schedulers.local_records import COLUMNS, LIVE, SEPARATOR, WAITING
from hpc_bridge.schedulers.slurm import SlurmScheduler

_PROGRAM = Path(__file__).with_name("local_command.py")
_PREFIX = "local: error: "
_REASONS = {
    "Priority": (Clears.BY_ITSELF, "Jobs that were submitted earlier come first."),
    "Resources": (Clears.BY_ITSELF, "It waits until enough CPUs of this machine are free."),
    "BeginTime": (Clears.BY_ITSELF, "Its earliest start time is not reached."),
    "Requeued": (Clears.BY_ITSELF, "It was requeued and waits for its turn."),
    "JobHeldUser": (Clears.BY_SOMEBODY, "It is held until it is released."),
}
_NOT_KNOWN = (Clears.UNKNOWN, "What this means is not known here.")


class LocalScheduler(Scheduler):
    """Jobs of this machine, kept in a state directory on a local file system.

    ``python`` is the interpreter of the command (3.11 or later, the standard library is enough);
    ``cpus`` is how many CPUs all jobs of the directory use together, by default all there are.
    """

    name = "local"
    template = "slurm.sh.j2"

    def __init__(
        self, state_directory: Path | str, *, python: str = sys.executable, cpus: int | None = None
    ) -> None:
        # -I and -S: nothing of the submitter's environment, and half the time to start.
        command = [python, "-I", "-S", "-X", "utf8", str(_PROGRAM), f"--state={state_directory}"]
        self._command = command if cpus is None else [*command, f"--cpus={cpus}"]

    def submit_command(self, name: str) -> list[str]:  # noqa: ARG002 - read from the script
        return [*self._command, "submit"]

    def check_directives(self, directives: Sequence[str]) -> None:
        SlurmScheduler().check_directives(directives)

    def directive_option(self, directive: str) -> str:
        return option_name(directive)

    def parse_submit(self, answer: Answer) -> JobId:
        if answer.exit_code != 0:
            raise _error(answer, SubmissionRefused, "The embedded scheduler refused the job")
        lines = answer.stdout.split()
        if not lines or not lines[-1].isdecimal():
            raise UnexpectedOutput(
                f"the embedded scheduler printed no job id but {answer.stdout[-200:]!r}"
            )
        return JobId(lines[-1])

    def status_command(self, user: str) -> list[str]:  # noqa: ARG002 - a directory has one user
        return [*self._command, "status"]

    def parse_status(self, answer: Answer) -> dict[JobId, JobStatus]:
        return {status.job_id: status for status in self.parse_find(answer)}

    def explain_reason(self, status: JobStatus) -> QueueReason | None:
        if status.reason is None or not status.state.is_waiting:
            return None
        clears, meaning = _REASONS.get(status.reason, _NOT_KNOWN)
        return QueueReason(status.reason, meaning, clears)

    def history_command(
        self,
        jobs: Collection[JobId],
        user: str,  # noqa: ARG002
        since: datetime,  # noqa: ARG002 - what it keeps is little and asked for by id
    ) -> list[str]:
        return [*self._command, "history", *(job.value for job in jobs)]

    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:
        return self.parse_status(answer)

    def cancel_command(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> list[str]:
        states = ["--waiting"] if only_waiting else []
        return [*self._command, "cancel", *states, *(job.value for job in jobs)]

    def parse_cancel(self, answer: Answer) -> None:
        complaints = [
            line for line in answer.stderr.splitlines() if "Invalid job id specified" not in line
        ]
        if answer.exit_code != 0 and (complaints or not answer.stderr.strip()):
            raise _error(answer, CommandError, "The embedded scheduler did not cancel")

    def find_history_command(
        self,
        name: str,
        user: str,
        since: datetime,  # noqa: ARG002 - what it keeps is little
    ) -> list[str]:
        return self.find_command(name, user)

    def usage_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        return self.history_command(jobs, user, since)

    def parse_usage(self, answer: Answer) -> dict[JobId, JobUsage]:
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "The embedded scheduler failed")
        rows = (dict(zip(COLUMNS, row, strict=True)) for row in _rows(answer, len(COLUMNS)))
        return {JobId(row["id"]): _usage(row) for row in rows}

    def find_command(self, name: str, user: str) -> list[str]:  # noqa: ARG002
        return [*self._command, "find", name]

    def parse_find(self, answer: Answer) -> list[JobStatus]:
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "The embedded scheduler failed")
        found: list[JobStatus] = []
        unknown: list[str] = []
        for row in _rows(answer, len(COLUMNS)):
            try:
                found.append(_status(dict(zip(COLUMNS, row, strict=True))))
            except UnexpectedOutput as error:
                unknown.append(str(error))
        if unknown:
            raise UnexpectedOutput(
                "; ".join(sorted(set(unknown))),
                readable={status.job_id: status for status in found},
            )
        return found

    def queue_command(self) -> list[str]:
        return [*self._command, "queues"]

    def parse_queues(self, answer: Answer) -> Mapping[str, Queue]:
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "The embedded scheduler failed")
        return {
            name: Queue(
                name=name,
                is_default=True,
                state=state,
                walltime_seconds=_number(walltime),
                nodes=(QueueNode(node, state, cpus == free, int(cpus), int(free)),),
            )
            for name, state, walltime, node, cpus, free in _rows(answer, 6)
        }

    def demand_command(self) -> list[str]:
        return self.status_command("")

    def parse_demand(self, answer: Answer) -> Mapping[str, Demand]:
        if answer.exit_code != 0:
            raise _error(answer, CommandError, "The embedded scheduler failed")
        demand = Demand()
        for row in _rows(answer, len(COLUMNS)):
            job = dict(zip(COLUMNS, row, strict=True))
            if job["state"] in WAITING:
                demand.waiting += 1
                demand.waiting_cpus += int(job["cpus"])
            elif job["state"] in LIVE:
                demand.running += 1
                demand.running_cpus += int(job["cpus"])
        return {self.name: demand}


def _rows(answer: Answer, width: int) -> Iterator[list[str]]:
    for line in answer.stdout.split("\n"):
        fields = line.split(SEPARATOR)
        if len(fields) == width:
            yield fields


def _error(answer: Answer, kind: type[CommandError], what: str) -> CommandError:
    words = "; ".join(
        line.removeprefix(_PREFIX) for line in answer.stderr.strip().splitlines() if line.strip()
    )
    if answer.exit_code == 127:
        kind, words = CommandNotFound, words or "its Python was not found"
    return kind(
        f"{what}: {words or answer.stdout.strip() or 'no message'}",
        command=answer.command,
        exit_code=answer.exit_code,
        stderr=answer.stderr,
    )


def _status(row: dict[str, str]) -> JobStatus:
    word, _, cancelled_by = row["state"].partition(" by ")
    try:
        state = JobState(word)
        return JobStatus(
            job_id=JobId(row["id"]),
            name=row["name"],
            state=state,
            scheduler_state=row["state"],
            reason=row["reason"] or None,
            exit_code=_number(row["exit_code"]),
            signal=_number(row["signal"]),
            nodes=row["node"] if not state.is_waiting else None,
            submitted=_time(row["submitted"]),
            started=_time(row["started"]),
            ended=_time(row["ended"]),
            estimated_start=_time(row["estimated_start"]),
            cancelled_by=cancelled_by or None,
        )
    except ValueError as error:
        raise UnexpectedOutput(f"job {row['id']}: {error}") from None


def _usage(row: dict[str, str]) -> JobUsage:
    return JobUsage(
        submitted=_time(row["submitted"]),
        started=_time(row["started"]),
        ended=_time(row["ended"]),
        nodes=1,
        cpus=_number(row["cpus"]),
        memory=_number(row["memory"]),
        cpu_seconds=float(row["cpu_seconds"]) if row["cpu_seconds"] else None,
        max_memory=_number(row["max_memory"]),
    )


def _number(text: str) -> int | None:
    return int(text) if text else None


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
