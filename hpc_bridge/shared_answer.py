"""The last status answer, shared by all processes of one user through a locked file.

A hundred scripts that wait on a login node ask the scheduler once per interval, not a hundred
times.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from hpc_bridge.errors import HPCBridgeError, SchedulerUnavailable, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.machine_files import locked, read_text, write_json
from hpc_bridge.watcher import Snapshot

logger = logging.getLogger(__name__)

FORMAT = 2
_FRESH_DIVISOR = 10
_TIMES = ("submitted", "started", "ended", "estimated_start")


class SharedAnswer:
    """Asks through ``query`` unless another process has just done so.

    A failure is shared too: a scheduler that hangs is not asked by one process after another.
    """

    def __init__(
        self,
        path: Path,
        query: Callable[[], Mapping[JobId, JobStatus]],
        *,
        max_age: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._query = query
        self._max_age = max_age
        self._now = now
        self._sleep = sleep

    def ask(self, newer_than: datetime | None = None) -> Snapshot:
        """The shared answer when it is younger than ``max_age`` seconds, else a new one.

        With ``newer_than`` it must also have been asked for after that moment; however many want
        that, a tenth of ``max_age`` lies between two questions.

        Raises SchedulerUnavailable when somebody else has just failed to get one.
        """
        with locked(self._path) as file:
            known = self._known(file)
            if known is not None and (newer_than is None or known.taken_at >= newer_than):
                return known
            if known is not None:
                self._pause(file)
            return self._ask_anew(file)

    def _pause(self, file: BinaryIO) -> None:
        """Until a tenth of the age that an answer may have; others wait for the lock meanwhile."""
        stored = _load(read_text(file))
        age = self._age(stored) if stored is not None else self._max_age
        self._sleep(max(0.0, self._max_age / _FRESH_DIVISOR - age))

    def _known(self, file: BinaryIO) -> Snapshot | None:
        stored = _load(read_text(file))
        if stored is None or not 0 <= self._age(stored) < self._max_age:
            return None
        if "failure" in stored:
            raise SchedulerUnavailable(f"{stored['failure']} (asked by another process just now)")
        return _snapshot(stored)

    def _ask_anew(self, file: BinaryIO) -> Snapshot:
        taken_at = self._now()
        try:
            answer = Snapshot(taken_at, self._query())
        except UnexpectedOutput as error:
            logger.warning("Some jobs could not be read: %s", error)
            answer = Snapshot(taken_at, error.readable, complete=False)
        except HPCBridgeError as error:
            self._store(file, {"failure": str(error)})
            raise
        self._store(file, _fields(answer))
        return answer

    def _store(self, file: BinaryIO, fields: dict[str, Any]) -> None:
        """Age counts from the end of the query: a slow answer is not old when it comes."""
        head = {"format": FORMAT, "stored_at": self._now().isoformat()}
        write_json(file, head | fields, default=datetime.isoformat)

    def _age(self, stored: dict[str, Any]) -> float:
        stored_at: datetime = stored["stored_at"]
        return (self._now() - stored_at).total_seconds()


def _fields(answer: Snapshot) -> dict[str, Any]:
    return {
        "taken_at": answer.taken_at,
        "complete": answer.complete,
        "jobs": [dataclasses.asdict(status) for status in answer.jobs.values()],
    }


def _load(text: str) -> dict[str, Any] | None:
    """What is stored; None when that is nothing, of another format, or damaged."""
    try:
        stored: dict[str, Any] = json.loads(text)
        if stored["format"] != FORMAT:
            return None
        stored["stored_at"] = datetime.fromisoformat(stored["stored_at"])
        if "failure" not in stored:
            stored["jobs"] = [_status(fields) for fields in stored["jobs"]]
            stored["taken_at"] = datetime.fromisoformat(stored["taken_at"])
            stored["complete"] = bool(stored["complete"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return stored


def _snapshot(stored: dict[str, Any]) -> Snapshot:
    jobs = {job.job_id: job for job in stored["jobs"]}
    return Snapshot(stored["taken_at"], jobs, stored["complete"])


def _status(fields: dict[str, Any]) -> JobStatus:
    for name in _TIMES:
        if fields[name] is not None:
            fields[name] = datetime.fromisoformat(fields[name])
    fields["job_id"] = JobId(fields["job_id"]["value"])
    fields["state"] = JobState(fields["state"])
    return JobStatus(**fields)
