"""Submissions that nobody looks after are taken over, and none is submitted twice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hpc_bridge.errors import (
    CommandNotFound,
    HPCBridgeError,
    SchedulerUnavailable,
    SharedDirectoryError,
    SubmissionRefused,
)
from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus
from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.tracking.adoption import Orphan, find_jobs, index_older_runs, orphans
from hpc_bridge.tracking.claims import Claims, claims_on
from hpc_bridge.tracking.job import TrackedJob
from tests.unit.fake_cluster import FakeCluster, connected

HOUR = 3600.0


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return prepare_shared_directory(tmp_path / "shared")


@pytest.fixture
def cluster(shared: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    return connected(shared, monkeypatch)


@pytest.fixture
def owner(shared: Path) -> Iterator[Claims]:
    """Another process, which lives."""
    owner = Claims(shared)
    yield owner
    owner.end()


def a_run(
    shared: Path,
    *,
    age: float = HOUR,
    elements: int = 1,
    journal: bool = True,
    **what: Any,
) -> RunDirectory:
    """A submission whose process was killed before it noted the job's id."""
    run = RunDirectory.create(shared, new_submission_id(time.time() - age))
    run.write("job.sh", b"#!/bin/sh\n")
    if journal:
        run.write_submission(
            {
                "submission": run.submission_id,
                "flow_runs": {str(element): str(uuid4()) for element in range(elements)},
                "work_pool": "pool",
                "scheduler": "slurm",
                "spec": JobSpec(name=run.submission_id).model_dump(mode="json"),
            }
            | what
        )
    return run


def attempt(run: RunDirectory, element: int = 0, *, job: str | None = None) -> None:
    folder = run.element(element) / "0"
    folder.mkdir()
    if job is not None:
        (folder / "job").write_text(f"{job}\n")


def status(run: RunDirectory, job_id: str, state: JobState = JobState.RUNNING) -> JobStatus:
    return JobStatus(JobId(job_id), run.submission_id, state, state.value)


def found(shared: Path, wanted: bool = True) -> list[RunDirectory]:
    return [orphan.run for orphan in orphans(shared, lambda *_: wanted)]


def adopted(run: RunDirectory, **options: Any) -> list[TrackedJob] | None:
    """As by whoever has just claimed it."""
    return find_jobs(Orphan(run, run.read_submission()), **options)


def ids(jobs: list[TrackedJob] | None) -> list[str]:
    assert jobs is not None
    return [job.job_id.value for job in jobs]


# which are taken over


def test_live_submissions_that_nobody_looks_after_are_claimed(shared: Path) -> None:
    runs = sorted((a_run(shared) for _ in range(3)), key=lambda run: run.submission_id)
    assert found(shared) == runs
    assert all(claims_on(shared).holds(run) for run in runs)


def test_a_submission_that_is_over_is_left(shared: Path) -> None:
    over, partly = a_run(shared), a_run(shared, elements=2)
    over.settle(0)
    partly.settle(1)
    assert found(shared) == [partly]


def test_what_a_living_process_looks_after_is_left_until_it_ends(
    shared: Path, owner: Claims
) -> None:
    run = a_run(shared)
    owner.take(run)
    assert found(shared) == []
    owner.end()
    assert found(shared) == [run]


def test_what_is_not_wanted_is_not_claimed(shared: Path, owner: Claims) -> None:
    run = a_run(shared)
    asked: list[tuple[str, dict[str, Any]]] = []

    def wanted(name: str, submission: dict[str, Any]) -> bool:
        asked.append((name, submission))
        return False

    assert list(orphans(shared, wanted)) == []
    assert asked == [(run.submission_id, run.read_submission())]
    assert owner.take(run)


def test_a_newer_format_is_left_alone_and_said(
    shared: Path, owner: Claims, caplog: pytest.LogCaptureFixture
) -> None:
    run = a_run(shared, format=3)
    assert found(shared) == []
    assert f"{run.path} was written by a newer version" in caplog.text
    assert owner.take(run)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'{"format": 2}'])
