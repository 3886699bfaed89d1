"""Bringing a submission to its cluster, and to its scheduler, at most once. Everything blocks."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from hpc_bridge.connections import Connection
from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    ConnectionLost,
    HPCBridgeError,
    SchedulerUnavailable,
    SubmissionRefused,
    TransferFailed,
    Unreachable,
)
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import SUBMISSION, RunDirectory, shared_directory_errors
from hpc_bridge.storage.progress import shown
from hpc_bridge.storage.remote_programs import os_error
from hpc_bridge.tracking.resubmission import note_job_id
from hpc_bridge.transports.base import Files

logger = logging.getLogger(__name__)

_PAUSES = (5.0, 15.0)
"""What a broken connection has left running on the other side ends within moments."""


def deliver(
    connection: Connection,
    run: RunDirectory,
    script: str,
    files: Files,
    journal: Mapping[str, Any],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> JobId:
    """Put ``files``, which are all that ``run`` begins with, and submit.

    On this machine the job's id is noted in the journal, whose content is ``journal``; elsewhere
    the one remote command has kept the scheduler's answer. Raises SharedDirectoryError and
    CommandErrors; after one that is retryable there may be a job all the same, which its name will
    find.
    """
    try:
        if connection.files.is_here:
            with shared_directory_errors(run.shared):
                connection.files.put(files)
            job_id = connection.cluster.submit(script, run.submission_id)
        else:
            return _deliver_elsewhere(connection, run, script, files, sleep)
    except HPCBridgeError as error:
        ended = isinstance(error, (SubmissionRefused, CommandNotFound))
        if not error.retryable and (run.files.is_here or ended):
            with contextlib.suppress(CommandError, OSError):  # what was refused is what counts
                run.close()
        raise
    note_job_id(run, journal, job_id)
    return job_id


def _deliver_elsewhere(
    connection: Connection,
    run: RunDirectory,
    script: str,
    files: Files,
    sleep: Callable[[float], None],
) -> JobId:
    """By one remote command; after a broken connection it is looked what has become of it."""
    cluster, name = connection.cluster, run.submission_id
    pauses = iter(_PAUSES)
    sent = files
    doubt: CommandError | None = None
    while True:
        try:
            if doubt is not None:
                if found := cluster.find(name):
                    return cluster.scheduler.array_id(found[0].job_id)
                if sent.content and _has_arrived(run):
                    # A job that has begun since then would lose what it has printed.
                    sent = Files(files.folder, {}, files.links)
            with shown(f"Flow to {connection.login}") as progress:
                return cluster.submit(
                    script, name, files=sent, run_dir=str(run.path), progress=progress
                )
        except TransferFailed as error:
            reason = os_error(error.stderr, run.shared)
            if reason is None:
                raise
            with shared_directory_errors(run.shared, run.files):
                raise reason from error
        except CommandError as error:
            if _has_broken(error):
                doubt = error
            elif doubt is None or not isinstance(error, Unreachable):
                raise
            pause = next(pauses, None)
            if pause is None:
                raise doubt from None
            logger.warning("Submission %s is tried again: %s", name, error)
            sleep(pause)


def _has_broken(error: CommandError) -> bool:
    """Whether the connection broke under the submission, which then could not be looked up."""
    return isinstance(error, ConnectionLost) or (
        isinstance(error, SchedulerUnavailable) and isinstance(error.__cause__, ConnectionLost)
    )


def _has_arrived(run: RunDirectory) -> bool:
    """Whether all files of a submission have, if not their second names: its journal is last."""
    with shared_directory_errors(run.shared):
        return run.read(SUBMISSION) is not None
