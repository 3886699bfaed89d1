"""Every way to cancel a run, on a real Slurm: one final state, and no job left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from tests.site.conftest import (
    Caller,
    Site,
    Worker,
    counted_deployment,
    create_run,
    ends,
    history,
    job_of,
    read,
)
from tests.waiting import until

POOL = "cancelling"
FOLDER = "/home/researcher/cancelling"
SOON = 15
"""Seconds that stand for one poll of one second, on a machine that has much else to do."""


@pytest.fixture(scope="module")
def folder(site: Site) -> str:
    site.shell(f"mkdir -p {FOLDER}")
    return FOLDER


@pytest.fixture(scope="module")
def worker(site: Site, folder: str) -> Iterator[Worker]:
    with Worker(site, POOL, "canceller") as worker:
        yield worker


@pytest.fixture(scope="module")
def deployment(worker: Worker) -> UUID:
    return counted_deployment(POOL, FOLDER)


def cancel(flow_run_id: UUID) -> None:
    """As the dashboard and the command line do."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Cancelling())


def is_queued(site: Site, job: str) -> bool:
    return bool(site.run("squeue", "--noheader", f"--jobs={job}").stdout.strip())


def state(flow_run_id: UUID) -> Any:
    return read(flow_run_id).state


def has_started(site: Site, flow_run_id: UUID) -> bool:
    return (site.home() / "cancelling" / f"{flow_run_id}.starts").exists()


def until_started(site: Site, *flow_run_ids: UUID) -> None:
    until(lambda: all(has_started(site, run) for run in flow_run_ids), 90, "the flow runs")


def until_over(*flow_run_ids: UUID, seconds: float = SOON) -> None:
    until(lambda: all(state(run).is_final() for run in flow_run_ids), seconds, "the run is over")


def side_by_side(*cases: Callable[[], None]) -> None:
    """Run all at once; the first that failed is raised."""
    errors: list[BaseException] = []

    def run(case: Callable[[], None]) -> None:
        try:
            case()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def queued_run_is_cancelled(site: Site, run: UUID) -> None:
    job = job_of(run)
    until(lambda: state(run).name in ("Queued", "Cancelling"), SOON, "it waits")
    cancel(run)
    until(lambda: not is_queued(site, job), SOON, "the job leaves the queue")
    until_over(run)
    assert ends(run) == ["Cancelled"]
    assert state(run).message == f"Job {job} was cancelled before it started."
    assert not has_started(site, run)


def test_a_queued_job_leaves_the_queue_at_once(site: Site, deployment: UUID) -> None:
    held = create_run(deployment, directives=["--hold"])
    later = create_run(deployment, begin="now+1hour")
    side_by_side(
        lambda: queued_run_is_cancelled(site, held), lambda: queued_run_is_cancelled(site, later)
    )


def test_a_run_that_is_being_submitted_can_be_cancelled(site: Site, deployment: UUID) -> None:
    run = create_run(deployment, directives=["--hold"])
    until(lambda: state(run).is_pending(), SOON, "the worker has taken it")
    cancel(run)
    job = job_of(run)
    until(lambda: not is_queued(site, job), SOON, "the job leaves the queue")
    until_over(run)
    assert ends(run) == ["Cancelled"]


def test_the_script_that_submitted_a_run_cancels_it(site: Site, folder: str) -> None:
    def by_api(how: str, tag: str) -> None:
        caller = Caller(site, how, tag, folder=folder, directives=["--hold"])
        try:
            queued_run_is_cancelled(site, caller.flow_run_id)
        finally:
            caller.process.terminate()
            caller.process.communicate(timeout=60)

    def by_future() -> None:
        caller = Caller(site, "cancel", "by-future", folder=folder, directives=["--hold"])
        output, errors = caller.process.communicate(timeout=90)
        assert output == "Cancelled\n", errors
        assert ends(caller.flow_run_id) == ["Cancelled"]

    side_by_side(
        lambda: by_api("submit", "only-submitted"), lambda: by_api("call", "called"), by_future
    )
