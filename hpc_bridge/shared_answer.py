"""The last status answer, shared by all processes of one user through a locked file.

A hundred scripts that wait on a login node ask the scheduler once per interval, not a hundred
times.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_bridge.errors import UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.watcher import Answer

_TIMES = ("submitted", "started", "ended", "estimated_start")


class SharedAnswer:
    """Asks through ``query`` unless another process has just done so.

    A failed query leaves the file as it is, and the next caller asks for itself.
    """

    def __init__(
        self,
        path: Path,
        query: Callable[[], Mapping[JobId, JobStatus]],
        *,
        max_age: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._query = query
        self._max_age = max_age
        self._now = now

    def ask(self) -> Answer:
        """The shared answer when it is younger than ``max_age`` seconds, else a new one."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            known = _read(file.read())
            if known is not None and 0 <= self._age(known) < self._max_age:
                return known
            taken_at = self._now()
            try:
                jobs = self._query()
            except UnexpectedOutput as error:
                jobs = error.readable
            answer = Answer(taken_at, jobs)
            file.seek(0)
            file.truncate()
            file.write(_text(answer))
            return answer

    def _age(self, answer: Answer) -> float:
        return (self._now() - answer.taken_at).total_seconds()


def _text(answer: Answer) -> str:
    return json.dumps(
        {
            "format": 1,
            "taken_at": answer.taken_at.isoformat(),
            "jobs": [dataclasses.asdict(status) for status in answer.jobs.values()],
        },
        default=datetime.isoformat,
    )


def _read(text: str) -> Answer | None:
    """The stored answer; None when there is none or it is of another format or damaged."""
    try:
        stored = json.loads(text)
        if stored["format"] != 1:
            return None
        jobs = [_status(fields) for fields in stored["jobs"]]
        return Answer(datetime.fromisoformat(stored["taken_at"]), {job.job_id: job for job in jobs})
    except (ValueError, KeyError, TypeError):
        return None


def _status(fields: dict[str, Any]) -> JobStatus:
    for name in _TIMES:
        if fields[name] is not None:
            fields[name] = datetime.fromisoformat(fields[name])
    fields["job_id"] = JobId(fields["job_id"]["value"])
    fields["state"] = JobState(fields["state"])
    return JobStatus(**fields)
