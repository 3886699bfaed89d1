"""A flow run goes on in one new submission after its walltime, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import states
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
)

from hpc_bridge.connections import connect
from hpc_bridge.errors import SchedulerUnavailable, SharedDirectoryError, SubmissionRefused
from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus
from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.node.records import WARNED, ExitRecord, write_exit_record
from hpc_bridge.tracking.claims import Claims, claims_on
from hpc_bridge.tracking.continuation import continuation
from hpc_bridge.tracking.job import TrackedJob, tracked_jobs
from hpc_bridge.tracking.keeper import Keeper
from hpc_bridge.tracking.tracker import Tracker
from tests.unit.fake_cluster import FakeCluster, connected

TIMEOUT = JobStatus(JobId("7"), "hb", JobState.TIMEOUT, "TIMEOUT")
FAILED = JobStatus(JobId("7"), "hb", JobState.FAILED, "FAILED")
NODE_FAIL = JobStatus(JobId("7"), "hb", JobState.NODE_FAIL, "NODE_FAIL")
CANCELLED = JobStatus(JobId("7"), "hb", JobState.CANCELLED, "CANCELLED")

RESUBMITTING = states.Pending(name="Resubmitting")
WALLTIME = states.Crashed(name="WalltimeExceeded", message=WARNED)


class Killed(BaseException):
    """What a process does not survive."""


class Server:
    """A Prefect server with one flow run."""

    def __init__(self, state: State[Any] | None) -> None:
        self.state = state
        self.history: list[str] = []
        self.infrastructure_pid: str | None = None
        self.step: Callable[[str], None] = lambda _: None

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        self.step("the flow run is read")
        return FlowRun(id=flow_run_id, flow_id=uuid4(), state=self.state)

    async def set_flow_run_state(
        self, flow_run_id: UUID, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        """Of the server's rules those about Pending."""
        self.step("before a state is set")
        before = self.state
        moves = before is not None and before.is_pending() and before.name != state.name
        if not (force or moves):
            details = StateAbortDetails(reason="no")
            return OrchestrationResult(state=None, status=SetStateStatus.ABORT, details=details)
        self.state = state
        self.history.append(str(state.name))
        self.step("after a state is set")
        accepted = StateAcceptDetails()
        return OrchestrationResult(state=state, status=SetStateStatus.ACCEPT, details=accepted)

    async def update_flow_run(self, flow_run_id: UUID, infrastructure_pid: str) -> None:
        self.step("before the job is noted on the run")
        self.infrastructure_pid = infrastructure_pid
        self.step("after the job is noted on the run")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return prepare_shared_directory(tmp_path / "shared")


