"""A flow run goes on in one new submission after its walltime."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import states
from prefect.client.schemas.objects import State

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.node.records import ExitRecord, write_exit_record
from hpc_bridge.tracking.claims import Claims, claims_on
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.keeper import Keeper
from hpc_bridge.tracking.tracker import Tracker
from tests.unit.continuing import (
    RESUBMITTING,
    TIMEOUT,
    WALLTIME,
    Killed,
    Server,
    a_job,
    go_on,
    submissions,
)
from tests.unit.fake_cluster import FakeCluster
from tests.unit.folders import element_folder

FAILED = JobStatus(JobId("7"), "hb", JobState.FAILED, "FAILED")
NODE_FAIL = JobStatus(JobId("7"), "hb", JobState.NODE_FAIL, "NODE_FAIL")
CANCELLED = JobStatus(JobId("7"), "hb", JobState.CANCELLED, "CANCELLED")


def exit_record(job: TrackedJob, **what: Any) -> None:
    folder = element_folder(job.run, job.element) / "0"
    folder.mkdir()
    write_exit_record(folder / "exit.json", ExitRecord(**what))


# it goes on


@pytest.mark.parametrize(
    "state",
    [RESUBMITTING, WALLTIME, states.Running(), states.Crashed(name="Killed")],
    ids=lambda state: state.name,
)
def test_a_run_goes_on_in_a_job_of_its_own(
    shared: Path, cluster: FakeCluster, state: State[Any]
) -> None:
    job, server = a_job(shared), Server(state)
    following = go_on(server, job)
    assert following is not None
    assert following.flow_run_id == job.flow_run_id
    assert (following.job_id, following.element) == (JobId("100"), 0)
    assert following.run != job.run
    assert following.spec is not None
    assert following.spec.name == following.run.submission_id
    assert cluster.scripts == [f"#!/bin/sh\n#SBATCH --job-name={following.run.submission_id}\n"]
    said_already = state.is_pending()
    assert server.history == (["Queued"] if said_already else ["Resubmitting", "Queued"])
    assert server.state is not None
    assert server.state.message == (
        "Slurm job 100 is in the queue. Resubmission 1 of at most 3 after the walltime."
    )
    assert server.infrastructure_pid == f"slurm:100:{following.run.submission_id}"
    assert job.run.settled() == {"format": 2, "continued": following.run.submission_id}
    journal = following.run.read_submission()
    assert (journal["continues"], journal["resubmissions"]) == (job.run.submission_id, 1)
    live = {path.name for path in (shared / "live").iterdir()}
    assert live == {following.run.submission_id}
    assert claims_on(shared).held([following.run])


def test_the_run_waits_before_the_new_job_can_look_at_it(
    shared: Path, cluster: FakeCluster
) -> None:
    """A job that finds its run crashed does not run it."""
    job, server = a_job(shared), Server(WALLTIME)
    seen: list[str | None] = []
    cluster.step = lambda _: seen.append(server.state and server.state.name)
    go_on(server, job)
    assert seen == ["Resubmitting", "Resubmitting"]


def test_a_job_that_runs_already_is_not_said_to_wait(shared: Path, cluster: FakeCluster) -> None:
    job, server = a_job(shared), Server(WALLTIME)

    def started(when: str) -> None:
        if when == "after the submission":
            server.state = states.Running()

    cluster.step = started
    assert go_on(server, job) is not None
    assert server.history == ["Resubmitting"]
    assert server.state is not None
    assert server.state.is_running()


def test_the_slot_of_the_deployment_is_kept(shared: Path, cluster: FakeCluster) -> None:
    lease = uuid4()
    before = states.Running()
    before.state_details.deployment_concurrency_lease_id = lease
    server = Server(before)
    go_on(server, a_job(shared))
    assert server.state is not None
    assert server.state.state_details.deployment_concurrency_lease_id == lease


def test_one_element_of_an_array_goes_on_and_leaves_the_others_alone(
    shared: Path, cluster: FakeCluster
) -> None:
    job = a_job(shared, elements=3, element=1)
    following = go_on(Server(RESUBMITTING), job)
    assert following is not None
    assert following.run.read_submission()["flow_runs"] == {"0": str(job.flow_run_id)}
    assert [job.run.settled(element) is None for element in range(3)] == [True, False, True]
    assert not Claims(shared).take(job.run), "the others are still looked after here"


def test_who_follows_a_run_keeps_both_of_its_submissions(
    shared: Path, cluster: FakeCluster
) -> None:
    """Or the worker would adopt the new one beside its own."""
    server, job = Server(WALLTIME), a_job(shared)
    keeper = Keeper(server)  # type: ignore[arg-type]
    tracker = Tracker(keeper, job)
    keeper._trackers[job.run.submission_id, 0] = tracker
    following = go_on(server, job)
    assert following is not None
    assert not keeper.keeps(following.run.submission_id)
    tracker._begin(following)
    assert keeper.keeps(following.run.submission_id)
    assert keeper.keeps(job.run.submission_id)


# whether it does


@pytest.mark.parametrize(
    ("status", "record", "state"),
    [
        (TIMEOUT, None, states.Running()),
        (TIMEOUT, ExitRecord(exit_code=143), states.Running()),
        (FAILED, ExitRecord(cause="WalltimeExceeded"), WALLTIME),
        (FAILED, ExitRecord(cause="WalltimeExceeded"), RESUBMITTING),
        (NODE_FAIL, None, RESUBMITTING),
    ],
)
def test_either_record_or_the_run_itself_says_that_the_walltime_was_the_cause(
    shared: Path,
    cluster: FakeCluster,
    status: JobStatus,
    record: ExitRecord | None,
    state: State[Any],
) -> None:
    job = a_job(shared)
    if record is not None:
        exit_record(job, exit_code=record.exit_code, cause=record.cause)
    assert go_on(Server(state), job, status) is not None


@pytest.mark.parametrize(
    ("status", "cause", "state"),
    [
        (FAILED, "", states.Running()),
        (FAILED, "OutOfMemory", states.Crashed(name="Killed")),
        (NODE_FAIL, "", states.Running()),
        (CANCELLED, "", RESUBMITTING),
    ],
)
def test_another_end_is_the_runs(
    shared: Path, cluster: FakeCluster, status: JobStatus, cause: str, state: State[Any]
) -> None:
    job, server = a_job(shared), Server(state)
    exit_record(job, exit_code=1, cause=cause)
    assert go_on(server, job, status) is None
    assert (server.history, cluster.scripts, submissions(shared)) == ([], [], 1)


def test_a_run_that_did_not_ask_for_it_does_not_go_on(shared: Path, cluster: FakeCluster) -> None:
    job = a_job(shared, on_walltime="end")
    assert go_on(Server(WALLTIME), job) is None
    assert cluster.scripts == []


@pytest.mark.parametrize(("earlier", "goes_on"), [(0, True), (2, True), (3, False), (4, False)])
def test_a_run_goes_on_as_often_as_it_may(
    shared: Path, cluster: FakeCluster, earlier: int, goes_on: bool
) -> None:
    server = Server(WALLTIME)
    following = go_on(server, a_job(shared, earlier=earlier))
    assert (following is not None, len(cluster.scripts)) == (goes_on, goes_on)
    if following is not None:
        assert following.run.read_submission()["resubmissions"] == earlier + 1
        assert server.state is not None
        assert f"Resubmission {earlier + 1} of at most 3" in (server.state.message or "")


DECIDED: list[State[Any]] = [
    states.Completed(),
    states.Failed(),
    states.Cancelled(),
    states.Cancelling(),
    states.Crashed(name="OutOfMemory", message="Job 7 ..."),
    states.Scheduled(),
    states.AwaitingRetry(),
    states.Paused(),
    states.Pending(name="Queued"),
]


@pytest.mark.parametrize("state", [*DECIDED, None], ids=lambda state: state and state.name)
def test_a_run_about_which_something_else_has_decided_does_not_go_on(
    shared: Path, cluster: FakeCluster, state: State[Any] | None
) -> None:
    job, server = a_job(shared), Server(state)
    assert go_on(server, job) is None
    assert (server.history, cluster.scripts, submissions(shared)) == ([], [], 1)
    assert job.run.settled() is None


@pytest.mark.parametrize("state", DECIDED, ids=lambda state: state.name)
def test_a_run_that_was_decided_about_after_a_crash_does_not_go_on(
    shared: Path, cluster: FakeCluster, state: State[Any]
) -> None:
    """The new submission was noted, and nothing more."""
    job, server = a_job(shared), Server(WALLTIME)

    def killed(when: str) -> None:
        if when == "before a state is set":
            raise Killed

    server.step = killed
    with pytest.raises(Killed):
        go_on(server, job)
    server.step, server.state = lambda _: None, state
    assert go_on(server, job) is None
    assert (server.state, cluster.scripts, submissions(shared)) == (state, [], 1)
