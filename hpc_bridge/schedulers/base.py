"""The contract of a scheduler module: pure IO."""

from __future__ import annotations

import difflib
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from hpc_bridge.errors import SettingsError
from hpc_bridge.jobs import JobId, JobSpec, JobStatus
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.jobs.usage import JobUsage


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind: exit code and decoded output."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the command before it said anything."""
        said = self.stderr.strip() or self.stdout.strip()
        return not said and (self.exit_code < 0 or self.exit_code > 128)


@dataclass(frozen=True, slots=True)
class Commands:
    """How a site wants the commands of its scheduler called: ``scheduler.commands`` of a profile.

    ``instead`` are pairs of a command's name and the words of argv that stand in its place: the
    path of the command, or a wrapper that gets the command's arguments.
    """

    instead: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of(cls, commands: Mapping[str, Sequence[str]]) -> Self:
        """From a profile; equal for equal commands, in whatever order."""
        return cls(tuple(sorted((name, tuple(words)) for name, words in commands.items())))

    def argv(self, name: str) -> list[str]:
        """What to call for the command ``name``: itself when the site says nothing of it."""
        return list(dict(self.instead).get(name, (name,)))

    def entry(self, name: str) -> str | None:
        """The line of the profile that says how ``name`` is called; None when there is none."""
        words = dict(self.instead).get(name)
        return None if words is None else f"scheduler.commands.{name}: {shlex.join(words)}"

    def check(self, known: Collection[str]) -> None:
        """Raise SettingsError for a command that the scheduler does not have."""
        for name, _ in self.instead:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or '-'}"
                raise SettingsError(f"scheduler.commands: {name!r} is never called; {hint}")


@dataclass(frozen=True, slots=True)
class QueueNode:
    """One node and what of it no job has."""

    name: str
    state: str
    """The scheduler's own word, with its marks."""
    is_idle: bool
    """Whether a job could have all of it now."""
    cpus: int
    free_cpus: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    """How many by type."""
    free_gpus: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """One partition or queue as its scheduler describes it."""

    name: str
    is_default: bool
    state: str
    """The scheduler's own word; ``up`` where jobs start."""
    walltime_seconds: int | None
    """Longest walltime in seconds; None when the scheduler sets no limit."""
    nodes: tuple[QueueNode, ...] = ()
    """A node may be in several queues."""

    @property
    def is_up(self) -> bool:
        """Whether jobs start."""
        return self.state == "up"


@dataclass(slots=True)
class Demand:
    """What the jobs of one queue ask for and have; those of all users that may be seen."""

    waiting: int = 0
    waiting_cpus: int = 0
    waiting_gpus: int = 0
    running: int = 0
    running_cpus: int = 0


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
    directive_prefix: str = "#SBATCH "
    """Begins the lines of a script that its submit command reads."""
    leaked_variables: tuple[str, ...] = ()
    """Patterns of environment variables that an outer job leaves behind and that must not reach
    the commands of this scheduler."""
    supports_arrays: bool = False
    """Whether one submission can start many jobs."""
    has_records: bool = True
    """Whether it can be asked for jobs that are over."""

    def takes_array(self, spec: JobSpec) -> bool:  # noqa: ARG002  where nothing asked forbids it
        """Whether jobs that are asked for so may be one array, where there are arrays."""
        return self.supports_arrays

    @abstractmethod
    def submit_command(self, name: str) -> list[str]:
        """argv that submits the script on its standard input as job ``name``.

        The name stands in the script too; here it wins over a template or a directive without it.
        """

    @abstractmethod
    def check_directives(self, directives: Sequence[str]) -> None:
        """Raise InvalidJobSpec for a directive of the user that would break what is ours."""

    def check_skipped(self, options: Sequence[str]) -> None:
        """Raise InvalidJobSpec for an option, without its value, that a site cannot leave out."""
        self.check_directives(options)

    @abstractmethod
    def directive_option(self, directive: str) -> str:
        """The option of a directive, the same for all of its forms; an unknown one is itself."""

    @abstractmethod
    def parse_submit(self, answer: Answer) -> JobId:
        """Raises SubmissionRefused with the scheduler's own words."""

    def element_id(self, job_id: JobId, element: int) -> JobId:
        """Of one element of the job array that ``parse_submit`` called ``job_id``."""
        raise NotImplementedError(f"{self.name} has no job arrays")

    def array_id(self, job_id: JobId) -> JobId:
        """What ``parse_submit`` called the submission that the job, perhaps an element, is of."""
        return job_id

    def job_count(self, script: str) -> int:  # noqa: ARG002
        """How many jobs the submission of ``script`` makes: the elements of a job array, or 1."""
        return 1

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

    def keeps_records(self, answer: Answer) -> bool:  # noqa: ARG002  where it is never switched off
        """Whether the answer to ``history_command`` is not that there are no records at all."""
        return True

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
        """argv that lists partitions or queues with their nodes."""

    @abstractmethod
    def parse_queues(self, answer: Answer) -> Mapping[str, Queue]:
        """By name."""

    @abstractmethod
    def demand_command(self) -> list[str]:
        """argv that lists the jobs of all users."""

    @abstractmethod
    def parse_demand(self, answer: Answer) -> Mapping[str, Demand]:
        """By name of the queue; a job that waits for one of several is counted in each."""


def newest_first(statuses: Iterable[JobStatus]) -> list[JobStatus]:
    """By number, since ids count up; elements of one array in their own order."""

    def number(status: JobStatus) -> tuple[int, int]:
        job, element = (*re.findall(r"\d+", status.job_id.value), "0", "0")[:2]
        return -int(job), int(element)

    return sorted(statuses, key=number)
