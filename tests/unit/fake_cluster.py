"""A cluster that remembers what it was given, and may forget what it ran."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from hpc_bridge import connections
from hpc_bridge.cluster import Cluster
from hpc_bridge.connections import NO_OPTIONS, Connection
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.transports.base import Files, Progress
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import LOCAL
from hpc_bridge.watcher import Snapshot, Watcher


class FakeCluster(Cluster):
    """Numbers jobs from 100."""

    def __init__(self) -> None:
        super().__init__(SlurmScheduler(), LocalTransport())
        self.queue: list[JobStatus] = []
        self.records: list[JobStatus] | Exception = []
        self.scripts: list[str] = []
        self.refusal: Exception | None = None
        self.asked: list[str] = []
        self.step: Callable[[str], None] = lambda _: None
        """Called before and after each submission."""

    def submit(
        self,
        script: str,
        name: str,
        *,
        files: Files | None = None,
        run_dir: str | None = None,
        progress: Progress | None = None,
    ) -> JobId:
        assert files is None  # on this machine they are written before
        assert run_dir is None
        self.step("before the submission")
        if self.refusal is not None:
            raise self.refusal
        self.scripts.append(script)
        job_id = JobId(str(99 + len(self.scripts)))
        self.queue.append(JobStatus(job_id, name, JobState.PENDING, "PENDING"))
        self.step("after the submission")
        return job_id

    def find(self, name: str) -> list[JobStatus]:
        self.asked.append("queue")
        return [status for status in self.queue if status.name == name]

    def find_history(self, name: str, since: datetime) -> list[JobStatus]:
        self.asked.append("records")
        if isinstance(self.records, Exception):
            raise self.records
        return [status for status in self.records if status.name == name]

    def ended(self) -> None:
        """All jobs have left the queue for the records."""
        assert isinstance(self.records, list)
        self.records += self.queue
        self.queue = []


def connected(shared: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Make connections of a shared directory lead to a fake cluster."""
    cluster = FakeCluster()

    def nothing(_: datetime | None) -> Snapshot:
        raise AssertionError("asked for job states")

    watcher = Watcher(nothing, lambda _jobs, _since: {}, interval=3600)
    connection = Connection(cluster, watcher, 30.0)
    key = ("slurm", shared, 30.0, NO_OPTIONS, LOCAL)
    monkeypatch.setitem(connections._connections, key, connection)
    return cluster
