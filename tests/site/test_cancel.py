"""Every way to cancel a run, on a real scheduler: one final state, and no job left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from prefect.states import Cancelled, Cancelling

from tests.server import server_client
from tests.site.conftest import (
    Caller,
    Site,
    Worker,
    burst,
    counted_deployment,
    create_run,
    ends,
    history,
    in_place_of_submit,
    job_of,
    processes_of,
    read,
    side_by_side,
)
from tests.waiting import HUNG, until

POOL = "cancelling"
SOON = 15
"""Seconds that stand for one poll of one second, on a machine that has much else to do."""


@pytest.fixture(scope="module")
def folder(site: Site) -> str:
    site.shell("mkdir -p cancelling")
    return site.path("cancelling")


@pytest.fixture(scope="module")
def worker(site: Site, folder: str) -> Iterator[Worker]:
    with Worker(site, POOL, "canceller") as worker:
        yield worker


@pytest.fixture(scope="module")
def deployment(worker: Worker, folder: str) -> UUID:
    return counted_deployment(POOL, folder)


def cancel(flow_run_id: UUID) -> None:
    """As the dashboard and the command line do."""
    with server_client() as client:
        client.set_flow_run_state(flow_run_id, Cancelling())


def is_queued(site: Site, job: str) -> bool:
    return site.batch.queued(job) > 0


def state(flow_run_id: UUID) -> Any:
    return read(flow_run_id).state


def has_started(site: Site, flow_run_id: UUID) -> bool:
    return (site.home() / "cancelling" / f"{flow_run_id}.starts").exists()


def until_started(site: Site, *flow_run_ids: UUID) -> None:
    until(lambda: all(has_started(site, run) for run in flow_run_ids), 90, "the flow runs")


def until_over(*flow_run_ids: UUID, seconds: float = SOON) -> None:
    until(lambda: all(state(run).is_final() for run in flow_run_ids), seconds, "the run is over")


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
    held = create_run(deployment, **site.batch.held)
    later = create_run(deployment, **site.batch.later())
    side_by_side(
        lambda: queued_run_is_cancelled(site, held), lambda: queued_run_is_cancelled(site, later)
    )


def test_the_job_of_a_run_that_is_set_cancelled_by_hand_leaves_the_queue(
    site: Site, deployment: UUID
) -> None:
    run = create_run(deployment, **site.batch.held)
    job = job_of(run)
    with server_client() as client:
        client.set_flow_run_state(run, Cancelled(message="by hand"), force=True)
    until(lambda: not is_queued(site, job), SOON, "the job leaves the queue")
    until_told(site, run)
    assert [state.message for state in history(run) if state.is_final()] == ["by hand"]


def test_a_run_that_is_being_submitted_can_be_cancelled(site: Site, deployment: UUID) -> None:
    run = create_run(deployment, **site.batch.held)
    until(lambda: state(run).is_pending(), SOON, "the worker has taken it")
    cancel(run)
    job = job_of(run)
    until(lambda: not is_queued(site, job), SOON, "the job leaves the queue")
    until_over(run)
    assert ends(run) == ["Cancelled"]


def test_the_script_that_submitted_a_run_cancels_it(site: Site, folder: str) -> None:
    def by_api(how: str, tag: str) -> None:
        caller = Caller(site, how, tag, folder=folder, **site.batch.held)
        try:
            queued_run_is_cancelled(site, caller.flow_run_id)
        finally:
            caller.process.terminate()
            caller.process.communicate(timeout=HUNG)

    def by_future() -> None:
        caller = Caller(site, "cancel", "by-future", folder=folder, **site.batch.held)
        output, errors = caller.process.communicate(timeout=HUNG)
        assert output == "Cancelled\n", errors
        assert ends(caller.flow_run_id) == ["Cancelled"]

    side_by_side(
        lambda: by_api("submit", "only-submitted"), lambda: by_api("call", "called"), by_future
    )


def test_a_job_that_waits_again_after_a_requeue_is_cancelled(site: Site, deployment: UUID) -> None:
    run = create_run(deployment, 300, requeue=True)
    until_started(site, run)
    job = job_of(run)
    with site.batch.requeued(job):
        until(lambda: state(run).name == "Requeued", 30, "the run waits again")
        cancel(run)
        until(lambda: not is_queued(site, job), SOON, "the job leaves the queue")
        until_over(run)
    assert ends(run)[-1] == "Cancelled"


def test_a_cancelled_flow_has_its_hooks_and_its_children_end(site: Site, deployment: UUID) -> None:
    run = create_run(deployment, 300, "children")
    children = site.home() / "cancelling" / f"{run}.children"
    until(children.exists, 90, "the flow runs")
    assert len(processes_of(site, run)) > 2
    cancel(run)
    until_over(run)
    until(lambda: not is_queued(site, job_of(run)), SOON, "the job is over")
    assert ends(run) == ["Cancelled"]
    assert (site.home() / "cancelling" / f"{run}.CANCELLING").read_text() == "ran\n"
    left = processes_of(site, run)
    assert len(left) <= int(site.batch.leaves_detached), left


SHORT_GRACE = """
from hpc_bridge.tracking import tracker
tracker.CANCEL_GRACE_SECONDS = 4.0
from prefect.cli import app
app()
"""


def second_ctrl_c_leaves_at_once(site: Site, folder: str) -> None:
    caller = Caller(site, "call", "hasty", 300, "stubborn", folder=folder)
    run = caller.flow_run_id
    until_started(site, run)
    caller.signal("INT")
    errors = caller.process.stderr
    assert errors is not None
    until(lambda: "cancelling job" in errors.readline(), 30, "the first is taken")
    until(lambda: state(run).is_cancelling(), SOON, "the run is being cancelled")
    caller.signal("INT")
    caller.process.communicate(timeout=HUNG)
    assert not state(run).is_final()
    until_over(run, seconds=60)
    assert ends(run) == ["Cancelled"]


def test_a_flow_that_ignores_its_cancellation_is_ended(
    site: Site, folder: str, deployment: UUID
) -> None:
    site.put("short_grace.py", SHORT_GRACE)

    def by_the_node() -> None:
        run = create_run(deployment, 300, "stubborn")
        until_started(site, run)
        cancel(run)
        until_over(run, seconds=30 + SOON)
        assert ends(run) == ["Cancelled"]
        assert "did not end within 30 s of its cancellation" in output_of(site, run)

    def by_the_worker() -> None:
        pool = "impatient"
        with Worker(site, pool, "impatient", start="short_grace.py"):
            run = create_run(counted_deployment(pool, folder), 300, "stubborn")
            until_started(site, run)
            cancel(run)
            until_over(run, seconds=20 + SOON)
            assert ends(run) == ["Cancelled"]
            assert "did not end within" not in output_of(site, run)

    side_by_side(by_the_node, by_the_worker, lambda: second_ctrl_c_leaves_at_once(site, folder))


def output_of(site: Site, run: UUID) -> str:
    submission = read(run).infrastructure_pid.split(":")[2]
    return site.shell(f"cat ~/.hpc-bridge/runs/{submission}/job.out")


def until_told(site: Site, *runs: UUID) -> None:
    """The worker has nothing more to do for them."""
    submissions = [read(run).infrastructure_pid.split(":")[2] for run in runs]
    live = site.home() / ".hpc-bridge" / "live"
    until(lambda: not any((live / name).exists() for name in submissions), 60, "the end is told")


def test_a_cancellation_that_meets_the_end_leaves_one_final_state(
    site: Site, deployment: UUID
) -> None:
    seconds = 4.0
    offsets = (-0.3, 0.0, 0.15, 0.3, 0.6)
    runs = [create_run(deployment, seconds, arrays=False) for _ in offsets]

    def race(run: UUID, offset: float) -> None:
        until_started(site, run)
        started = (site.home() / "cancelling" / f"{run}.starts").stat().st_mtime
        # The very moment is the case: there is no condition to wait for.
        time.sleep(max(0.0, started + seconds + offset - time.time()))
        cancel(run)
        until_over(run)

    side_by_side(*(partial(race, *case) for case in zip(runs, offsets, strict=True)))
    until_told(site, *runs)
    for run in runs:
        assert ends(run) in (["Completed"], ["Cancelled"])
        assert state(run).is_final()


def test_with_nobody_alive_outside_the_job_looks_before_it_starts(site: Site, folder: str) -> None:
    caller = Caller(site, "submit", "left", folder=folder, **site.batch.held)
    until(caller.is_ready, 90, "the run is submitted")
    caller.signal("KILL")
    caller.process.communicate(timeout=HUNG)
    run = caller.flow_run_id
    cancel(run)
    site.batch.release(job_of(run))
    until_over(run, seconds=60)
    assert ends(run) == ["Cancelled"]
    assert state(run).message == "Cancelled before the flow started."
    assert not has_started(site, run)


def test_scancel_tells_by_whom(site: Site, deployment: UUID) -> None:
    def cancelled(user: str, *, running: bool) -> None:
        variables = {} if running else site.batch.later()
        # Of elements that wait together Slurm records one end, by one person.
        run = create_run(deployment, 300, arrays=False, **variables)
        job = job_of(run)
        if running:
            until_started(site, run)
        site.batch.cancel(job, user=user)
        until(lambda: state(run).is_cancelled(), 30, "the run is cancelled")
        assert f"cancelled at the scheduler by {user}" in state(run).message
        assert ends(run)[-1] == "Cancelled"

    side_by_side(
        *(
            partial(cancelled, user, running=running)
            for user in ("researcher", "root")
            for running in (True, False)
        )
    )


def test_a_cancelled_element_of_an_array_leaves_the_others_alone(
    site: Site, deployment: UUID
) -> None:
    runs = burst(POOL, deployment, 3, **site.batch.held)
    jobs = [job_of(run) for run in runs]
    array, _ = site.batch.split(jobs[0])
    assert sorted(jobs) == [site.batch.element(array, index) for index in range(3)]
    queued_run_is_cancelled(site, runs[1])
    assert is_queued(site, jobs[0])
    assert is_queued(site, jobs[2])
    site.batch.release(array)
    until_over(runs[0], runs[2], seconds=90)
    assert [ends(run) for run in runs] == [["Completed"], ["Cancelled"], ["Completed"]]
    assert not has_started(site, runs[1])


def interrupted(site: Site, place: Site, way: str, folder: str, **options: Any) -> None:
    """Ctrl-C for a script that runs at ``place``."""
    tag = f"interrupted-{way}-{len(options)}-{place.name}"
    caller = Caller(place, way, tag, folder=folder, **options)
    run = caller.flow_run_id
    job = job_of(run)
    expected = "RUNNING" if not options else "PENDING"
    until(lambda: state(run).type.value == expected, 60, "it runs, or waits")
    caller.signal("INT")
    _, errors = caller.process.communicate(timeout=HUNG)
    assert "KeyboardInterrupt" in errors.splitlines(), errors
    assert f"cancelling job {job}" in errors
    until_over(run)
    until(lambda: not is_queued(site, job), SOON, "the job is over")
    assert ends(run) == ["Cancelled"]


def test_ctrl_c_in_a_direct_call_cancels_the_job(site: Site, folder: str) -> None:
    def interrupted_while_submitting(way: str) -> None:
        slow = in_place_of_submit(site, "slow", 'sleep 3\nexec SUBMIT "$@"\n')
        caller = Caller(
            *(site, way, f"interrupted-{way}-early"),
            folder=folder,
            environment={"PATH": slow},
            **site.batch.held,
        )
        run = caller.flow_run_id
        caller.signal("INT")
        _, errors = caller.process.communicate(timeout=HUNG)
        assert "KeyboardInterrupt" in errors.splitlines(), errors
        until_over(run)
        assert not is_queued(site, job_of(run))
        assert ends(run) == ["Cancelled"]

    side_by_side(
        *(partial(interrupted_while_submitting, way) for way in ("call", "async")),
        *(partial(interrupted, site, site, way, folder) for way in ("call", "async")),
        *(
            partial(interrupted, site, site, way, folder, **site.batch.held)
            for way in ("call", "async")
        ),
    )


def test_the_end_of_the_script_that_submitted_never_ends_the_job(site: Site, folder: str) -> None:
    def ended(signal: str) -> None:
        caller = Caller(site, "submit", f"ended-by-{signal}", 8, folder=folder)
        until(caller.is_ready, 90, "the run is submitted")
        caller.signal(signal)
        caller.process.communicate(timeout=HUNG)
        until_over(caller.flow_run_id, seconds=90)
        assert ends(caller.flow_run_id) == ["Completed"]

    side_by_side(*(partial(ended, signal) for signal in ("TERM", "KILL")))
