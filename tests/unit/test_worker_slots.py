"""A worker's limit: a job holds one slot while it is not over, and no longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import anyio
import anyio.abc
import pytest

from hpc_bridge.workers.slurm import SlurmWorker


class Jobs:
    """A keeper whose jobs are over, and are told, when a test says so."""

    def __init__(self) -> None:
        self.not_over: set[UUID] = set()
        self._overs: list[Callable[[], None]] = []
        self._tellings: list[asyncio.Event] = []

    def unfinished(self) -> set[UUID]:
        return self.not_over

    async def follow(self, job: Any, on_over: Callable[[], None]) -> None:
        told = asyncio.Event()
        self._overs.append(on_over)
        self._tellings.append(told)
        await told.wait()

    def end(self, number: int) -> None:
        self._overs[number]()

    async def tell(self, number: int) -> None:
        self._tellings[number].set()
        await settle_down()


async def settle_down() -> None:
    """Every task that can go on has done so."""
    for _ in range(20):
        await asyncio.sleep(0)


class Case:
    """A worker that has begun to serve, without a server."""

    def __init__(self, tasks: anyio.abc.TaskGroup, limit: int | None) -> None:
        self.jobs = Jobs()
        self.limiter = anyio.CapacityLimiter(limit or 1)
        self.worker = SlurmWorker(work_pool_name="pool", name="first")
        self.worker._keeper = self.jobs  # type: ignore[assignment]
        self.worker._freed = []
        self.worker._limiter = self.limiter if limit is not None else None
        self.worker._runs_task_group = tasks

    @property
    def taken(self) -> float:
        return self.limiter.borrowed_tokens

    def take(self, flow_run_id: UUID) -> None:
        """As Prefect does before it submits."""
        self.limiter.acquire_on_behalf_of_nowait(flow_run_id)


def a_job(flow_run_id: UUID) -> Any:
    return SimpleNamespace(flow_run_id=flow_run_id)


def with_worker(test: Callable[[Case], Awaitable[None]], limit: int | None = 1) -> None:
    async def run() -> None:
        async with asyncio.timeout(10), anyio.create_task_group() as tasks:
            await test(Case(tasks, limit))
            tasks.cancel_scope.cancel()

    asyncio.run(run())


def test_a_slot_is_free_when_the_job_is_over_and_not_freed_again_when_that_is_told() -> None:
    async def test(case: Case) -> None:
        first, second = uuid4(), uuid4()
        case.take(first)
        case.worker._free_slot(first)
        assert case.taken == 0
        case.take(second)
        case.worker._release_limit_slot(first)
        assert case.taken == 1

    with_worker(test)


def test_a_retry_keeps_its_slot_when_the_end_of_its_first_job_is_told() -> None:
    async def test(case: Case) -> None:
        run = uuid4()
        case.take(run)
        case.worker._free_slot(run)
        case.take(run)  # the retry
        case.worker._release_limit_slot(run)  # of the first job
        assert case.taken == 1
        case.worker._free_slot(run)
        assert case.taken == 0
        case.worker._release_limit_slot(run)
        case.take(run)
        assert case.worker._freed == []

    with_worker(test)


def test_a_retry_that_is_over_before_the_end_of_its_first_job_is_told_frees_its_slot() -> None:
    async def test(case: Case) -> None:
        run = uuid4()
        for _ in range(2):
            case.take(run)
            case.worker._free_slot(run)
            assert case.taken == 0
        case.take(run)  # once more
        for _ in range(2):
            case.worker._release_limit_slot(run)
        assert (case.taken, case.worker._freed) == (1, [])

    with_worker(test)


def test_a_slot_of_a_run_that_never_got_a_job_is_freed() -> None:
    async def test(case: Case) -> None:
        run = uuid4()
        case.take(run)
        for _ in range(2):  # Prefect does so twice
            case.worker._release_limit_slot(run)
        assert (case.taken, case.worker._freed) == (0, [])

    with_worker(test)


def test_without_a_limit_nothing_is_left_behind() -> None:
    async def test(case: Case) -> None:
        run = uuid4()
        case.worker._free_slot(run)
        case.worker._release_limit_slot(run)
        assert case.worker._freed == []

    with_worker(test, limit=None)


def test_an_adopted_job_holds_a_slot_until_it_is_over() -> None:
    async def test(case: Case) -> None:
        run, other = uuid4(), uuid4()
        case.worker.adopt(a_job(run))
        await settle_down()
        assert case.taken == 1
        case.jobs.end(0)
        assert case.taken == 0
        case.take(other)
        await case.jobs.tell(0)
        assert (case.taken, case.worker._freed) == (1, [])

    with_worker(test)


def test_adopted_jobs_above_the_limit_take_the_slots_that_become_free() -> None:
    async def test(case: Case) -> None:
        for _ in range(2):
            case.worker.adopt(a_job(uuid4()))
        await settle_down()
        case.jobs.end(0)
        await case.jobs.tell(0)
        assert case.taken == 1, "new runs are taken although the second job is not over"
        case.jobs.end(1)
        await case.jobs.tell(1)
        assert (case.taken, case.worker._freed) == (0, [])

    with_worker(test)


def test_an_adopted_job_that_is_over_takes_no_slot_any_more() -> None:
    """Its end may take long to tell, and the slot would never be free again."""

    async def test(case: Case) -> None:
        for _ in range(2):
            case.worker.adopt(a_job(uuid4()))
        await settle_down()
        case.jobs.end(1)  # it waits for a slot
        case.jobs.end(0)
        await settle_down()
        assert case.taken == 0
        for number in range(2):
            await case.jobs.tell(number)
        assert (case.taken, case.worker._freed) == (0, [])

    with_worker(test)


def test_a_job_that_is_left_to_another_process_holds_no_slot() -> None:
    async def test(case: Case) -> None:
        case.worker.adopt(a_job(uuid4()))
        await settle_down()
        await case.jobs.tell(0)
        assert (case.taken, case.worker._freed) == (0, [])

    with_worker(test)


def test_a_run_is_not_taken_before_its_first_job_is_over() -> None:
    taken: list[UUID] = []

    async def test(case: Case) -> None:
        first, other = uuid4(), uuid4()
        offered: Any = [SimpleNamespace(flow_run=SimpleNamespace(id=run)) for run in (first, other)]

        async def submit(flow_run: Any) -> None:
            taken.append(flow_run.id)

        case.worker._submit_run = submit  # type: ignore[method-assign]
        case.worker.get_flow_run_logger = lambda _: logging.getLogger("test")  # type: ignore[method-assign,assignment,return-value]
        case.jobs.not_over = {first}
        assert [run.id for run in await case.worker._submit_scheduled_flow_runs(offered)] == [other]
        await settle_down()
        assert taken == [other]
        case.jobs.not_over = set()
        await case.worker._submit_scheduled_flow_runs(offered)
        await settle_down()
        assert taken == [other, first]

    with_worker(test, limit=None)


def test_one_failure_ends_neither_the_worker_nor_what_else_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(case: Case) -> None:
        done = asyncio.Event()

        async def fail() -> None:
            raise RuntimeError("odd")

        case.worker._in_background(fail)
        case.worker._in_background(done.wait)
        await settle_down()
        assert len(case.worker._scheduled_task_scopes) == 1
        done.set()
        await settle_down()
        assert case.worker._scheduled_task_scopes == set()

    with_worker(test)


def test_a_worker_that_ends_does_not_wait_for_what_is_in_the_background() -> None:
    async def test(case: Case) -> None:
        case.worker._in_background(asyncio.Event().wait)
        await settle_down()
        for scope in case.worker._scheduled_task_scopes:  # as Prefect's teardown
            scope.cancel()
        await settle_down()
        assert case.worker._scheduled_task_scopes == set()

    with_worker(test)
