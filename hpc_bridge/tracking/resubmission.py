"""Submitting again from a run directory alone. Everything here blocks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hpc_bridge.cluster import SUBMITTED, Cluster
from hpc_bridge.connections import Connection
from hpc_bridge.errors import (
    CommandNotFound,
    HPCBridgeError,
    SharedDirectoryError,
    is_worth_waiting_for,
)
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import (
    SUBMISSION,
    RunDirectory,
    shared_directory_errors,
    submission_time,
)
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.script import plain_job
from hpc_bridge.storage.bundle import ARCHIVE, BUNDLE, BundleStore
from hpc_bridge.tracking.claims import claims_of
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.transports.base import Files

logger = logging.getLogger(__name__)

_OF_THE_OLD_JOB = ("format", "job_id", "submitted", "bundles")


def resubmit(run: RunDirectory, connection: Connection) -> JobId:
    """Submit the script that a run directory holds, whose submission nobody noted.

    The caller has looked the name up. Raises CommandErrors and SharedDirectoryError.
    """
    with shared_directory_errors(run.shared):
        script = run.files.read(run.path / "job.sh").decode()
        submission = run.read_submission()
        _link_bundles(run, submission)
    elsewhere = None if run.files.is_here else str(run.path)
    job_id = connection.cluster.submit(script, run.submission_id, run_dir=elsewhere)
    note_job_id(run, submission, job_id)
    return job_id


def _link_bundles(run: RunDirectory, submission: Mapping[str, Any]) -> None:
    """Whoever died before the submission may have linked none of them."""
    store = BundleStore(run.shared, run.files)
    links: dict[str, str] = {}
    for element, key in submission.get("bundles", {}).items():
        with contextlib.suppress(FileNotFoundError):
            links |= store.links(key, f"runs/{run.submission_id}/{element}")
    if links:
        run.files.put(Files(str(run.shared), {}, links))


def submit_again(job: TrackedJob, submission_id: str, *, resubmissions: int) -> TrackedJob:
    """A new submission, in a directory of its own, that goes on with the flow run of ``job``.

    The script is the old one under the new name, so that a template or a setting that was changed
    meanwhile changes nothing; for an array's element it is that of one plain job.
    ``submission.json`` says which submission it continues and how many resubmissions there were.
    Done again with the same id, after a crash, it goes on where it was interrupted. Raises
    CommandErrors and SharedDirectoryError.
    """
    run = job.run.beside(submission_id)
    try:
        job_id = None
        if run.read(SUBMISSION) is not None:
            run.reopen()
            claims_of(run).take(run)
            job_id = noted_or_found(run, job.connection.cluster)
        else:
            _copy(job, run, resubmissions)
        job_id = job_id or resubmit(run, job.connection)
    except HPCBridgeError as error:
        if not is_worth_waiting_for(error):  # else there may be a job, which its name will find
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


def note_answer(job: TrackedJob) -> None:
    """Note the id of a job whose submission brought the journal along, and so without it."""
    journal = job.run.read_submission()
    if journal.get("job_id") is None:
        array_id = job.connection.cluster.scheduler.array_id
        note_job_id(job.run, journal, array_id(job.job_id))


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
    job_id = _answered(run, cluster) or _found(
        run, [int(element) for element in submission["flow_runs"]], cluster
    )
    if job_id is not None:
        note_job_id(run, submission, job_id)
    return job_id


def _answered(run: RunDirectory, cluster: Cluster) -> JobId | None:
    """As the scheduler said when it took the job, which nobody may have heard."""
    if not (answer := run.read(SUBMITTED)):
        return None
    return cluster.scheduler.parse_submit(Answer((), 0, answer.decode(errors="replace"), ""))


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
    old, folder = job.run, f"runs/{run.submission_id}"
    with shared_directory_errors(run.shared):
        script, environment = (old.files.read(old.path / name) for name in ("job.sh", "env"))
        submission = old.read_submission()
        links = _bundle_links(old, job.element, f"{folder}/0")
    kept = {name: value for name, value in submission.items() if name not in _OF_THE_OLD_JOB}
    new = kept | {
        "submission": run.submission_id,
        "flow_runs": {"0": str(job.flow_run_id)},
        "spec": submission["spec"] | {"name": run.submission_id},
        "created": now(),
        "continues": old.submission_id,
        "resubmissions": resubmissions,
    }
    # The old id is fifteen letters of ours: wherever it stands, it means the old submission.
    own = plain_job(script.decode()).replace(old.submission_id, run.submission_id)
    claim, holder = claims_of(run).first(run)
    content = {
        f"live/{run.submission_id}": b"",
        f"{folder}/{claim}": holder,
        f"{folder}/job.out": b"",
        f"{folder}/job.sh": own.encode(),
        f"{folder}/env": environment,
    }
    with shared_directory_errors(run.shared):
        run.files.put(Files(str(run.shared), content, links))
    run.write_submission(new)


def _bundle_links(old: RunDirectory, element: int, folder: str) -> dict[str, str]:
    """The packed flow and its files; format 1 kept them beside the script."""
    own, whole = old.files.listings([old.element(element), old.path])
    links = {}
    for name in (BUNDLE, ARCHIVE):
        if name in (own or ()):
            links[f"{folder}/{name}"] = f"runs/{old.submission_id}/{element}/{name}"
        elif name in (whole or ()):
            links[f"{folder}/{name}"] = f"runs/{old.submission_id}/{name}"
    return links
