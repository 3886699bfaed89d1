"""Limits and concurrency slots while jobs wait in the queue, on a real scheduler."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from prefect.client.schemas.objects import ConcurrencyOptions

from tests.server import server_client
from tests.site.conftest import (
    Site,
    Worker,
    counted_deployment,
    create_run,
    ends,
    job_of,
    read,
    side_by_side,
)
from tests.waiting import until

GRACE = 60
"""Seconds, the least that Prefect takes: how long a slot is kept without renewal."""


@pytest.fixture(scope="module", autouse=True)
def folder(site: Site) -> str:
    site.shell("mkdir -p limits")
    return site.path("limits")


@contextmanager
def most_jobs(site: Site, runs: list[UUID]) -> Iterator[Callable[[], int]]:
    """The largest number of the runs' jobs that were in the queue at one time."""
    most = 0
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.5):
            references = [read(run).infrastructure_pid for run in runs]
            jobs = [reference.split(":")[1] for reference in references if reference]
            most = max(most, site.batch.queued(*jobs))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield lambda: most
    finally:
        over.set()
        looker.join()


def until_completed(runs: list[UUID], seconds: float = 120) -> None:
    until(lambda: all(ends(run) == ["Completed"] for run in runs), seconds, "all are completed")


def queued_and_running_jobs_count_also_those_of_an_earlier_worker(site: Site) -> None:
    pool = "limited"
    with Worker(site, pool, "limited", "--limit", "2") as worker:
        deployment = counted_deployment(pool, site.path("limits"))
        runs = [create_run(deployment, arrays=False, **site.batch.held) for _ in range(2)]
        first = [job_of(run) for run in runs]
        runs += [create_run(deployment, 2, arrays=False) for _ in range(3)]
        worker.kill()
    with (
        most_jobs(site, runs) as most,
        Worker(site, pool, "limited", "--limit", "2") as worker,
    ):
        until(lambda: "limit" in worker.text, 60, "the worker says that it is full")
        assert not any(map(is_taken, runs[2:]))
        site.batch.release(first[0])
        until_completed([runs[0], *runs[2:]])
        site.batch.release(first[1])
        until_completed(runs)
        assert most() == 2


def a_deployments_slot_is_kept_while_its_job_waits(site: Site) -> None:
    pool = "slots"
    with Worker(site, pool, "slots", HPC_BRIDGE_POLL_INTERVAL="30"):
        deployment = counted_deployment(
            pool,
            site.path("limits"),
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(
                collision_strategy="ENQUEUE", grace_period_seconds=GRACE
            ),
        )
        waits = create_run(deployment, **site.batch.held)
        job = job_of(waits)
        until(lambda: read(waits).state.name == "Queued", 30, "it waits")
        queued = time.monotonic()
        second = create_run(deployment)
        until(lambda: time.monotonic() - queued > GRACE + 15, GRACE + 30, "the slot would lapse")
        assert read(waits).state.name == "Queued"
        assert not read(second).state.is_running()
        assert read(second).infrastructure_pid is None
        site.batch.release(job)
        until_completed([waits], 60)


def a_work_queue_has_one_queued_job_at_a_time(site: Site) -> None:
    pool = "queues"
    with Worker(site, pool, "queues"):
        with server_client() as client:
            client.create_work_queue("narrow", work_pool_name=pool, concurrency_limit=1)
        deployment = counted_deployment(pool, site.path("limits"), work_queue_name="narrow")
        held = create_run(deployment, **site.batch.held)
        job = job_of(held)
        others = [create_run(deployment) for _ in range(2)]
        made = datetime.now(UTC)

        def asked_again() -> bool:
            with server_client() as client:
                polled = client.read_work_queue_by_name("narrow", work_pool_name=pool).last_polled
            return polled is not None and polled > made + timedelta(seconds=2)

        until(asked_again, 60, "the worker asks again for runs")
        assert not any(map(is_taken, others))
        site.batch.release(job)
        until(lambda: any(map(is_taken, others)), 60, "it is the next one's turn")
        assert not all(map(is_taken, others))
        until_completed([held, *others])


def is_taken(run: UUID) -> bool:
    """Whether a worker has it, or had it."""
    return not read(run).state.is_scheduled()


def test_limits_hold_while_jobs_wait(site: Site) -> None:
    cases = (
        queued_and_running_jobs_count_also_those_of_an_earlier_worker,
        a_deployments_slot_is_kept_while_its_job_waits,
        a_work_queue_has_one_queued_job_at_a_time,
    )
    side_by_side(*(partial(case, site) for case in cases))
