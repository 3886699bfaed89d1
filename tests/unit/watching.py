"""A scheduler with a clock, under a watcher."""

from __future__ import annotations

import queue
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.watcher import Snapshot, WatchedJob, Watcher

START = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)
GRACE = timedelta(minutes=3)
NEVER = 3600.0
DEADLINE = 10.0


def job(number: int | str, state: JobState = JobState.RUNNING, name: str = "") -> JobStatus:
    return JobStatus(JobId(str(number)), name or f"hb{number}", state, state.value)


class Site:
    """A scheduler with a clock: what it would answer, and how often it was asked."""

    def __init__(self, *, interval: float = NEVER) -> None:
        self.now = START
        self.queue: list[JobStatus] | Exception = []
        self.complete = True
        self.records: list[JobStatus] | Exception = []
        self.asked: queue.Queue[float] = queue.Queue()
        self.newer_than: list[datetime | None] = []
        self.looked_up: list[tuple[set[str], datetime]] = []
        self.watcher = Watcher(
            self._ask,
            self._history,
            interval=interval,
            lost_after=GRACE,
            now=lambda: self.now,
        )
        self._watched: list[WatchedJob] = []

    def _ask(self, newer_than: datetime | None) -> Snapshot:
        self.newer_than.append(newer_than)
        self.asked.put(time.monotonic())
        if isinstance(self.queue, Exception):
            raise self.queue
        jobs = {status.job_id: status for status in self.queue}
        return Snapshot(self.now, jobs, complete=self.complete)

    def _history(self, jobs: Collection[JobId], since: datetime) -> Mapping[JobId, JobStatus]:
        self.looked_up.append(({job.value for job in jobs}, since))
        if isinstance(self.records, Exception):
            raise self.records
        return {status.job_id: status for status in self.records}

    def watch(
        self, number: int | str, name: str = "", *, submitted: datetime | None = None
    ) -> WatchedJob:
        name = name or f"hb{number}"
        watched = self.watcher.watch(JobId(str(number)), name, submitted=submitted)
        self._watched.append(watched)
        return watched

    def poll(self, after: timedelta = timedelta(seconds=30)) -> bool:
        self.now += after
        return self.watcher.poll()

    def close(self) -> None:
        for watched in self._watched:
            self.watcher.forget(watched)
