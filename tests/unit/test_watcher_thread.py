"""The watcher's thread: when it asks, and who is in a hurry."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from hpc_bridge.errors import SchedulerUnavailable
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.watcher import Snapshot, Watcher
from tests.unit.watching import DEADLINE, NEVER, START, Site, job


@pytest.fixture
def quick() -> Iterator[Site]:
    """Polled by its thread, all the time."""
    site = Site(interval=0.01)
    yield site
    site.close()


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "hpc-bridge-watcher"}


# by its own thread


def test_the_thread_asks_until_the_job_is_over(quick: Site) -> None:
    quick.queue = [job(1)]
    watched = quick.watch(1)
    for _ in range(3):
        quick.asked.get(timeout=DEADLINE)
    assert not watched.done.done()
    quick.queue = [job(1, JobState.FAILED)]
    assert watched.done.result(DEADLINE).state is JobState.FAILED


def test_nothing_is_asked_when_no_job_is_live(quick: Site) -> None:
    before = threads()
    quick.queue = [job(1, JobState.COMPLETED)]
    watched = quick.watch(1)
    (thread,) = threads() - before
    watched.done.result(DEADLINE)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert quick.asked.qsize() == 1


def test_watching_begins_again_after_a_rest(quick: Site) -> None:
    for number in (1, 2, 3):
        before = threads()
        quick.queue = [job(number, JobState.COMPLETED)]
        watched = quick.watch(number)
        assert watched.done.result(DEADLINE).state is JobState.COMPLETED
        for thread in threads() - before:
            thread.join(DEADLINE)


def test_a_forgotten_job_ends_the_thread_at_once(site: Site) -> None:
    before = threads()
    watched = site.watch(1)
    (thread,) = threads() - before
    site.watcher.forget(watched)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert site.asked.empty()


def test_all_jobs_of_one_cluster_share_one_thread(site: Site) -> None:
    before = threads()
    for number in range(50):
        site.watch(number)
    assert len(threads() - before) == 1


def test_repeated_failures_lengthen_the_pause(quick: Site) -> None:
    quick.queue = SchedulerUnavailable("down")
    quick.watch(1)
    times = [quick.asked.get(timeout=DEADLINE) for _ in range(5)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(pause >= 0.01 * 2**failures for failures, pause in enumerate(pauses, start=1))


def test_an_answer_after_failures_is_heard(quick: Site) -> None:
    quick.queue = SchedulerUnavailable("down")
    watched = quick.watch(1)
    for _ in range(3):
        quick.asked.get(timeout=DEADLINE)
    quick.queue = [job(1, JobState.COMPLETED)]
    assert watched.done.result(DEADLINE).state is JobState.COMPLETED


def test_an_outage_of_any_length_ends_with_the_next_answer() -> None:
    """A factor that doubled for ever would be too large for a pause one day."""
    site = Site(interval=1e-9)
    site.queue = SchedulerUnavailable("down")
    watched = site.watch(1)
    for _ in range(1100):
        site.asked.get(timeout=DEADLINE)
    site.queue = [job(1, JobState.COMPLETED)]
    assert watched.done.result(DEADLINE).state is JobState.COMPLETED
    site.close()


@pytest.mark.parametrize("where", ["queue", "records"])
def test_the_thread_survives_an_error_that_nobody_thought_of(quick: Site, where: str) -> None:
    """A full /tmp under the shared answer, a damaged file: everybody would wait for ever."""
    setattr(quick, where, OSError(28, "No space left on device"))
    watched = quick.watch(1)
    quick.asked.get(timeout=DEADLINE)
    quick.now += timedelta(seconds=1)
    quick.asked.get(timeout=DEADLINE)
    quick.queue = [job(1, JobState.COMPLETED)]
    assert watched.done.result(DEADLINE).state is JobState.COMPLETED


# in a hurry


def test_who_is_in_a_hurry_does_not_wait_for_the_interval(site: Site) -> None:
    watched = site.watch(1)
    site.queue = [job(1, JobState.COMPLETED)]
    site.watcher.hurry()
    assert watched.done.result(DEADLINE).state is JobState.COMPLETED
    assert site.newer_than == [START]


def test_an_answer_without_hurry_may_be_of_any_age(quick: Site) -> None:
    quick.queue = [job(1)]
    quick.watch(1)
    quick.asked.get(timeout=DEADLINE)
    quick.now = START + timedelta(seconds=5)
    quick.watcher.hurry()
    for _ in range(3):
        quick.asked.get(timeout=DEADLINE)
    assert quick.newer_than[0] is None
    assert quick.newer_than.count(START + timedelta(seconds=5)) == 1
    assert quick.newer_than[-1] is None


def test_however_many_hurry_it_asks_at_most_ten_times_as_often() -> None:
    interval = 2.0
    site = Site(interval=interval)
    site.queue = [job(1)]
    site.watch(1)
    times = []
    for _ in range(4):
        for _ in range(100):
            site.watcher.hurry()
        times.append(site.asked.get(timeout=DEADLINE))
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(interval / 10 * 0.8 <= pause < interval for pause in pauses), pauses
    site.close()


def test_a_hurry_during_a_question_is_answered_by_the_next_one() -> None:
    site = Site(interval=NEVER)
    asking, go_on = threading.Event(), threading.Event()
    newer_than: list[datetime | None] = []

    def slow(moment: datetime | None) -> Snapshot:
        newer_than.append(moment)
        asking.set()
        assert go_on.wait(DEADLINE)
        state = JobState.RUNNING if len(newer_than) == 1 else JobState.COMPLETED
        return Snapshot(site.now, {JobId("1"): job(1, state)})

    site.watcher = Watcher(slow, site._history, interval=1.0, now=lambda: site.now)
    watched = site.watch(1)
    site.watcher.hurry()
    assert asking.wait(DEADLINE)
    site.now = START + timedelta(seconds=1)
    site.watcher.hurry()
    go_on.set()
    assert watched.done.result(DEADLINE).state is JobState.COMPLETED
    assert newer_than == [START, START + timedelta(seconds=1)]
    site.close()


def test_a_scheduler_that_does_not_answer_is_not_hurried() -> None:
    site = Site(interval=0.2)
    site.queue = SchedulerUnavailable("down")
    site.watch(1)
    first = site.asked.get(timeout=DEADLINE)
    site.watcher.hurry()
    second = site.asked.get(timeout=DEADLINE)
    assert second - first >= 0.4
    site.close()


def test_a_hurry_for_no_job_asks_nothing(site: Site) -> None:
    site.watcher.hurry()
    assert site.asked.empty()
