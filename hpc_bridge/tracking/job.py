"""One flow run's job, from the journal or fresh from its submission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from hpc_bridge.connections import Connection
from hpc_bridge.jobs import JobId, JobSpec
from hpc_bridge.journal import RunDirectory
from hpc_bridge.reference import JobReference
from hpc_bridge.settings import SchedulerName
from hpc_bridge.sites.profile import CostsPart


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
    costs: CostsPart | None = None
    """What the site charged by the hour when the job was submitted; None when it does not say."""
    site: str | None = None
    """Name of the site whose profile counted for the job."""

    @property
    def reference(self) -> JobReference:
        """What the flow run remembers of it."""
        return JobReference(self.scheduler, self.job_id, self.run.submission_id)


def tracked_jobs(run: RunDirectory, connection: Connection) -> list[TrackedJob]:
    """The flow runs of a submission whose end is not told yet, by its journal.

    Empty when no job id was noted. Blocks; raises OSError or ValueError for an unreadable journal.
    """
    journal = run.read_submission()
    if (noted := journal.get("job_id")) is None:
        return []
    job_id, spec, flow_runs = JobId(noted), stored_spec(journal), journal["flow_runs"]
    element_id = connection.cluster.scheduler.element_id
    return [
        TrackedJob(
            run,
            int(element),
            UUID(flow_run_id),
            # One flow run is a job of its own, never an array of one.
            job_id if len(flow_runs) == 1 else element_id(job_id, int(element)),
            journal["scheduler"],
            connection,
            spec,
            stored_costs(journal),
            journal.get("site"),
        )
        for element, flow_run_id in flow_runs.items()
        if run.settled(int(element)) is None
    ]


def stored_spec(journal: Mapping[str, Any]) -> JobSpec | None:
    """What was asked for, of that what this version knows; None when it cannot be read.

    The variables are not stored there.
    """
    known = {
        name: value
        for name, value in journal.get("spec", {}).items()
        if name in JobSpec.model_fields
    }
    try:
        return JobSpec(**known)
    except ValidationError:
        return None


def stored_costs(journal: Mapping[str, Any]) -> CostsPart | None:
    """The site's costs as they were then; None when there were none or they cannot be read."""
    try:
        return CostsPart(**journal["costs"])
    except (KeyError, TypeError, ValidationError):
        return None
