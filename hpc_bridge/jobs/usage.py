"""What a job was given and what it made of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_HOUR = 3600


@dataclass(frozen=True, slots=True)
class JobUsage:
    """One attempt of a job as the scheduler has recorded it.

    None is what the scheduler did not record, and never the same as 0. Memory is in MiB, times are
    timezone-aware UTC.
    """

    submitted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    nodes: int | None = None
    cpus: int | None = None
    memory: int | None = None
    """Asked for, on all nodes together."""
    gpus: int | None = None
    cpu_seconds: float | None = None
    max_memory: int | None = None
    """The most that was seen in use at once, by the largest step."""
    gpu_utilisation: float | None = None
    """Percent, averaged over time."""
    max_gpu_memory: int | None = None
    energy_joules: int | None = None

    @property
    def queue_seconds(self) -> float | None:
        """From submission, or the requeue, to the start."""
        return _between(self.submitted, self.started)

    @property
    def wall_seconds(self) -> float | None:
        """From the start to the end."""
        return _between(self.started, self.ended)

    @property
    def cpu_efficiency(self) -> float | None:
        """Percent of the CPU time that was set aside."""
        hours = self.cpu_hours
        if self.cpu_seconds is None or not hours:
            return None
        return 100 * self.cpu_seconds / (hours * _HOUR)

    @property
    def memory_efficiency(self) -> float | None:
        """Percent of the memory that was asked for."""
        if self.max_memory is None or not self.memory:
            return None
        return 100 * self.max_memory / self.memory

    @property
    def node_hours(self) -> float | None:
        """Nodes times walltime used."""
        return self._hours_of(self.nodes)

    @property
    def cpu_hours(self) -> float | None:
        """CPUs times walltime used."""
        return self._hours_of(self.cpus)

    @property
    def gpu_hours(self) -> float | None:
        """GPUs times walltime used."""
        return self._hours_of(self.gpus)

    def _hours_of(self, number: int | None) -> float | None:
        wall = self.wall_seconds
        return None if number is None or wall is None else number * wall / _HOUR


def _between(first: datetime | None, second: datetime | None) -> float | None:
    if first is None or second is None:
        return None
    return max(0.0, (second - first).total_seconds())
