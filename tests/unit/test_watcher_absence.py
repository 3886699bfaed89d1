"""Jobs that left the queue: the records tell their end, and none is lost too early."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hpc_bridge.errors import CommandError, CommandNotFound, SchedulerUnavailable, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus
from tests.unit.watching import GRACE, START, Site, job

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


def test_a_job_whose_own_record_tells_its_end_is_over_once_it_has_left_the_queue(
    site: Site,
) -> None:
    watched = site.watch(1)
    site.queue = [job(1)]
    site.poll()
    site.watcher.conclude(watched)
    assert not watched.done.done()
    site.queue = []
    site.poll()
    site.watcher.conclude(watched)
    assert watched.done.result(0).state is JobState.LOST
    assert watched.done.result(0).reason == "not in the queue"


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
