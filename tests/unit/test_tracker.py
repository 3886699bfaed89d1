"""A tracker's patience: with a scheduler that has just taken a job, and with its records."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking import tracker as module
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.reader import Reader
from hpc_bridge.tracking.tracker import Tracker
from hpc_bridge.watcher import WatchedJob


def status(state: JobState, reason: str | None = None) -> JobStatus:
    return JobStatus(JobId("42"), "hbabc", state, str(state), reason=reason)


PENDING = status(JobState.PENDING)
PRIORITY = status(JobState.PENDING, "Priority")
RUNNING = status(JobState.RUNNING)
KEEPS_RECORDS = SimpleNamespace(has_accounting=True)


class Watched:
    """What the scheduler says of a job, one answer a second."""

    def __init__(self, *answers: JobStatus | None) -> None:
        self._answers = list(answers)
        self.done: asyncio.Future[JobStatus] = asyncio.Future()
        self.hurried = 0
        self.latest: JobStatus | None = None
        self.absent_since: datetime | None = None
        self.next()

    def next(self) -> None:
        if self._answers:
            self.latest = self._answers.pop(0)

    def hurry(self) -> None:
        self.hurried += 1


def tracker_of(tmp_path: Path, connection: Any, usage: Any = None) -> Tracker:
    run = RunDirectory(tmp_path / "runs" / "hbaaaaaaaaaaaaa")
    job = TrackedJob(run, 0, uuid.uuid4(), JobId("42"), "slurm", connection)
    return Tracker(SimpleNamespace(client=None, usage=usage, reader=Reader()), job)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "seconds", "last"),
    [
        ((PRIORITY,), 0, PRIORITY),
        ((RUNNING,), 0, RUNNING),
        ((None, PENDING, PRIORITY), 2, PRIORITY),
        ((None, None, RUNNING), 2, RUNNING),
        ((PENDING,), 4, PENDING),
        ((None,), 4, None),
    ],
)
def test_a_run_is_told_why_it_waits_as_soon_as_the_scheduler_knows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: tuple[JobStatus | None, ...],
    seconds: int,
    last: JobStatus | None,
) -> None:
    async def wait() -> Watched:
        watched: Any = Watched(*answers)
        tracker = tracker_of(tmp_path, SimpleNamespace(watcher=watched))

        async def sleep(*_: object) -> None:
            watched.next()

        monkeypatch.setattr(tracker, "_sleep", sleep)
        await tracker._first_answer(watched)
        return watched  # type: ignore[no-any-return]

    watched = asyncio.run(wait())
    assert (watched.hurried, watched.latest) == (seconds, last)


def test_records_that_hang_do_not_keep_an_end_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    async def hang(_: object) -> None:
        await asyncio.sleep(60)

    async def settle(*arguments: object) -> None:
        told.append(arguments[1])

    async def nothing(*_: object, **__: object) -> bool:
        return True

    async def finish() -> None:
        tracker = tracker_of(tmp_path, SimpleNamespace(cluster=KEEPS_RECORDS), usage=hang)
        monkeypatch.setattr(tracker, "_settle", settle)
        monkeypatch.setattr(tracker, "_note", nothing)
        monkeypatch.setattr(tracker._relay, "relay", nothing)
        async with asyncio.timeout(5):
            await tracker._finish(status(JobState.NODE_FAIL))

    monkeypatch.setattr(module, "_USAGE_SECONDS", 0.05)
    asyncio.run(finish())
    assert told == [None]


def test_a_long_wait_leaves_nothing_behind_and_ends_with_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        pass

    async def wait() -> tuple[list[int], JobStatus | None]:
        watched = WatchedJob(JobId("42"), "hbabc", datetime.now(UTC), datetime.now(UTC))
        watcher = SimpleNamespace(watch=lambda *_, **__: watched, forget=lambda _: None)
        tracker = tracker_of(tmp_path, SimpleNamespace(watcher=watcher, poll_interval=0.001))
        waiters: list[int] = []

        async def look(_: object) -> None:
            waiters.append(len(watched.done._done_callbacks))  # type: ignore[attr-defined]
            if len(waiters) == 20:
                tracker.job.connection.poll_interval = 60.0  # type: ignore[misc]
                asyncio.get_running_loop().call_later(0.01, watched.done.set_result, RUNNING)

        monkeypatch.setattr(module, "label_flow_run", nothing)
        monkeypatch.setattr(tracker.waiting, "note_lease", nothing)
        monkeypatch.setattr(tracker, "_first_answer", nothing)
        monkeypatch.setattr(tracker, "_look", look)
        return waiters, await asyncio.wait_for(tracker._until_over(), 3)

    waiters, end = asyncio.run(wait())
    assert end is RUNNING
    assert max(waiters) == 1


@pytest.mark.parametrize("is_absent", [False, True])
def test_a_job_that_the_queue_does_not_have_is_not_cancelled_by_an_id_that_another_may_have(
    tmp_path: Path, is_absent: bool
) -> None:
    """A controller that is killed before it has saved forgets jobs and gives their ids again."""
    cancelled: list[bool] = []

    async def cancel_job(_: object, *, only_waiting: bool) -> None:
        cancelled.append(only_waiting)

    async def look() -> None:
        watched: Any = Watched(PRIORITY)
        watched.absent_since = datetime.now(UTC) if is_absent else None
        tracker = tracker_of(tmp_path, SimpleNamespace(watcher=watched, cluster=KEEPS_RECORDS))
        tracker._keeper = SimpleNamespace(  # type: ignore[assignment]
            cancel_job=cancel_job, reader=Reader()
        )
        tracker.cancel()
        await tracker._look(watched)

    asyncio.run(look())
    assert cancelled == ([] if is_absent else [True])


@pytest.mark.parametrize("keeps_records", [True, False])
@pytest.mark.parametrize("how", ["left a record", "cancelled unstarted", "started"])
def test_without_other_records_a_job_is_over_by_its_own_or_when_it_is_cancelled_unstarted(
    tmp_path: Path, how: str, keeps_records: bool
) -> None:
    concluded: list[object] = []

    async def nothing(*_: object, **__: object) -> None:
        pass

    async def look() -> None:
        watched: Any = Watched(PRIORITY)
        watched.absent_since = datetime.now(UTC)
        watched.latest_at, watched.conclude = None, concluded.append
        cluster = SimpleNamespace(has_accounting=keeps_records)
        tracker = tracker_of(tmp_path, SimpleNamespace(watcher=watched, cluster=cluster))
        tracker._relay = SimpleNamespace(relay=nothing)  # type: ignore[assignment]
        if how == "cancelled unstarted":
            tracker.cancel()
        else:
            attempt = tracker.job.run.element(0) / "0"
            attempt.mkdir(parents=True)
            if how == "left a record":
                (attempt / "exit.json").write_text("{}")
        await tracker._look(watched)

    asyncio.run(look())
    assert bool(concluded) == (how != "started" and not keeps_records)
