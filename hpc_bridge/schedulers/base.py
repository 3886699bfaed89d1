"""The contract of a scheduler module: pure IO."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from hpc_bridge.jobs import JobId, JobStatus


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

    @abstractmethod
    def status_command(self, user: str) -> list[str]:
        """argv that lists every job of ``user`` that the scheduler still holds."""

    @abstractmethod
    def parse_status(self, answer: Answer) -> dict[JobId, JobStatus]:
        """Every job in the answer that can be read; damage in one line never hides another."""

    @abstractmethod
    def history_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        """argv that asks the scheduler's records for jobs that left the queue."""

    @abstractmethod
    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:
        """The newest record per job."""

    @abstractmethod
    def cancel_command(self, jobs: Collection[JobId]) -> list[str]:
        """argv that cancels the jobs."""

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
