"""A job that asked to go on after its walltime, and a server with its flow run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect import states
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
)

from hpc_bridge.connections import connect
from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.node.records import WARNED
from hpc_bridge.tracking.claims import claims_on
from hpc_bridge.tracking.continuation import continuation
from hpc_bridge.tracking.job import TrackedJob, tracked_jobs
from tests.unit.folders import element_folder

TIMEOUT = JobStatus(JobId("7"), "hb", JobState.TIMEOUT, "TIMEOUT")

RESUBMITTING = states.Pending(name="Resubmitting")
WALLTIME = states.Crashed(name="WalltimeExceeded", message=WARNED)


class Killed(BaseException):
    """What a process does not survive."""


class Server:
    """A Prefect server with one flow run."""

    def __init__(self, state: State[Any] | None) -> None:
        self.state = state
        self.history: list[str] = []
        self.infrastructure_pid: str | None = None
        self.step: Callable[[str], None] = lambda _: None

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        self.step("the flow run is read")
        return FlowRun(id=flow_run_id, flow_id=uuid4(), state=self.state)

    async def set_flow_run_state(
        self, flow_run_id: UUID, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        """Of the server's rules those about Pending."""
        self.step("before a state is set")
        before = self.state
        moves = before is not None and before.is_pending() and before.name != state.name
        if not (force or moves):
            details = StateAbortDetails(reason="no")
            return OrchestrationResult(state=None, status=SetStateStatus.ABORT, details=details)
        self.state = state
        self.history.append(str(state.name))
        self.step("after a state is set")
        accepted = StateAcceptDetails()
        return OrchestrationResult(state=state, status=SetStateStatus.ACCEPT, details=accepted)

    async def update_flow_run(self, flow_run_id: UUID, infrastructure_pid: str) -> None:
        self.step("before the job is noted on the run")
        self.infrastructure_pid = infrastructure_pid
        self.step("after the job is noted on the run")


def a_job(
    shared: Path, *, elements: int = 1, element: int = 0, earlier: int = 0, **spec: Any
) -> TrackedJob:
    """A job that has run, of a flow that asked to go on."""
    asked = {"on_walltime": "resubmit", "max_resubmissions": 3, "walltime": "1h"} | spec
    run = RunDirectory.create(shared, new_submission_id(time.time() - 3600))
    claims_on(shared).take(run)
    run.write("job.sh", f"#!/bin/sh\n#SBATCH --job-name={run.submission_id}\n".encode())
    run.write("env", b"A=1\0")
    for number in range(elements):
        element_folder(run, number)
        run.write(f"{number}/bundle.json", b"{}")
    run.write_submission(
        {
            "submission": run.submission_id,
            "flow_runs": {str(number): str(uuid4()) for number in range(elements)},
            "work_pool": "pool",
            "scheduler": "slurm",
            "spec": JobSpec(name=run.submission_id, **asked).model_dump(mode="json"),
            "resubmissions": earlier,
            "job_id": "7",
        }
    )
    jobs = tracked_jobs(run, connect("slurm", shared, 30.0))
    return next(job for job in jobs if job.element == element)


def go_on(server: Server, job: TrackedJob, status: JobStatus = TIMEOUT) -> TrackedJob | None:
    return asyncio.run(continuation(server, job, status))  # type: ignore[arg-type]


def submissions(shared: Path) -> int:
    return len(list((shared / "runs").iterdir()))
