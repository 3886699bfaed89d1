"""One flow run's job, from the journal or fresh from its submission."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from hpc_bridge.connections import Connection
from hpc_bridge.jobs import JobId, JobSpec
from hpc_bridge.journal import RunDirectory
from hpc_bridge.reference import JobReference
from hpc_bridge.settings import SchedulerName


@dataclass(frozen=True, slots=True)
class TrackedJob:
    """A job that the scheduler has taken: for an array, one element of it."""

    run: RunDirectory
    element: int
    flow_run_id: UUID
    job_id: JobId
    """Of the element: ``123_4`` for an array."""
    scheduler: SchedulerName
    connection: Connection
    spec: JobSpec | None = None

    @property
    def reference(self) -> JobReference:
        """What the flow run remembers of it."""
        return JobReference(self.scheduler, self.job_id, self.run.submission_id)