@pytest.fixture
def cluster(shared: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    return connected(shared, monkeypatch)


def a_job(
    shared: Path, *, elements: int = 1, element: int = 0, earlier: int = 0, **spec: Any
) -> TrackedJob:
    """A job that has run, of a flow that asked to go on."""
    asked = {"on_walltime": "resubmit", "max_resubmissions": 3, "walltime": "1h"} | spec
    run = RunDirectory.create(shared, new_submission_id(time.time() - 3600))
    claims_on(shared).take(run)
    run.write("job.sh", f"#!/bin/sh\n#SBATCH --job-name={run.submission_id}\n".encode())
    run.write("env", b"A=1\0")
    for number in range(elements):
        run.element(number)
        run.write(f"{number}/bundle.json", b"{}")
    run.write_submission(
        {
            "submission": run.submission_id,
            "flow_runs": {str(number): str(uuid4()) for number in range(elements)},
            "work_pool": "pool",
            "scheduler": "slurm",
            "spec": JobSpec(name=run.submission_id, **asked).model_dump(mode="json"),
            "resubmissions": earlier,
            "job_id": "7",
        }
    )
    jobs = tracked_jobs(run, connect("slurm", shared, 30.0))
    return next(job for job in jobs if job.element == element)


def exit_record(job: TrackedJob, **what: Any) -> None:
    folder = job.run.element(job.element) / "0"
    folder.mkdir()
    write_exit_record(folder / "exit.json", ExitRecord(**what))


def go_on(server: Server, job: TrackedJob, status: JobStatus = TIMEOUT) -> TrackedJob | None:
    return asyncio.run(continuation(server, job, status))  # type: ignore[arg-type]


def submissions(shared: Path) -> int:
    return len(list((shared / "runs").iterdir()))


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
    assert claims_on(shared).holds(following.run)


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


# refused


def test_a_refusal_is_the_runs_end_with_the_schedulers_words(
    shared: Path, cluster: FakeCluster
) -> None:
    job, server = a_job(shared), Server(RESUBMITTING)
    cluster.refusal = SubmissionRefused("Slurm refused the job: Invalid account")
    for _ in range(2):
        assert go_on(server, job) is None
        assert server.state is not None
        assert (server.state.type.value, server.state.name) == ("CRASHED", "WalltimeExceeded")
        assert server.state.message == (
            "Job 7 had too little walltime. Resubmission 1 of at most 3 after the walltime."
            " It was refused: Slurm refused the job: Invalid account"
        )
        assert {path.name for path in (shared / "live").iterdir()} == {job.run.submission_id}
    assert submissions(shared) == 2


def test_a_refusal_is_not_said_of_a_run_that_was_cancelled_meanwhile(
    shared: Path, cluster: FakeCluster
) -> None:
    job, server = a_job(shared), Server(RESUBMITTING)
    cluster.refusal = SubmissionRefused("Invalid account")

    def cancelled(_: str) -> None:
        server.state = states.Cancelled()

    cluster.step = cancelled
    assert go_on(server, job) is None
    assert server.state is not None
    assert server.state.is_cancelled()


def test_what_was_refused_once_and_taken_later_is_live(shared: Path, cluster: FakeCluster) -> None:
    job, server = a_job(shared), Server(RESUBMITTING)
    cluster.refusal = SubmissionRefused("The partition is down")
    go_on(server, job)
    cluster.refusal = None
    following = go_on(server, job)
    assert following is not None
    assert (shared / "live" / following.run.submission_id).exists()


@pytest.mark.parametrize(
    "error", [SchedulerUnavailable("down"), SharedDirectoryError("the shared directory is full")]
)
def test_what_cannot_be_submitted_now_is_submitted_later(
    shared: Path, cluster: FakeCluster, error: Exception
) -> None:
    job, server = a_job(shared), Server(WALLTIME)
    cluster.refusal = error
    for _ in range(2):
        with pytest.raises(type(error)):
            go_on(server, job)
        assert server.state is not None
        assert server.state.name == "Resubmitting"
    cluster.refusal = None
    following = go_on(server, job)
    assert following is not None
    assert submissions(shared) == 2
    assert (shared / "live" / following.run.submission_id).exists()


# killed at any moment


class Clock:
    """Kills at the given step; each thing that leaves the process is one."""

    def __init__(self, last: int) -> None:
        self.left = last
        self.happened: list[str] = []

    def __call__(self, what: str) -> None:
        self.happened.append(what)
        self.left -= 1
        if self.left == 0:
            raise Killed(what)


@pytest.mark.parametrize("forgets", [False, True], ids=["queued", "ended"])
def test_killed_at_any_step_and_repeated_it_makes_one_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    write = RunDirectory.write
    steps: list[str] = []
    for last in range(1, 100):
        shared = prepare_shared_directory(tmp_path / str(last))
        cluster, server, job = connected(shared, monkeypatch), Server(WALLTIME), a_job(shared)
        clock = Clock(last)

        def slow_write(run: RunDirectory, name: str, content: bytes, clock: Clock = clock) -> None:
            clock(f"before {name} is written")
            write(run, name, content)
            clock(f"after {name} is written")

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "write", slow_write)
            server.step = cluster.step = clock
            try:
                go_on(server, job)
            except Killed as killed:
                steps.append(str(killed))
            else:
                break
        server.step = cluster.step = lambda _: None
        if forgets:
            cluster.ended()
        settled = job.run.settled()
        if settled is None:
            following = go_on(server, job)
            assert following is not None, steps[-1]
            settled = job.run.settled()
            assert following.job_id == JobId("100"), steps[-1]
        assert len(cluster.scripts) == 1, steps[-1]
        assert submissions(shared) == 2, steps[-1]
        assert settled is not None
        run = RunDirectory(shared / "runs" / settled["continued"])
        assert run.read_submission()["job_id"] == "100", steps[-1]
        assert (shared / "live" / run.submission_id).exists(), steps[-1]
        assert server.state is not None
        assert server.state.name == "Queued", steps[-1]
    else:
        raise AssertionError("it never came to its end")
    assert steps.index("after 0/continued.json is written") < steps.index("before the submission")
    assert len(steps) > 15
