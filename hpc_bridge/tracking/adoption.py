"""Taking over the submissions that nobody looks after any more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpc_bridge.errors import HPCBridgeError, SharedDirectoryError
from hpc_bridge.journal import (
    FORMAT,
    RunDirectory,
    is_submission_id,
    submission_time,
)
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.tracking.claims import Claims, claims_on
from hpc_bridge.tracking.job import TrackedJob, tracked_jobs
from hpc_bridge.tracking.lookup import journals, read_journals
from hpc_bridge.tracking.reconnecting import reconnect
from hpc_bridge.tracking.resubmission import noted_or_found, resubmit
from hpc_bridge.transports.base import Files

logger = logging.getLogger(__name__)

_IN_FLIGHT = timedelta(seconds=20)
"""A submission whose process was killed may still be taken by the scheduler for so long."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A submission whose claim this process has just taken."""

    run: RunDirectory
    submission: dict[str, Any]


def orphans(
    shared: Path,
    files: ClusterFiles,
    wanted: Callable[[str, dict[str, Any]], bool],
    *,
    known: Callable[[str], bool] = lambda _: False,
) -> Iterator[Orphan]:
    """Claim the live submissions that are ``wanted`` and that no living process looks after.

    Blocks. ``wanted`` is asked with the submission's id and content; those that are ``known`` by
    their id are not read. Directories that cannot be read are left to a later time.
    """
    claims = claims_on(shared, files)
    runs = [
        RunDirectory(shared / "runs" / name, files)
        for name in live_submissions(shared, files)
        if not known(name)
    ]
    found = []
    for run, stored in read_journals(runs):
        try:
            if stored is None:
                _forget_unwritten(run)
                continue
            if isinstance(stored, OSError):
                raise stored
            submission = run.parse_submission(stored)
            if submission["format"] > FORMAT:
                _warn_of_newer(run.path)
            elif not _is_led_to(run, submission) and wanted(run.submission_id, submission):
                found.append(Orphan(run, submission))
        except FileNotFoundError:
            continue  # it was removed meanwhile
        except (HPCBridgeError, OSError, ValueError, KeyError) as error:
            logger.warning("%s cannot be adopted now: %s", run.path, error)
    free = _free(claims, [orphan.run for orphan in found])
    for orphan in found:
        try:
            if orphan.run in free and claims.take(orphan.run):
                yield orphan
        except (HPCBridgeError, OSError) as error:
            logger.warning("%s cannot be adopted now: %s", orphan.run.path, error)


def _free(claims: Claims, runs: Sequence[RunDirectory]) -> set[RunDirectory]:
    """Asked for all together: as a rule most of them are in good hands."""
    try:
        return claims.free(runs) if runs else set()
    except SharedDirectoryError:  # one that cannot be read hides no other
        return set(runs)


def find_jobs(
    orphan: Orphan,
    *,
    poll_interval: float | None = None,
    may_submit: bool = True,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[TrackedJob] | None:
    """The jobs of a submission, found by its name when their id was not noted. Blocks.

    A submission that never reached the scheduler is submitted now if it still ``may_submit``, else
    there are none. None while it may still be on its way. Raises the CommandErrors and
    SharedDirectoryError.
    """
    run, submission = orphan.run, orphan.submission
    connection = reconnect(run, submission, poll_interval)
    if noted_or_found(run, connection.cluster) is None:
        if now() - submission_time(run.submission_id) < _IN_FLIGHT:
            return None
        if submission["format"] == 1 or not may_submit:
            return []  # format 1 left what was refused in this form too
        _warn_of_unsubmitted(run.submission_id)
        resubmit(run, connection)
    if run.read_submission().get("job_id") is None:
        return None  # the shared directory is full: the job is found again by its name
    return tracked_jobs(run, connection)


def index_older_runs(shared: Path, files: ClusterFiles) -> int:
    """Mark run directories of format 1, which had no index, as live; returns how many."""
    marked = 0
    names = files.listings([shared / "runs"])[0] or ()
    live = files.listings([shared / "live"])[0] or ()
    runs = [RunDirectory(shared / "runs" / name, files) for name in names]
    runs = [run for run in runs if is_submission_id(run.submission_id)]
    for run, submission in journals(runs):
        try:
            if submission["format"] != 1 or run.submission_id in live:
                continue
            if not all(run.settled(int(element)) for element in submission["flow_runs"]):
                files.put(Files(str(shared), {f"live/{run.submission_id}": b""}))
                marked += 1
        except (OSError, ValueError, KeyError):
            continue  # it was never complete
    return marked


def live_submissions(shared: Path, files: ClusterFiles) -> list[str]:
    """Ids of those whose end is not told, in the order in which they were made."""
    return sorted(filter(is_submission_id, files.listings([shared / "live"])[0] or ()))


@lru_cache
def _warn_of_newer(path: Path) -> None:
    """Once, not at every poll."""
    logger.warning("%s was written by a newer version of hpc-bridge and is left alone", path)


@lru_cache
def _warn_of_unsubmitted(submission_id: str) -> None:
    """Once, however long the site's limit of live jobs keeps it waiting."""
    logger.warning("%s was never submitted; submitting it now", submission_id)


def _is_led_to(run: RunDirectory, submission: dict[str, Any]) -> bool:
    """Whether it goes on with a flow run whose earlier job still leads to it: see continuation."""
    flow_run_id = submission["flow_runs"].get("0")
    if (continued := submission.get("continues")) is None:
        return False
    earlier = run.beside(str(continued))
    try:
        flow_runs = earlier.read_submission()["flow_runs"]
    except FileNotFoundError:
        return False
    return any(
        of == flow_run_id and earlier.settled(int(element)) is None
        for element, of in flow_runs.items()
    )


def _forget_unwritten(run: RunDirectory) -> None:
    """Its process died before the journal was written, and so before anything was submitted."""
    if datetime.now(UTC) - submission_time(run.submission_id) > timedelta(hours=1):
        run.close()