def test_a_damaged_journal_hides_no_other(
    shared: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    damaged, run = a_run(shared, age=2 * HOUR), a_run(shared)
    damaged.write("submission.json", content)
    assert found(shared) == [run]
    assert str(damaged.path) in caplog.text


def test_a_submission_that_is_just_being_written_is_left(shared: Path) -> None:
    run = a_run(shared, age=60, journal=False)
    assert found(shared) == []
    run.write_submission({"flow_runs": {"0": str(uuid4())}})
    assert found(shared) == [run]


def test_a_submission_that_was_never_written_is_forgotten_after_an_hour(shared: Path) -> None:
    run = a_run(shared, age=HOUR + 10, journal=False)
    assert found(shared) == []
    assert not (shared / "live" / run.submission_id).exists()


def test_strange_files_in_the_index_are_no_submissions(shared: Path) -> None:
    for name in (".nfs0001", "notes.txt", "hb"):
        (shared / "live" / name).write_text("")
    assert found(shared) == []


def test_without_an_index_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_a_resubmission_is_left_to_who_looks_after_the_job_before(
    shared: Path, owner: Claims
) -> None:
    """Whose end is not told yet: following that one leads to it."""
    before = a_run(shared, elements=2)
    flow_run = before.read_submission()["flow_runs"]["1"]
    after = a_run(shared, age=60, continues=before.submission_id, flow_runs={"0": flow_run})
    assert found(shared) == [before]
    before.settle(1, continued=after.submission_id)
    claims_on(shared).release(before)
    assert found(shared) == [before, after]


def test_a_resubmission_whose_job_before_was_cleared_away_is_taken_over(shared: Path) -> None:
    after = a_run(shared, continues="hbaaaaaaaaaaaaa")
    assert found(shared) == [after]


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


# runs of the first version


def of_format_1(shared: Path, **what: Any) -> RunDirectory:
    run = a_run(shared, format=1, **what)
    run.close()
    return run


def test_runs_of_the_first_version_are_found_once(shared: Path) -> None:
    run, newer = of_format_1(shared, job_id="7"), a_run(shared)
    newer.settle(0)
    assert index_older_runs(shared) == 1
    assert index_older_runs(shared) == 0
    assert found(shared) == [run]
    run.settle(0)
    assert index_older_runs(shared) == 0
    assert found(shared) == []


def test_a_run_of_the_first_version_is_adopted(shared: Path, cluster: FakeCluster) -> None:
    run = of_format_1(shared, job_id="7")
    index_older_runs(shared)
    assert ids(adopted(run)) == ["7"]
    unnoted = of_format_1(shared)
    cluster.queue = [status(unnoted, "8")]
    assert ids(adopted(unnoted)) == ["8"]
    assert unnoted.read_submission()["format"] == 1


def test_a_submission_of_the_first_version_that_was_refused_is_not_made_now(
    shared: Path, cluster: FakeCluster
) -> None:
    """That version left the same files for what was refused and what was killed."""
    run = of_format_1(shared)
    assert adopted(run) == []
    assert cluster.scripts == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", None])
def test_a_run_of_the_first_version_that_was_never_complete_is_left(
    shared: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    run = of_format_1(shared)
    if content is None:
        (run.path / "submission.json").unlink()
    else:
        run.write("submission.json", content)
    with caplog.at_level(logging.WARNING):
        assert index_older_runs(shared) == 0
    assert caplog.text == ""


def test_an_index_is_made_where_the_first_version_had_none(shared: Path) -> None:
    run = of_format_1(shared, job_id="7")
    (shared / "live").rmdir()
    assert index_older_runs(shared) == 1
    assert json.loads((run.path / "submission.json").read_bytes())["format"] == 1
    assert (shared / "live" / run.submission_id).stat().st_mode & 0o777 == 0o600
