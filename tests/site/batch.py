"""The scheduler's own commands, as a researcher and an operator of a site type them.

The behaviour tests say by these verbs what they do to jobs, so that they run on Slurm here and on
PBS in tests/pbs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from tests.site.conftest import Site


class Batch(ABC):
    """What a site's scheduler is told by hand, and asked, beside hpc-bridge."""

    name: str
    """Of the scheduler: also of its decorator and of its type of pools."""
    submit_program: str
    """Path of the command that submits."""
    records: str
    """Folder with all that the scheduler itself keeps."""
    node: str
    """How the names of nodes begin."""
    by_owner: str
    """What is said of who cancelled a job that waited."""
    held: ClassVar[dict[str, Any]]
    """Job variables of a job that waits until it is released."""
    leaves_detached = False
    """Whether what a job has started in a session of its own may go on after it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def in_own_words(self, text: str) -> str:
        """A script that is written for Slurm, as a researcher here would have written it."""
        return text

    @abstractmethod
    def later(self, hours: int = 1) -> dict[str, Any]:
        """Job variables of a job that starts in some hours."""

    @abstractmethod
    def walltime_line(self, walltime: str) -> str:
        """The directive for a walltime, ``HH:MM:SS``."""

    @abstractmethod
    def cancel(self, *jobs: str, user: str = "researcher") -> None:
        """By hand; ``root`` is an operator."""

    @abstractmethod
    def cancel_all(self) -> None:
        """All jobs of the researcher, whatever becomes of that."""

    @abstractmethod
    def hold(self, job: str) -> None:
        """Of a job that waits."""

    @abstractmethod
    def release(self, *jobs: str) -> None:
        """Jobs, or whole arrays, that are held."""

    @abstractmethod
    def requeued(self, job: str) -> AbstractContextManager[None]:
        """A running job is put back into the queue by an operator, and starts again afterwards."""

    @abstractmethod
    def queued(self, *jobs: str) -> int:
        """How many of these jobs, each element being one, are in the queue or running."""

    @abstractmethod
    def name_of(self, job: str) -> str:
        """Of a job that is in the queue or running."""

    @abstractmethod
    def jobs_named(self, names: Sequence[str]) -> list[int]:
        """How many jobs, an array being one, there are and were of each name."""

    @abstractmethod
    def split(self, job: str) -> tuple[str, str]:
        """The array and the index of an element."""

    @abstractmethod
    def element(self, array: str, index: int) -> str:
        """One of an array."""

    @abstractmethod
    def is_id(self, text: str) -> bool:
        """Whether a job of this scheduler can be called that."""


class SlurmBatch(Batch):
    """Slurm's commands on the test site."""

    name = "slurm"
    submit_program = "/usr/bin/sbatch"
    records = "/var/log/slurm"
    node = "c"
    by_owner = " by researcher"
    held: ClassVar[dict[str, Any]] = {"directives": ["--hold"]}

    def later(self, hours: int = 1) -> dict[str, Any]:
        return {"begin": f"now+{hours}hours"}

    def walltime_line(self, walltime: str) -> str:
        return f"#SBATCH --time={walltime}"

    def cancel(self, *jobs: str, user: str = "researcher") -> None:
        self._site.shell(f"scancel {' '.join(jobs)}", user=user)

    def cancel_all(self) -> None:
        self._site.run("scancel", f"--user={self._site.account}", user="root")

    def hold(self, job: str) -> None:
        self._site.shell(f"scontrol hold {job}")

    def release(self, *jobs: str) -> None:
        self._site.shell(f"scontrol release {','.join(jobs)}")

    @contextmanager
    def requeued(self, job: str) -> Iterator[None]:
        self._site.shell(f"scontrol requeue {job}", user="root")
        yield
        # Slurm would start it two minutes later; it may have been cancelled.
        self._site.run("scontrol", "update", f"jobid={job}", "starttime=now", user="root")

    def queued(self, *jobs: str) -> int:
        asked = f"--jobs={','.join(jobs) or 0}"
        return len(self._site.run("squeue", "--noheader", asked, "--array").stdout.splitlines())

    def name_of(self, job: str) -> str:
        return self._site.shell(f"squeue --noheader --jobs={job} --format=%j")

    def jobs_named(self, names: Sequence[str]) -> list[int]:
        asked = "sacct --noheader -X -P --starttime=now-1hour --format=JobID,JobName"
        lines = [line.split("|") for line in self._site.shell(asked).splitlines()]
        jobs = {(job.split("_")[0], name) for job, name in lines}
        return [[name for _, name in jobs].count(wanted) for wanted in names]

    def split(self, job: str) -> tuple[str, str]:
        array, _, index = job.partition("_")
        return array, index

    def element(self, array: str, index: int) -> str:
        return f"{array}_{index}"

    def is_id(self, text: str) -> bool:
        return text.isdigit()
