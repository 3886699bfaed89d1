"""Submitting again from a run directory alone. Everything here blocks."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hpc_bridge.cluster import Cluster
from hpc_bridge.connections import Connection
from hpc_bridge.errors import CommandNotFound, HPCBridgeError, SharedDirectoryError
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import RunDirectory, shared_directory_errors, submission_time
from hpc_bridge.script import plain_job
from hpc_bridge.tracking.claims import claims_on
from hpc_bridge.tracking.job import TrackedJob

logger = logging.getLogger(__name__)

_OF_THE_OLD_JOB = ("format", "job_id", "submitted")


def resubmit(run: RunDirectory, connection: Connection) -> JobId:
    """Submit the script that a run directory holds, whose submission nobody noted.

    The caller has looked the name up. Raises CommandErrors and SharedDirectoryError.
    """
    with shared_directory_errors(run.shared):
        script = (run.path / "job.sh").read_text(encoding="utf-8")
    job_id = connection.cluster.submit(script, run.submission_id)
    note_job_id(run, run.read_submission(), job_id)
    return job_id


def submit_again(job: TrackedJob, submission_id: str, *, resubmissions: int) -> TrackedJob:
    """A new submission, in a directory of its own, that goes on with the flow run of ``job``.

    The script is the old one under the new name, so that a template or a setting that was changed
    meanwhile changes nothing; for an array's element it is that of one plain job.
    ``submission.json`` says which submission it continues and how many resubmissions there were.
    Done again with the same id, after a crash, it goes on where it was interrupted. Raises
    CommandErrors and SharedDirectoryError.
    """
    run = RunDirectory(job.run.shared / "runs" / submission_id)
    if run.path.exists():
        run.reopen()
    else:
        run = RunDirectory.create(job.run.shared, submission_id)
    claims_on(run.shared).take(run)
    try:
        job_id = None
        if (run.path / "submission.json").exists():
            job_id = noted_or_found(run, job.connection.cluster)
        else:
            _copy(job, run, resubmissions)
        job_id = job_id or resubmit(run, job.connection)
    except HPCBridgeError as error:
        if not error.retryable:  # else there may be a job all the same, which its name will find
            run.close()
        raise
    spec = job.spec and job.spec.model_copy(update={"name": run.submission_id})
    return replace(job, run=run, element=0, job_id=job_id, spec=spec)


def note_job_id(run: RunDirectory, journal: Mapping[str, Any], job_id: JobId) -> None:
    """Add the job's id to ``submission.json``, whose content so far is ``journal``."""
    try:
        run.write_submission({**journal, "job_id": str(job_id), "submitted": now()})
    except SharedDirectoryError as error:
        # The job is in the queue; its name is enough to find it again.
        logger.warning("The id of job %s could not be noted: %s", job_id, error)


def now() -> str:
    """The time as it stands in ``submission.json``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def noted_or_found(run: RunDirectory, cluster: Cluster) -> JobId | None:
    """The job of a submission, noted when it was not; None when the scheduler never had one.

    It is found by its name in the queue, by its own word, or by its name in the records. Raises
    CommandErrors.
    """
    submission = run.read_submission()
    if (noted := submission.get("job_id")) is not None:
        return JobId(noted)
    job_id = _found(run, [int(element) for element in submission["flow_runs"]], cluster)
    if job_id is not None:
        note_job_id(run, submission, job_id)
    return job_id


def _found(run: RunDirectory, elements: Sequence[int], cluster: Cluster) -> JobId | None:
    if found := cluster.find(run.submission_id):
        return cluster.scheduler.array_id(found[0].job_id)
    for element in elements:
        if (claimant := run.claimant(element)) is not None:
            return cluster.scheduler.array_id(JobId(claimant))
    since = submission_time(run.submission_id) - timedelta(hours=1)
    try:
        found = cluster.find_history(run.submission_id, since)
    except CommandNotFound as error:
        logger.info("There are no job records here: %s", error)
    if found:
        return cluster.scheduler.array_id(found[0].job_id)
    if any(run.newest_attempt(element) for element in elements):
        raise HPCBridgeError(f"{run.path} has run, but the scheduler knows no such job")
    return None


def _copy(job: TrackedJob, run: RunDirectory, resubmissions: int) -> None:
    """Everything that the new job needs; its journal last."""
    old = job.run
    with shared_directory_errors(run.shared):
        # The old id is fifteen letters of ours: wherever it stands, it means the old submission.
        script = (old.path / "job.sh").read_text(encoding="utf-8")
        run.write(
            "job.sh", plain_job(script).replace(old.submission_id, run.submission_id).encode()
        )
        run.write("env", (old.path / "env").read_bytes())
        (run.path / "job.out").touch(mode=0o600)
        _link_bundle(old, job.element, run.element(0))
        submission = old.read_submission()
    kept = {name: value for name, value in submission.items() if name not in _OF_THE_OLD_JOB}
    run.write_submission(
        kept
        | {
            "submission": run.submission_id,
            "flow_runs": {"0": str(job.flow_run_id)},
            "spec": submission["spec"] | {"name": run.submission_id},
            "created": now(),
            "continues": old.submission_id,
            "resubmissions": resubmissions,
        }
    )


def _link_bundle(old: RunDirectory, element: int, folder: Path) -> None:
    """The packed flow and its files; format 1 kept them beside the script."""
    for name in ("bundle.json", "files.zip"):
        for place in (old.path / str(element), old.path):
            if (place / name).exists():
                with contextlib.suppress(FileExistsError):
                    os.link(place / name, folder / name)
                break
