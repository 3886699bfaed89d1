"""The contract of a scheduler module: pure IO."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.jobs.usage import JobUsage


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind: exit code and decoded output."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Queue:
    """One partition or queue as its scheduler describes it."""

    name: str
    is_default: bool
    is_up: bool
    walltime_seconds: int | None
    """Longest walltime in seconds; None when the scheduler sets no limit."""


class Scheduler(ABC):
    """One batch system.

    1. No method runs anything, reads a file, a clock or the environment.
    2. ``*_command`` returns argv; ``parse_*`` is a function of that command's Answer only.
    3. One status command serves all live jobs of the account.
    4. A parser raises SchedulerUnavailable when the daemon did not answer and UnexpectedOutput on
       a word that it does not know. It never guesses, and absence from an answer says nothing.
    5. Every variable that shapes an output (format, time, language) is pinned by the argv itself.
    """

    name: str
    template: str
    """File name of the packaged job script template."""
    leaked_variables: tuple[str, ...] = ()
    """Patterns of environment variables that an outer job leaves behind and that must not reach
    the commands of this scheduler."""
    supports_arrays: bool = False
    """Whether one submission can start many jobs."""

    @abstractmethod
    def submit_command(self, name: str) -> list[str]:
        """argv that submits the script on its standard input as job ``name``.

        The name stands in the script too; here it wins over a template or a directive without it.
        """

    @abstractmethod
    def check_directives(self, directives: Sequence[str]) -> None:
        """Raise InvalidJobSpec for a directive of the user that would break what is ours."""

    @abstractmethod
    def parse_submit(self, answer: Answer) -> JobId:
        """Raises SubmissionRefused with the scheduler's own words."""

    def element_id(self, job_id: JobId, element: int) -> JobId:
        """Of one element of the job array that ``parse_submit`` called ``job_id``."""
        raise NotImplementedError(f"{self.name} has no job arrays")

    def array_id(self, job_id: JobId) -> JobId:
        """What ``parse_submit`` called the submission that the job, perhaps an element, is of."""
        return job_id

    def array_limit_command(self) -> list[str]:
        """argv that asks how large a job array may be."""
        raise NotImplementedError(f"{self.name} has no job arrays")

    def parse_array_limit(self, answer: Answer) -> int:
        """The largest number of elements, at least 1."""
        raise NotImplementedError(f"{self.name} has no job arrays")

    @abstractmethod
    def status_command(self, user: str) -> list[str]:
        """argv that lists every job of ``user`` that the scheduler still holds."""

    @abstractmethod
    def parse_status(self, answer: Answer) -> dict[JobId, JobStatus]:
        """Every job in the answer that can be read; damage in one line never hides another."""

    @abstractmethod
    def explain_reason(self, status: JobStatus) -> QueueReason | None:
        """Why a job waits; None when it does not wait or the scheduler has not said why."""

    @abstractmethod
    def history_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        """argv that asks the scheduler's records for jobs that left the queue."""

    @abstractmethod
    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:
        """The newest record per job; of an array's elements also those that never started."""

    @abstractmethod
    def find_history_command(self, name: str, user: str, since: datetime) -> list[str]:
        """argv that asks the records for jobs with the unique name ``name``, for parse_history."""

    def without_record(
        self,
        jobs: Collection[JobId],  # noqa: ARG002
        found: Mapping[JobId, JobStatus],  # noqa: ARG002
    ) -> dict[JobId, JobStatus]:
        """What is certain of those ``jobs`` that left the queue and are not in ``found``."""
        return {}

    @abstractmethod
    def usage_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        """argv that asks the scheduler's records for what jobs used."""

    @abstractmethod
    def parse_usage(self, answer: Answer) -> dict[JobId, JobUsage]:
        """The newest attempt per job; without a record there is no entry."""

    @abstractmethod
    def cancel_command(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> list[str]:
        """argv that cancels the jobs, or those of them that have not started."""

    @abstractmethod
    def parse_cancel(self, answer: Answer) -> None:
        """Jobs that are already over are no error."""

    @abstractmethod
    def find_command(self, name: str, user: str) -> list[str]:
        """argv that finds the jobs of ``user`` with the unique name ``name``."""

    @abstractmethod
    def parse_find(self, answer: Answer) -> list[JobStatus]:
        """Newest first; empty when there is none."""

    @abstractmethod
    def queue_command(self) -> list[str]:
        """argv that lists partitions or queues."""

    @abstractmethod
    def parse_queues(self, answer: Answer) -> Mapping[str, Queue]:
        """By name."""


def newest_first(statuses: Iterable[JobStatus]) -> list[JobStatus]:
    """By number, since ids count up; elements of one array in their own order."""

    def number(status: JobStatus) -> tuple[int, int]:
        job, element = (*re.findall(r"\d+", status.job_id.value), "0", "0")[:2]
        return -int(job), int(element)

    return sorted(statuses, key=number)
