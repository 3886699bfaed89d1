"""What looks after a script's jobs gives them to a worker when it fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from hpc_bridge.jobs import JobId
from hpc_bridge.journal import RunDirectory, prepare_shared_directory
from hpc_bridge.tracking.caretaker import Care, Caretaker
from hpc_bridge.tracking.claims import Claims, claims_on
from hpc_bridge.tracking.job import TrackedJob
from tests.unit.orphaned_runs import a_run
from tests.waiting import until


@pytest.fixture
def caretaker() -> Iterator[Caretaker]:
    caretaker = Caretaker()
    yield caretaker
    loop = caretaker._loop
    loop.call_soon_threadsafe(loop.stop)
    until(lambda: not loop.is_running(), 10, "the loop stopped")
    loop.close()


@pytest.fixture
def job(tmp_path: Path) -> TrackedJob:
    run = a_run(prepare_shared_directory(tmp_path / "shared"), job_id="7")
    nobody: Any = None
    return TrackedJob(run, 0, uuid4(), JobId("7"), "slurm", nobody)


def follow_with(caretaker: Caretaker, monkeypatch: pytest.MonkeyPatch, follow: Any) -> None:
    async def keeper() -> Any:
        return SimpleNamespace(follow=follow)

    monkeypatch.setattr(caretaker, "_keeper", keeper)


def cared_for(caretaker: Caretaker, job: TrackedJob) -> Care:
    care = caretaker.care(job)
    assert care is not None
    return care


def test_a_job_that_cannot_be_followed_any_more_is_free_for_a_worker(
    caretaker: Caretaker, job: TrackedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, worker = RuntimeError("odd"), Claims(job.run.shared)

    async def follow(*_: object) -> None:
        raise error

    follow_with(caretaker, monkeypatch, follow)
    care = cared_for(caretaker, job)
    assert care.end.exception(10) is error
    assert care.first_news.result(10) is None, "a script that ends would wait for it"
    assert worker.take(job.run)
    worker.end()
    until(lambda: not caretaker._cares, 10, "the job is in care no more")


def test_a_server_that_cannot_be_reached_is_no_reason_to_keep_the_claim(
    caretaker: Caretaker, job: TrackedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keeper() -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(caretaker, "_keeper", keeper)
    assert isinstance(cared_for(caretaker, job).end.exception(10), ConnectionError)
    assert not claims_on(job.run.shared).held([job.run])


def test_a_job_whose_end_is_told_stays_with_its_caretaker(
    caretaker: Caretaker, job: TrackedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow(*_: object) -> str:
        return "told"

    follow_with(caretaker, monkeypatch, follow)
    assert cared_for(caretaker, job).end.result(10) == "told"
    assert claims_on(job.run.shared).held([job.run])


def test_a_claim_that_takes_long_holds_up_no_other_job(
    caretaker: Caretaker, job: TrackedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = threading.Event(), threading.Event()

    def take(_: Claims, run: RunDirectory) -> bool:
        asked.set()
        return not answers.wait(10)

    monkeypatch.setattr(Claims, "take", take)
    with ThreadPoolExecutor(1) as threads:
        care = threads.submit(caretaker.care, job)
        try:
            assert asked.wait(10)
            assert caretaker._lock.acquire(timeout=5), "the loop takes it at the end of each job"
            caretaker._lock.release()
        finally:
            answers.set()
        assert care.result(10) is None


def test_a_claim_that_is_given_back_slowly_holds_up_no_other_job(
    caretaker: Caretaker, job: TrackedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers, turned = threading.Event(), threading.Event(), threading.Event()

    def release(_: Claims, run: RunDirectory) -> None:
        asked.set()
        answers.wait(10)

    async def follow(*_: object) -> None:
        raise RuntimeError("odd")

    follow_with(caretaker, monkeypatch, follow)
    monkeypatch.setattr(Claims, "release", release)
    care = cared_for(caretaker, job)
    try:
        assert asked.wait(10)
        caretaker._loop.call_soon_threadsafe(turned.set)
        assert turned.wait(5), "the loop goes on"
    finally:
        answers.set()
    assert isinstance(care.end.exception(10), RuntimeError)


def test_of_threads_that_care_together_all_get_the_same(
    caretaker: Caretaker, job: TrackedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, taken = threading.Barrier(2), Claims.take

    def take(claims: Claims, run: RunDirectory) -> bool:
        both.wait(10)
        return taken(claims, run)

    async def follow(*_: object) -> None:
        await asyncio.sleep(3600)

    follow_with(caretaker, monkeypatch, follow)
    monkeypatch.setattr(Claims, "take", take)
    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(lambda _: cared_for(caretaker, job), range(2))
    assert one is two
    for task in asyncio.all_tasks(caretaker._loop):
        caretaker._loop.call_soon_threadsafe(task.cancel)
    until(lambda: not asyncio.all_tasks(caretaker._loop), 10, "nothing is followed")
