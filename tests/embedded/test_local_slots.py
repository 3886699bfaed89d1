"""Slots of the embedded scheduler, and the order in which its jobs start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hpc_bridge.jobs import JobState
from tests.embedded.local_site import GATED, Site, until


def test_never_more_jobs_at_once_than_cpus(site: Site) -> None:
    both = "until [ $(grep -c + log) -ge 2 ]; do sleep 0.01; done"
    body = f"echo + >> log; {both}; sleep 0.05; echo - >> log"
    for job in [site.submit(body) for _ in range(8)]:
        site.end(job)
    running = [0]
    for line in (site.work / "log").read_text().split():
        running.append(running[-1] + (1 if line == "+" else -1))
    assert max(running) == 2
    assert running[-1] == 0
    assert len(running) == 17


@pytest.mark.parametrize("site", [1], indirect=True)
def test_jobs_start_in_the_order_in_which_they_came(site: Site) -> None:
    blocker = site.submit(GATED)
    jobs = [site.submit(f"echo {number} >> log") for number in range(12)]
    site.wait(blocker, JobState.RUNNING)
    site.open_gate()
    for job in jobs:
        site.end(job)
    assert (site.work / "log").read_text().split() == [str(number) for number in range(12)]


def test_a_small_job_does_not_overtake_a_large_one(site: Site) -> None:
    small = site.submit(GATED)
    large = site.submit("echo large >> log", "-c", "2")
    last = site.submit("echo last >> log")
    site.wait(small, JobState.RUNNING)
    until(lambda: site.status(large).reason == "Resources", "the large job to be first")
    until(lambda: site.status(last).reason == "Priority", "the last job to wait behind it")
    site.open_gate()
    site.end(last)
    assert (site.work / "log").read_text().split() == ["large", "last"]


def test_a_waiting_job_that_is_cancelled_lets_the_others_pass(site: Site) -> None:
    blocker = site.submit(GATED, "-c2")
    jobs = [site.submit("true", "-c2") for _ in range(3)]
    site.wait(blocker, JobState.RUNNING)
    site.cancel(jobs[1])
    site.open_gate()
    assert [site.end(job).state for job in jobs] == [
        JobState.COMPLETED,
        JobState.CANCELLED,
        JobState.COMPLETED,
    ]


def test_a_held_job_waits_for_its_release(site: Site) -> None:
    job = site.submit("true", "--hold", "--job-name=held")
    later = site.submit("true")
    assert site.status(job).state is JobState.HELD
    assert site.end(later).state is JobState.COMPLETED
    assert site.command("release", job.value).exit_code == 0
    assert site.end(job).state is JobState.COMPLETED


def test_a_waiting_job_can_be_held(site: Site) -> None:
    blocker = site.submit(GATED, "-c2")
    job = site.submit("true")
    later = site.submit("true")
    site.wait(blocker, JobState.RUNNING)
    assert site.command("hold", job.value).exit_code == 0
    site.wait(job, JobState.HELD)
    site.open_gate()
    assert site.end(later).state is JobState.COMPLETED
    assert site.status(job).state is JobState.HELD
    assert site.command("release", job.value).exit_code == 0
    assert site.end(job).state is JobState.COMPLETED


def test_a_job_begins_when_it_was_asked_to(site: Site) -> None:
    job = site.submit("true", "--begin=now+1", "--time=60-0")
    later = site.submit("true")
    waiting = site.wait(job, JobState.PENDING)
    assert waiting.estimated_start is not None
    assert waiting.estimated_start > datetime.now(UTC)
    assert site.end(later).state is JobState.COMPLETED
    ended = site.end(job)
    assert ended.started is not None
    assert ended.started >= waiting.estimated_start - timedelta(milliseconds=1)
