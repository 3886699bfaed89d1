"""One query tells everybody; bad answers and absences decide nothing too early."""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    HPCBridgeError,
    SchedulerUnavailable,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.watcher import Snapshot, WatchedJob, Watcher

START = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)
GRACE = timedelta(minutes=3)
NEVER = 3600.0
DEADLINE = 10.0


def job(number: int | str, state: JobState = JobState.RUNNING, name: str = "") -> JobStatus:
    return JobStatus(JobId(str(number)), name or f"hb{number}", state, state.value)


class Site:
    """A scheduler with a clock: what it would answer, and how often it was asked."""

    def __init__(self, *, interval: float = NEVER) -> None:
        self.now = START
        self.queue: list[JobStatus] | Exception = []
        self.complete = True
        self.records: list[JobStatus] | Exception = []
        self.asked: queue.Queue[float] = queue.Queue()
        self.newer_than: list[datetime | None] = []
        self.looked_up: list[tuple[set[str], datetime]] = []
        self.watcher = Watcher(
            self._ask,
            self._history,
            interval=interval,
            lost_after=GRACE,
            now=lambda: self.now,
        )
        self._watched: list[WatchedJob] = []

    def _ask(self, newer_than: datetime | None) -> Snapshot:
        self.newer_than.append(newer_than)
        self.asked.put(time.monotonic())
        if isinstance(self.queue, Exception):
            raise self.queue
        jobs = {status.job_id: status for status in self.queue}
        return Snapshot(self.now, jobs, complete=self.complete)

    def _history(self, jobs: Collection[JobId], since: datetime) -> Mapping[JobId, JobStatus]:
        self.looked_up.append(({job.value for job in jobs}, since))
        if isinstance(self.records, Exception):
            raise self.records
        return {status.job_id: status for status in self.records}

    def watch(
        self, number: int | str, name: str = "", *, submitted: datetime | None = None
    ) -> WatchedJob:
        name = name or f"hb{number}"
        watched = self.watcher.watch(JobId(str(number)), name, submitted=submitted)
        self._watched.append(watched)
        return watched

    def poll(self, after: timedelta = timedelta(seconds=30)) -> bool:
        self.now += after
        return self.watcher.poll()

    def close(self) -> None:
        for watched in self._watched:
            self.watcher.forget(watched)


@pytest.fixture
def site() -> Iterator[Site]:
    """Polled by hand: its thread sleeps."""
    site = Site()
    yield site
    site.close()


@pytest.fixture
def quick() -> Iterator[Site]:
    """Polled by its thread, all the time."""
    site = Site(interval=0.01)
    yield site
    site.close()


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "hpc-bridge-watcher"}


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


# absence


def test_a_job_not_yet_listed_is_not_looked_up(site: Site) -> None:
    """The answer was taken before the job was submitted."""
    watched = site.watch(1)
    site.now -= timedelta(seconds=1)
    assert site.watcher.poll()
    assert watched.absent_since is None
    assert site.looked_up == []


def test_a_job_that_left_the_queue_is_looked_up_in_the_records(site: Site) -> None:
    watched = site.watch(1)
    site.queue = [job(1)]
    site.poll()
    site.queue = []
    site.records = [job(1, JobState.TIMEOUT)]
    site.poll()
    assert watched.done.result(0).state is JobState.TIMEOUT
    ((jobs, since),) = site.looked_up
    assert jobs == {"1"}
    assert since <= START


def test_only_those_who_left_are_looked_up(site: Site) -> None:
    site.watch(1)
    site.watch(2)
    site.queue = [job(2)]
    site.poll()
    assert [jobs for jobs, _ in site.looked_up] == [{"1"}]


def test_a_job_that_nobody_knows_is_lost_after_the_grace_and_not_before(site: Site) -> None:
    watched = site.watch(1)
    site.poll()
    absent_since = site.now
    while site.now + timedelta(seconds=10) < absent_since + GRACE:
        site.poll(after=timedelta(seconds=10))
        assert not watched.done.done()
    site.poll(after=timedelta(seconds=10))
    lost = watched.done.result(0)
    assert (lost.state, lost.job_id, lost.name) == (JobState.LOST, JobId("1"), "hb1")
    assert lost.reason == "neither in the queue nor in its records"


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (SchedulerUnavailable("slurmdbd hangs"), "its records cannot be read"),
        ([job(1, JobState.RUNNING)], "its records say RUNNING"),
    ],
)
def test_records_that_never_tell_an_end_are_given_up_on(
    site: Site, records: Any, words: str
) -> None:
    watched = site.watch(1)
    site.records = records
    for _ in range(14):
        site.poll(after=timedelta(minutes=1))
        assert not watched.done.done()
    site.poll(after=timedelta(minutes=1))
    site.poll(after=timedelta(minutes=1))
    lost = watched.done.result(0)
    assert lost.state is JobState.LOST
    assert words in (lost.reason or "")


def test_a_job_that_comes_back_starts_a_new_grace(site: Site) -> None:
    watched = site.watch(1)
    for _ in range(5):
        site.queue = []
        site.poll(after=GRACE / 2)
        site.poll(after=GRACE / 4)
        site.queue = [job(1)]
        site.poll(after=GRACE)
    assert not watched.done.done()


