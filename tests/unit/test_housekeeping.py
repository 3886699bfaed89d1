"""What a worker takes over, and that nothing of it ends the worker."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import states
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus, StateAcceptDetails
from prefect.exceptions import ObjectNotFound

from hpc_bridge.errors import BundleError, HPCBridgeError, SchedulerUnavailable, SubmissionRefused
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.reference import JobReference
from hpc_bridge.storage.cluster_files import HERE
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.workers.housekeeping import Housekeeping
from tests.unit.fake_cluster import FakeCluster
from tests.unit.orphaned_runs import a_run, attempt


class Worker:
    """Of the pool ``pool``; its client too."""

    def __init__(self) -> None:
        self.work_pool = SimpleNamespace(name="pool", id=uuid4())
        self.client = self
        self.keeper = self
        self.submitting: set[UUID] = set()
        self.kept: set[str] = set()
        self.adopted: list[TrackedJob] = []
        self.states: dict[UUID, State[Any]] = {}
        self.pids: dict[UUID, str] = {}
        self.error: Exception | None = None
        self.runs: dict[UUID, State[Any] | None] = {}
        """Runs that are not simply pending; None for a deleted one."""
        self.held_leases: set[UUID] = set()

    def keeps(self, submission_id: str) -> bool:
        return submission_id in self.kept

    def submissions(self) -> set[str]:
        return set(self.kept)

    def adopt(self, job: TrackedJob) -> None:
        self.adopted.append(job)
        self.kept.add(job.run.submission_id)

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        if self.error is not None:
            raise self.error
        state = self.runs.get(flow_run_id, states.Pending())
        if state is None:
            raise ObjectNotFound(http_exc=RuntimeError())
        pid = self.pids.get(flow_run_id)
        return FlowRun(id=flow_run_id, flow_id=uuid4(), state=state, infrastructure_pid=pid)

    async def update_flow_run(self, flow_run_id: UUID, infrastructure_pid: str) -> None:
        self.pids[flow_run_id] = infrastructure_pid

    async def update_flow_run_labels(self, flow_run_id: UUID, labels: Any) -> None:
        pass

    async def set_flow_run_state(
        self, flow_run_id: UUID, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        assert not force
        self.states[flow_run_id] = state
        accepted = StateAcceptDetails()
        return OrchestrationResult(state=state, status=SetStateStatus.ACCEPT, details=accepted)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def housekeeping(worker: Worker, shared: Path) -> Housekeeping:
    return Housekeeping(worker, shared, HERE, 30.0)  # type: ignore[arg-type]


def adopt(housekeeping: Housekeeping) -> None:
    asyncio.run(housekeeping._adopt(housekeeping._shared, HERE))


def flow_runs(run: RunDirectory) -> list[UUID]:
    return [UUID(of) for of in run.read_submission()["flow_runs"].values()]


def ids(worker: Worker) -> list[str]:
    return [job.job_id.value for job in worker.adopted]


def test_what_nobody_looks_after_is_adopted_once(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, job_id="7")
    a_run(shared, job_id="8", work_pool="another")
    for _ in range(3):
        adopt(housekeeping)
    assert ids(worker) == ["7"]
    assert worker.pids == {flow_runs(run)[0]: f"slurm:7:{run.submission_id}"}


def test_what_this_worker_is_just_submitting_is_not_adopted(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, age=0, elements=3)
    cluster.queue = [JobStatus(JobId("7_0"), run.submission_id, JobState.PENDING, "PENDING")]
    worker.submitting = {flow_runs(run)[1]}
    adopt(housekeeping)
    assert (worker.adopted, cluster.asked) == ([], [])
    worker.submitting = set()
    adopt(housekeeping)
    assert ids(worker) == ["7_0", "7_1", "7_2"]


def test_while_the_server_is_away_no_element_is_left_to_nobody(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    a_run(shared, elements=3, job_id="7")
    worker.error = httpx.ConnectError("no server")
    adopt(housekeeping)
    assert ids(worker) == ["7_0", "7_1", "7_2"]


def test_a_flow_run_that_was_deleted_is_settled(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, job_id="7", work_pool_id=str(worker.work_pool.id))
    worker.error = ObjectNotFound(http_exc=RuntimeError())
    adopt(housekeeping)
    assert worker.adopted == []
    assert run.settled() is not None


def test_a_run_of_another_server_with_a_pool_of_the_same_name_is_left_alone(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, job_id="7", work_pool_id=str(uuid4()))
    adopt(housekeeping)
    assert worker.adopted == []
    assert run.settled() is None
    assert (shared / "live" / run.submission_id).exists()


def test_a_submission_that_may_be_on_its_way_is_looked_at_again(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, age=1)
    adopt(housekeeping)
    assert worker.adopted == []
    cluster.queue = [JobStatus(JobId("7"), run.submission_id, JobState.PENDING, "PENDING")]
    adopt(housekeeping)
    assert ids(worker) == ["7"]


def test_a_submission_that_is_refused_now_is_refused_once(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, elements=2)
    cluster.refusal = SubmissionRefused("Invalid account")
    for _ in range(3):
        adopt(housekeeping)
    assert cluster.asked == ["queue", "records"]
    told = {of: (state.name, state.message) for of, state in worker.states.items()}
    assert told == dict.fromkeys(flow_runs(run), ("Refused", "Invalid account"))
    assert not (shared / "live" / run.submission_id).exists()


def test_a_journal_that_makes_no_sense_hides_no_other(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    odd = a_run(shared, age=7200)
    odd.write_submission({"flow_runs": {"0": str(uuid4())}})
    a_run(shared, job_id="7")
    for _ in range(2):
        adopt(housekeeping)
    assert ids(worker) == ["7"]


# a scheduler that does not answer


def test_a_scheduler_that_does_not_answer_is_asked_once_a_round(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    for age in (7200, 7100, 7000):
        a_run(shared, age=age)
    a_run(shared, age=3600, job_id="7")
    cluster.records = SchedulerUnavailable("slurmdbd does not answer")
    adopt(housekeeping)
    assert cluster.asked == ["queue", "records"]
    assert ids(worker) == ["7"], "it needs no question"
    cluster.records = []
    adopt(housekeeping)
    assert ids(worker) == ["7", "100", "101", "102"]


def test_a_submission_that_makes_no_sense_to_the_scheduler_hides_no_other(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    attempt(a_run(shared, age=7200))  # it has run, but nobody knows the job
    a_run(shared, age=3600)
    adopt(housekeeping)
    assert ids(worker) == ["100"]


# a run whose submission got no answer


def submitted_later(
    housekeeping: Housekeeping, worker: Worker, run: RunDirectory
) -> TrackedJob | BaseException:
    """What its submitter hears when the scheduler answers."""
    (flow_run_id,) = flow_runs(run)

    async def wait() -> TrackedJob | BaseException:
        worker.submitting = {flow_run_id}
        waiting = asyncio.create_task(housekeeping.submitted_later(flow_run_id))
        await asyncio.sleep(0)
        await housekeeping._adopt(housekeeping._shared, HERE)
        (heard,) = await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 5)
        return heard

    heard = asyncio.run(wait())
    assert housekeeping._expected == {}
    assert worker.adopted == [], "it would be looked after twice"
    return heard


def is_live(run: RunDirectory) -> bool:
    return (run.shared / "live" / run.submission_id).exists()


@pytest.mark.parametrize("was_taken", [True, False])
def test_a_delayed_submission_is_found_or_made(
    shared: Path,
    cluster: FakeCluster,
    worker: Worker,
    housekeeping: Housekeeping,
    was_taken: bool,
) -> None:
    run = a_run(shared)
    if was_taken:
        cluster.queue = [JobStatus(JobId("7"), run.submission_id, JobState.PENDING, "PENDING")]
    heard = submitted_later(housekeeping, worker, run)
    assert isinstance(heard, TrackedJob)
    assert (heard.job_id.value, len(cluster.scripts)) == (("7", 0) if was_taken else ("100", 1))


@pytest.mark.parametrize("state", [states.Cancelling(), states.Cancelled(), None])
def test_one_that_was_cancelled_or_deleted_meanwhile_is_not_submitted(
    shared: Path,
    cluster: FakeCluster,
    worker: Worker,
    housekeeping: Housekeeping,
    state: State[Any] | None,
) -> None:
    run = a_run(shared)
    (flow_run_id,) = flow_runs(run)
    worker.runs[flow_run_id] = state
    heard = submitted_later(housekeeping, worker, run)
    assert isinstance(heard, BundleError)
    assert cluster.scripts == []
    assert not is_live(run)
    told = [state.name for state in worker.states.values()]
    assert told == (["Cancelled"] if state is not None and state.is_cancelling() else [])


def test_one_that_is_refused_meanwhile_says_why(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared)
    cluster.refusal = SubmissionRefused("Invalid account")
    assert submitted_later(housekeeping, worker, run) is cluster.refusal
    assert [state.name for state in worker.states.values()] == ["Refused"]
    assert not is_live(run)


def test_one_that_has_a_job_and_was_deleted_meanwhile_ends_with_an_error(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, work_pool_id=str(worker.work_pool.id))
    cluster.queue = [JobStatus(JobId("7"), run.submission_id, JobState.PENDING, "PENDING")]
    worker.runs[flow_runs(run)[0]] = None
    heard = submitted_later(housekeeping, worker, run)
    assert isinstance(heard, HPCBridgeError)
    assert "deleted" in str(heard)


def test_the_concurrency_slot_of_a_delayed_submission_is_held_until_it_has_a_job(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run, lease = a_run(shared), uuid4()
    (flow_run_id,) = flow_runs(run)
    pending: State[Any] = states.Pending()
    pending.state_details.deployment_concurrency_lease_id = lease
    worker.runs[flow_run_id] = pending
    held: list[set[UUID]] = []
    cluster.step = lambda _: held.append(set(worker.held_leases))
    assert isinstance(submitted_later(housekeeping, worker, run), TrackedJob)
    assert held == [{lease}, {lease}]
    assert worker.held_leases == set()


# runs without a job


def test_a_run_is_homeless_without_a_job_or_with_one_whose_end_is_told(
    shared: Path, housekeeping: Housekeeping
) -> None:
    live, told, elsewhere = (a_run(shared, age=age) for age in (7200, 3600, 1800))
    told.close()
    elsewhere.close()
    elsewhere.path.rename(shared / "another-shared-directory")
    pids = {
        None: True,
        "": False,
        "kubernetes:pod": False,
        f"slurm:7:{live.submission_id}": False,
        f"slurm:7:{told.submission_id}": True,
        f"slurm:7:{elsewhere.submission_id}": False,
    }
    runs = [FlowRun(flow_id=uuid4(), infrastructure_pid=pid) for pid in pids]
    homeless = [run.infrastructure_pid for run in housekeeping._homeless(runs)]
    assert homeless == [pid for pid, is_homeless in pids.items() if is_homeless]


def test_a_later_job_of_a_run_stays_the_one_that_counts(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared, job_id="7")
    (flow_run_id,) = flow_runs(run)
    later = str(JobReference("slurm", JobId("8"), new_submission_id(time.time() + 60)))
    worker.pids[flow_run_id] = later
    adopt(housekeeping)
    assert [job.job_id for job in worker.adopted] == [JobId("7")]
    assert worker.pids[flow_run_id] == later
