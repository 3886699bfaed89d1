"""Jobs of submissions that were taken over are found, and none is submitted twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_bridge.errors import (
    CommandNotFound,
    HPCBridgeError,
    SchedulerUnavailable,
    SharedDirectoryError,
    SubmissionRefused,
)
from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.adoption import Orphan, find_jobs
from tests.unit.fake_cluster import FakeCluster
from tests.unit.orphaned_runs import HOUR, a_run, adopted, attempt, ids, status

# their jobs


def test_a_job_that_was_noted_is_asked_of_nobody(shared: Path, cluster: FakeCluster) -> None:
    run = a_run(shared, job_id="7")
    (job,) = adopted(run) or []
    assert (job.run, job.element, job.job_id, job.scheduler) == (run, 0, JobId("7"), "slurm")
    assert str(job.flow_run_id) == run.read_submission()["flow_runs"]["0"]
    assert job.spec == JobSpec(name=run.submission_id)
    assert (cluster.asked, cluster.scripts) == ([], [])


@pytest.mark.parametrize("age", [0, HOUR])
def test_a_job_is_found_by_its_name_in_the_queue(
    shared: Path, cluster: FakeCluster, age: float
) -> None:
    run, other = a_run(shared, age=age), a_run(shared)
    cluster.queue = [status(other, "8"), status(run, "7")]
    assert ids(adopted(run)) == ["7"]
    assert run.read_submission()["job_id"] == "7"
    assert (cluster.asked, cluster.scripts) == (["queue"], [])
    assert ids(adopted(run)) == ["7"]
    assert cluster.asked == ["queue"]


@pytest.mark.parametrize("age", [0, HOUR])
def test_a_job_that_has_ended_is_found_in_the_records(
    shared: Path, cluster: FakeCluster, age: float
) -> None:
    run = a_run(shared, age=age)
    cluster.records = [status(run, "7", JobState.COMPLETED)]
    assert ids(adopted(run)) == ["7"]
    assert run.read_submission()["job_id"] == "7"
    assert cluster.scripts == []


def test_a_job_that_has_claimed_its_flow_run_is_known_without_the_records(
    shared: Path, cluster: FakeCluster
) -> None:
    """Accounting is hung, or there is none."""
    run = a_run(shared)
    attempt(run, job="7")
    cluster.records = SchedulerUnavailable("slurmdbd is down")
    assert ids(adopted(run)) == ["7"]
    assert run.read_submission()["job_id"] == "7"
    assert cluster.scripts == []


def test_a_job_that_ran_but_is_not_known_anywhere_is_not_submitted_again(
    shared: Path, cluster: FakeCluster
) -> None:
    run = a_run(shared)
    attempt(run)
    for _ in range(3):
        with pytest.raises(HPCBridgeError, match="has run, but the scheduler knows no such job"):
            adopted(run)
    assert cluster.scripts == []


@pytest.mark.parametrize(
    "error", [SchedulerUnavailable("slurmdbd is down"), HPCBridgeError("sacct failed")]
)
def test_while_the_records_cannot_be_read_nothing_is_submitted(
    shared: Path, cluster: FakeCluster, error: HPCBridgeError
) -> None:
    run = a_run(shared)
    cluster.records = error
    with pytest.raises(HPCBridgeError, match=str(error)):
        adopted(run)
    assert cluster.scripts == []


# those that were never submitted


def test_a_submission_may_still_be_on_its_way(shared: Path, cluster: FakeCluster) -> None:
    run = a_run(shared, age=5)
    assert adopted(run) is None
    assert cluster.scripts == []
    cluster.queue = [status(run, "7")]
    assert ids(adopted(run)) == ["7"]


@pytest.mark.parametrize("records", [[], CommandNotFound("sacct: command not found")])
def test_what_was_never_submitted_is_submitted_once(
    shared: Path, cluster: FakeCluster, records: list[JobStatus] | Exception
) -> None:
    run = a_run(shared, age=0)
    orphan = Orphan(run, run.read_submission())
    cluster.records = records
    now = datetime.now(UTC)
    assert find_jobs(orphan, now=lambda: now) is None
    later = now + timedelta(seconds=30)
    for _ in range(3):
        assert ids(find_jobs(orphan, now=lambda: later)) == ["100"]
    assert cluster.scripts == ["#!/bin/sh\n"]
    assert run.read_submission()["job_id"] == "100"


def test_a_submission_that_could_not_be_noted_is_not_repeated(
    shared: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared directory is full."""
    run = a_run(shared)

    def full(*_: object) -> None:
        raise SharedDirectoryError("the shared directory is full")

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write", full)
        for _ in range(3):
            assert adopted(run) is None
    assert ids(adopted(run)) == ["100"]
    assert len(cluster.scripts) == 1


def test_what_the_scheduler_does_not_take_now_is_tried_again(
    shared: Path, cluster: FakeCluster
) -> None:
    run = a_run(shared)
    cluster.refusal = SchedulerUnavailable("down")
    with pytest.raises(SchedulerUnavailable):
        adopted(run)
    cluster.refusal = None
    assert ids(adopted(run)) == ["100"]


def test_a_refusal_is_raised_with_the_schedulers_words(shared: Path, cluster: FakeCluster) -> None:
    run = a_run(shared)
    cluster.refusal = SubmissionRefused("Invalid account")
    with pytest.raises(SubmissionRefused, match="Invalid account"):
        adopted(run)


# arrays


def test_the_elements_of_an_array_are_jobs_of_their_own(shared: Path, cluster: FakeCluster) -> None:
    run = a_run(shared, elements=4)
    cluster.queue = [
        replace(status(run, f"7_{element}"), name=run.submission_id) for element in (2, 3)
    ]
    run.settle(1)
    jobs = adopted(run)
    assert jobs is not None
    assert [(job.element, job.job_id.value) for job in jobs] == [(0, "7_0"), (2, "7_2"), (3, "7_3")]
    flow_runs = run.read_submission()["flow_runs"]
    assert [str(job.flow_run_id) for job in jobs] == [flow_runs[name] for name in ("0", "2", "3")]
    assert run.read_submission()["job_id"] == "7"


def test_one_element_that_has_claimed_its_flow_run_tells_the_array(
    shared: Path, cluster: FakeCluster
) -> None:
    run = a_run(shared, elements=3)
    attempt(run, 2, job="7_2")
    assert ids(adopted(run)) == ["7_0", "7_1", "7_2"]


def test_an_array_that_was_never_submitted_is_submitted_as_one(
    shared: Path, cluster: FakeCluster
) -> None:
    run = a_run(shared, elements=3)
    assert ids(adopted(run)) == ["100_0", "100_1", "100_2"]
    assert len(cluster.scripts) == 1
