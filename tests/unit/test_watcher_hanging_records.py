"""Accounting that hangs, under a watcher whose thread runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime

import pytest

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.watcher import Snapshot, Watcher

DEADLINE = 10.0


def status(number: int, state: JobState) -> JobStatus:
    return JobStatus(JobId(str(number)), f"hb{number}", state, state.value)


class HangingRecords:
    """The queue answers; the records do when they are let go."""

    def __init__(self) -> None:
        self.queue: list[JobStatus] = []
        self.records: list[JobStatus] = []
        self.asked: list[set[str]] = []
        self.hangs = threading.Event()
        self.let_go = threading.Event()

    def ask(self, _: datetime | None) -> Snapshot:
        return Snapshot(datetime.now(UTC), {job.job_id: job for job in self.queue})

    def history(self, jobs: Collection[JobId], _: datetime) -> Mapping[JobId, JobStatus]:
        self.asked.append({job.value for job in jobs})
        self.hangs.set()
        assert self.let_go.wait(DEADLINE)
        return {job.job_id: job for job in self.records}


@pytest.fixture
def records() -> Iterator[HangingRecords]:
    records = HangingRecords()
    yield records
    records.let_go.set()


def test_an_end_that_the_queue_says_is_told_while_the_records_hang(records: HangingRecords) -> None:
    watcher = Watcher(records.ask, records.history, interval=0.01)
    gone = watcher.watch(JobId("1"), "hb1")
    assert records.hangs.wait(DEADLINE)
    ends = watcher.watch(JobId("2"), "hb2")
    records.queue = [status(2, JobState.FAILED)]
    assert ends.done.result(DEADLINE).state is JobState.FAILED
    assert not gone.done.done()
    assert records.asked == [{"1"}]
    records.records = [status(1, JobState.COMPLETED)]
    records.let_go.set()
    assert gone.done.result(DEADLINE).state is JobState.COMPLETED


def test_jobs_that_are_gone_while_the_records_hang_are_looked_up_together_afterwards(
    records: HangingRecords,
) -> None:
    watcher = Watcher(records.ask, records.history, interval=0.01)
    first = watcher.watch(JobId("1"), "hb1")
    assert records.hangs.wait(DEADLINE)
    later = [watcher.watch(JobId(str(number)), f"hb{number}") for number in (2, 3)]
    deadline = time.monotonic() + DEADLINE
    while any(job.absent_since is None for job in later):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks at what another thread does
    time.sleep(0.05)  # several polls: each would start a look-up of its own
    assert records.asked == [{"1"}]
    records.records = [status(number, JobState.FAILED) for number in (1, 2, 3)]
    records.let_go.set()
    assert {job.done.result(DEADLINE).state for job in (first, *later)} == {JobState.FAILED}
    assert records.asked == [{"1"}, {"2", "3"}]
