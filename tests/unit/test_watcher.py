"""One query tells everybody; bad answers change nothing, and what is over stays over."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from hpc_bridge.errors import CommandError, HPCBridgeError, SchedulerUnavailable
from hpc_bridge.jobs import JobState, JobStatus
from tests.unit.watching import DEADLINE, GRACE, Site, job

# one query for all


def test_one_query_tells_two_hundred_jobs(site: Site) -> None:
    watched = [site.watch(number) for number in range(200)]
    site.queue = [job(number) for number in range(200)]
    assert site.poll()
    assert site.asked.qsize() == 1
    assert {one.latest.state for one in watched if one.latest} == {JobState.RUNNING}
    assert site.looked_up == []
    assert not any(one.done.done() for one in watched)


def test_two_hundred_jobs_that_left_are_looked_up_by_one_query(site: Site) -> None:
    watched = [site.watch(number) for number in range(200)]
    site.poll()
    site.records = [job(number, JobState.COMPLETED) for number in range(200)]
    site.poll()
    assert site.asked.qsize() == 2
    assert [len(jobs) for jobs, _ in site.looked_up] == [200] * len(site.looked_up)
    assert {one.done.result(0).state for one in watched} == {JobState.COMPLETED}


def test_the_future_gets_every_terminal_state(site: Site) -> None:
    states = [state for state in JobState if state.is_terminal]
    watched = [site.watch(number) for number, _ in enumerate(states)]
    site.queue = [job(number, state) for number, state in enumerate(states)]
    site.poll()
    assert [one.done.result(0) for one in watched] == site.queue


def test_the_future_waits_through_every_live_state(site: Site) -> None:
    watched = site.watch(1)
    for state in JobState:
        if not state.is_terminal:
            site.queue = [job(1, state)]
            site.poll(after=GRACE)
            assert watched.latest == job(1, state)
    assert not watched.done.done()


# bad answers


@pytest.mark.parametrize(
    "error",
    [SchedulerUnavailable("down"), CommandError("odd"), HPCBridgeError("any")],
)
def test_a_failed_query_changes_nothing(
    site: Site, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    watched = site.watch(1)
    site.queue = [job(1)]
    site.poll()
    site.queue = error
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            assert not site.poll(after=timedelta(hours=1))
    assert watched.latest == job(1)
    assert not watched.done.done()
    assert site.looked_up == []
    assert str(error) in caplog.text


def test_a_failure_between_two_absences_does_not_count_as_one(site: Site) -> None:
    watched = site.watch(1)
    site.poll()  # absent from here
    site.queue = SchedulerUnavailable("down")
    site.poll(after=GRACE * 2)
    assert not watched.done.done()


# what is over stays over


def test_a_terminal_state_never_changes(site: Site) -> None:
    watched = site.watch(1)
    site.queue = [job(1, JobState.FAILED)]
    site.poll()
    for state in (JobState.RUNNING, JobState.COMPLETED, JobState.LOST):
        site.queue = [job(1, state)]
        site.poll()
    assert watched.done.result(0).state is JobState.FAILED
    assert watched.latest == job(1, JobState.FAILED)


def test_the_status_is_handed_on_unchanged(site: Site) -> None:
    watched = site.watch(1)
    status = replace(job(1, JobState.CANCELLED), cancelled_by="1500", nodes="c1", exit_code=0)
    site.queue = [status]
    site.poll()
    assert watched.done.result(0) is status


# several watchers of one job


def test_those_who_watch_one_job_share_one_future(site: Site) -> None:
    first, second = site.watch(1), site.watch(1)
    assert first is second


def test_a_job_is_watched_until_the_last_one_forgets_it(site: Site) -> None:
    first, _second = site.watch(1), site.watch(1)
    site.watcher.forget(first)
    site.queue = [job(1)]
    site.poll()
    assert first.latest == job(1)
    site.watcher.forget(first)
    site.queue = [job(1, JobState.COMPLETED)]
    site.poll()
    assert not first.done.done()


def test_forgetting_a_job_that_is_over_is_no_error(site: Site) -> None:
    watched = site.watch(1)
    site.queue = [job(1, JobState.COMPLETED)]
    site.poll()
    site.watcher.forget(watched)
    assert watched.done.result(0).state is JobState.COMPLETED


def test_forgetting_a_job_that_is_over_leaves_its_later_watchers_alone(site: Site) -> None:
    """A caller that joins after the end begins a new watch of the same id and name."""
    old = site.watch(1)
    site.queue = [job(1, JobState.COMPLETED)]
    site.poll()
    new = site.watch(1)
    site.watcher.forget(old)
    site.poll()
    assert new.done.result(0).state is JobState.COMPLETED


def test_one_who_gives_up_waiting_leaves_the_others_waiting(site: Site) -> None:
    watched = site.watch(1)
    site.queue = [job(1, JobState.COMPLETED)]

    async def wait_for_both() -> JobStatus:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watched.over(), timeout=0)
        patient = asyncio.create_task(watched.over())
        await asyncio.to_thread(site.poll)
        return await asyncio.wait_for(patient, DEADLINE)

    assert asyncio.run(wait_for_both()).state is JobState.COMPLETED
