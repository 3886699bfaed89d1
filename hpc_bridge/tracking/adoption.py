"""Taking over the submissions that nobody looks after any more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.journal import FORMAT, RunDirectory, is_submission_id, submission_time
from hpc_bridge.tracking.claims import claims_on
from hpc_bridge.tracking.job import TrackedJob, tracked_jobs
from hpc_bridge.tracking.reconnecting import reconnect
from hpc_bridge.tracking.resubmission import noted_or_found, resubmit

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
    wanted: Callable[[str, dict[str, Any]], bool],
    *,
    known: Callable[[str], bool] = lambda _: False,
) -> Iterator[Orphan]:
    """Claim the live submissions that are ``wanted`` and that no living process looks after.

    Blocks. ``wanted`` is asked with the submission's id and content; those that are ``known`` by
    their id are not read. Directories that cannot be read are left to a later time.
    """
    claims = claims_on(shared)
    for name in _live(shared):
        if known(name):
            continue
        run = RunDirectory(shared / "runs" / name)
        try:
            submission = run.read_submission()
            if submission["format"] > FORMAT:
                _warn_of_newer(run.path)
            elif (
                not _is_led_to(shared, submission) and wanted(name, submission) and claims.take(run)
            ):
                yield Orphan(run, submission)
        except FileNotFoundError:
            _forget_unwritten(run)
        except (HPCBridgeError, OSError, ValueError, KeyError) as error:
            logger.warning("%s cannot be adopted now: %s", run.path, error)


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


def index_older_runs(shared: Path) -> int:
    """Mark run directories of format 1, which had no index, as live; returns how many."""
    marked = 0
    for path in (shared / "runs").glob("hb*"):
        run = RunDirectory(path)
        live = shared / "live" / path.name
        try:
            submission = run.read_submission()
            if submission["format"] != 1 or live.exists():
                continue
            if not all(run.settled(int(element)) for element in submission["flow_runs"]):
                live.parent.mkdir(mode=0o700, exist_ok=True)
                live.touch(mode=0o600)
                marked += 1
        except (OSError, ValueError, KeyError):
            continue  # it was never complete
    return marked


@lru_cache
def _warn_of_newer(path: Path) -> None:
    """Once, not at every poll."""
    logger.warning("%s was written by a newer version of hpc-bridge and is left alone", path)


@lru_cache
def _warn_of_unsubmitted(submission_id: str) -> None:
    """Once, however long the site's limit of live jobs keeps it waiting."""
    logger.warning("%s was never submitted; submitting it now", submission_id)


def _live(shared: Path) -> list[str]:
    try:
        names = [path.name for path in (shared / "live").iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if is_submission_id(name))


def _is_led_to(shared: Path, submission: dict[str, Any]) -> bool:
    """Whether it goes on with a flow run whose earlier job still leads to it: see continuation."""
    earlier = RunDirectory(shared / "runs" / str(submission.get("continues")))
    flow_run_id = submission["flow_runs"].get("0")
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