def test_a_live_record_is_no_end(site: Site) -> None:
    """Accounting still says RUNNING a moment after the job left the queue."""
    watched = site.watch(1)
    site.records = [job(1, JobState.RUNNING)]
    for _ in range(20):
        site.poll()
    assert not watched.done.done()
    site.records = [job(1, JobState.COMPLETED)]
    site.poll()
    assert watched.done.result(0).state is JobState.COMPLETED


def test_a_job_whose_state_is_not_known_here_is_not_lost(site: Site) -> None:
    """Neither by the queue nor by the records: both know the job and name a new state."""
    watched = site.watch(1)
    site.records = UnexpectedOutput("job 1 is in state 'BANANA'", readable={})
    for _ in range(20):
        site.poll()
    assert not watched.done.done()


@pytest.mark.parametrize(
    "error", [SchedulerUnavailable("slurmdbd is down"), CommandError("slurmdbd is down")]
)
def test_records_that_cannot_be_read_do_not_lose_a_job(
    site: Site, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The accounting daemon is down for longer than the grace; the job ended well."""
    watched = site.watch(1)
    site.records = error
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            site.poll()
    assert "slurmdbd is down" in caplog.text
    assert not watched.done.done()


def test_a_site_without_accounting_has_no_records(site: Site) -> None:
    """There is no sacct: nothing more will ever be known of a job that is absent."""
    watched = site.watch(1)
    site.records = CommandNotFound("sacct: command not found", exit_code=127)
    site.poll()
    assert not watched.done.done()
    site.poll(after=GRACE)
    assert watched.done.result(0).state is JobState.LOST


def test_the_search_of_the_records_begins_before_the_oldest_submission(site: Site) -> None:
    site.watch(1)
    site.watch(2, submitted=START - timedelta(days=9))
    site.watch(3, submitted=START - timedelta(days=2))
    site.poll()
    ((jobs, since),) = site.looked_up
    assert jobs == {"1", "2", "3"}
    assert START - timedelta(days=10) < since < START - timedelta(days=9)


def test_the_readable_part_of_the_records_is_used(site: Site) -> None:
    one, two = site.watch(1), site.watch(2)
    readable = {JobId("1"): job(1, JobState.COMPLETED)}
    site.records = UnexpectedOutput("job 2 is in state 'BANANA'", readable=readable)
    site.poll()
    assert one.done.result(0).state is JobState.COMPLETED
    assert not two.done.done()


# a snapshot in which something could not be read


def test_an_incomplete_snapshot_judges_no_absence(site: Site) -> None:
    one, two = site.watch(1), site.watch(2)
    site.queue, site.complete = [job(2, JobState.COMPLETED)], False
    for _ in range(20):
        site.poll()
    assert two.done.result(0).state is JobState.COMPLETED
    assert (one.absent_since, one.done.done(), site.looked_up) == (None, False, [])


def test_an_absence_does_not_become_a_loss_by_an_incomplete_snapshot(site: Site) -> None:
    """It is back in the queue, in a state that is not known here."""
    watched = site.watch(1)
    site.poll()
    site.complete = False
    site.poll(after=GRACE)
    assert not watched.done.done()


# who cancelled


def test_who_cancelled_is_looked_up_in_the_records(site: Site) -> None:
    watched, _other = site.watch(1), site.watch(2)
    by = replace(job(1, JobState.CANCELLED), cancelled_by="1500")
    site.queue, site.records = [job(1, JobState.CANCELLED), job(2)], [by]
    site.poll()
    assert watched.done.result(0) is by
    assert [jobs for jobs, _ in site.looked_up] == [{"1"}]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [job(1, JobState.RUNNING)],
        [job(1, JobState.COMPLETED, "hbtheirs")],
        SchedulerUnavailable("slurmdbd is down"),
        CommandNotFound("sacct: command not found"),
        UnexpectedOutput("job 7 is in state 'BANANA'", readable={}),
    ],
)
def test_a_cancelled_job_is_over_whether_the_records_know_by_whom_or_not(
    site: Site, records: list[JobStatus] | Exception
) -> None:
    watched = site.watch(1)
    site.queue, site.records = [job(1, JobState.CANCELLED)], records
    site.poll()
    assert watched.done.result(0) == job(1, JobState.CANCELLED)
    site.poll()
    assert len(site.looked_up) == 1


# ids that come again


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.COMPLETED])
def test_another_job_with_the_same_id_is_not_ours(site: Site, state: JobState) -> None:
    watched = site.watch(1, "hbours")
    site.queue = [job(1, state, "hbtheirs")]
    site.records = [job(1, state, "hbtheirs")]
    site.poll()
    assert (watched.latest, watched.done.done()) == (None, False)
    site.poll(after=GRACE)
    assert watched.done.result(0).state is JobState.LOST


def test_two_jobs_with_the_same_id_are_told_apart_by_name(site: Site) -> None:
    old, new = site.watch(1, "hbold"), site.watch(1, "hbnew")
    site.queue = [job(1, JobState.COMPLETED, "hbnew")]
    site.poll()
    assert new.done.result(0).name == "hbnew"
    assert not old.done.done()


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
