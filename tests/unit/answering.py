"""Processes of one user that share the scheduler's answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.shared_answer import SharedAnswer

START = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)
FULL = JobStatus(
    job_id=JobId("1_2"),
    name="hb 'ü'\n",
    state=JobState.HELD,
    scheduler_state="PENDING",
    reason="ReqNodeNotAvail, UnavailableNodes:c2",
    exit_code=3,
    signal=9,
    nodes="c[1-2]",
    submitted=START,
    started=START + timedelta(seconds=1),
    ended=START + timedelta(seconds=2),
    estimated_start=START + timedelta(seconds=3),
    cancelled_by="1500",
)
BARE = JobStatus(JobId("2"), "hb2", JobState.RUNNING, "RUNNING")


class Process:
    """One process of the user, with a scheduler that counts and a clock."""

    def __init__(self, path: Path, *jobs: JobStatus) -> None:
        self.path = path
        self.jobs: list[JobStatus] = list(jobs)
        self.error: Exception | None = None
        self.queries = 0
        self.takes = timedelta()
        self.now = START
        self.slept: list[float] = []
        self.shared = SharedAnswer(
            path, self._query, max_age=27.0, now=lambda: self.now, sleep=self._sleep
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    def _query(self) -> Mapping[JobId, JobStatus]:
        self.queries += 1
        self.now += self.takes
        if self.error is not None:
            raise self.error
        return {job.job_id: job for job in self.jobs}

    def ask(self, after: float = 0.0) -> dict[str, JobStatus]:
        self.now = START + timedelta(seconds=after)
        return {job_id.value: job for job_id, job in self.shared.ask().jobs.items()}
