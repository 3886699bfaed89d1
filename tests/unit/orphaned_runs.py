"""Submissions whose process was killed, and who takes them over."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.storage.cluster_files import HERE
from hpc_bridge.tracking.adoption import Orphan, find_jobs, orphans
from hpc_bridge.tracking.job import TrackedJob
from tests.unit.folders import element_folder

HOUR = 3600.0


def a_run(
    shared: Path,
    *,
    age: float = HOUR,
    elements: int = 1,
    journal: bool = True,
    **what: Any,
) -> RunDirectory:
    """A submission whose process was killed before it noted the job's id."""
    run = RunDirectory.create(shared, new_submission_id(time.time() - age))
    run.write("job.sh", b"#!/bin/sh\n")
    if journal:
        run.write_submission(
            {
                "submission": run.submission_id,
                "flow_runs": {str(element): str(uuid4()) for element in range(elements)},
                "work_pool": "pool",
                "scheduler": "slurm",
                "spec": JobSpec(name=run.submission_id).model_dump(mode="json"),
            }
            | what
        )
    return run


def attempt(run: RunDirectory, element: int = 0, *, job: str | None = None) -> None:
    folder = element_folder(run, element) / "0"
    folder.mkdir()
    if job is not None:
        (folder / "job").write_text(f"{job}\n")


def status(run: RunDirectory, job_id: str, state: JobState = JobState.RUNNING) -> JobStatus:
    return JobStatus(JobId(job_id), run.submission_id, state, state.value)


def found(shared: Path, wanted: bool = True) -> list[RunDirectory]:
    return [orphan.run for orphan in orphans(shared, HERE, lambda *_: wanted)]


def adopted(run: RunDirectory, **options: Any) -> list[TrackedJob] | None:
    """As by whoever has just claimed it."""
    return find_jobs(Orphan(run, run.read_submission()), **options)


def ids(jobs: list[TrackedJob] | None) -> list[str]:
    assert jobs is not None
    return [job.job_id.value for job in jobs]
