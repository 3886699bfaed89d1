"""A worker whose login host is away keeps the runs that it has taken, and submits each once."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State

from hpc_bridge.errors import (
    CommandNotFound,
    CommandTimeout,
    ConnectionLost,
    HostKeyChanged,
    HPCBridgeError,
    LoginRefused,
    SchedulerUnavailable,
    ServerUnreachable,
    SharedDirectoryError,
    SubmissionRefused,
    TooManyJobs,
    TransferFailed,
    Unreachable,
    is_worth_waiting_for,
)
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.journal import new_submission_id, prepare_shared_directory
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.workers import base
from hpc_bridge.workers import housekeeping as module
from hpc_bridge.workers.base import BatchWorker
from hpc_bridge.workers.housekeeping import Housekeeping
from tests.unit.counted_files import CountedFiles
from tests.unit.fake_cluster import FakeCluster
from tests.unit.orphaned_runs import a_run
from tests.unit.test_housekeeping import Worker


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (Unreachable("the login host is away"), True),
        (ConnectionLost("?"), True),
        (CommandTimeout("?"), True),
        (SchedulerUnavailable("?"), True),
        (TooManyJobs("all slots are taken"), True),
        (LoginRefused("somebody has to log in"), True),
        (HostKeyChanged("somebody has to look"), True),
        (SubmissionRefused("no such partition"), False),
        (CommandNotFound("no sbatch"), False),
        (TransferFailed("what arrived is not what was sent"), False),
        (SharedDirectoryError("it is full"), False),
        (ServerUnreachable("the server is away"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_nobody_need_change_is_waited_for(error: HPCBridgeError, waits: bool) -> None:
    assert is_worth_waiting_for(error) is waits


# what has become of a submission that nobody heard of


@pytest.fixture
def files() -> CountedFiles:
    return CountedFiles()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def housekeeping(
    worker: Worker, shared: Path, files: CountedFiles, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Housekeeping]:
    monkeypatch.setattr(module, "_LOST_SECONDS", 0.01)
    housekeeping = Housekeeping(worker, shared, files, 30.0)  # type: ignore[arg-type]
    yield housekeeping
    housekeeping.claims.end()


def later(housekeeping: Housekeeping, flow_run_id: UUID) -> TrackedJob | None:
    return asyncio.run(asyncio.wait_for(housekeeping.submitted_later(flow_run_id), 20))


def test_of_what_never_arrived_there_is_no_job(housekeeping: Housekeeping) -> None:
    assert later(housekeeping, uuid4()) is None
    assert housekeeping._expected == {}


def test_a_login_host_that_is_away_says_nothing_of_what_arrived(
    housekeeping: Housekeeping, files: CountedFiles
) -> None:
    files.transport.is_away = True
    files.transport.comes_back_after = 5
    assert later(housekeeping, uuid4()) is None
    assert not files.transport.is_away
    assert files.commands > 5


def test_what_arrived_is_waited_for_until_its_job_is_known(
    shared: Path, cluster: FakeCluster, worker: Worker, housekeeping: Housekeeping
) -> None:
    run = a_run(shared)
    (flow_run_id,) = (UUID(of) for of in run.read_submission()["flow_runs"].values())
    cluster.queue = [JobStatus(JobId("7"), run.submission_id, JobState.PENDING, "PENDING")]

    async def wait() -> TrackedJob | None:
        worker.submitting = {flow_run_id}
        waiting = asyncio.create_task(housekeeping.submitted_later(flow_run_id))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done
        await housekeeping._adopt(shared, housekeeping._files)
        return await asyncio.wait_for(waiting, 20)

    job = asyncio.run(wait())
    assert job is not None
    assert (job.job_id, job.run.path) == (JobId("7"), run.path)
    assert worker.adopted == []


def test_a_journal_that_cannot_be_read_may_be_the_one(
    shared: Path, housekeeping: Housekeeping, files: CountedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(shared)
    read, told = files.parts, []

    def parts(wanted: Any) -> Any:
        if len(told) < 3 and any(part.path.parent == run.path for part in wanted):
            told.append(wanted)
            raise OSError(errno.EIO, "Input/output error")
        return read(wanted)

    monkeypatch.setattr(files, "parts", parts)
    assert later(housekeeping, uuid4()) is None
    assert len(told) == 3


def test_what_has_its_marker_only_may_still_be_on_its_way(
    shared: Path, housekeeping: Housekeeping
) -> None:
    young = shared / "live" / new_submission_id()
    young.touch()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(housekeeping.submitted_later(uuid4()), 0.5))
    young.rename(young.with_name(new_submission_id(time.time() - 600)))
    assert later(housekeeping, uuid4()) is None


def test_a_run_with_a_shared_directory_of_its_own_is_looked_for_there(
    tmp_path: Path, cluster: FakeCluster, worker: Worker, files: CountedFiles
) -> None:
    own = prepare_shared_directory(tmp_path / "own", files)
    housekeeping = Housekeeping(worker, tmp_path / "pools", files, 30.0)  # type: ignore[arg-type]
    place: tuple[Path, ClusterFiles] = own, files
    known = asyncio.run(housekeeping._may_be_submitted(uuid4(), place))
    assert not known
    run = a_run(own)
    (flow_run_id,) = (UUID(of) for of in run.read_submission()["flow_runs"].values())
    housekeeping._last_submitted.clear()
    assert asyncio.run(housekeeping._may_be_submitted(flow_run_id, place))


# the worker itself


def submitted_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
    outcomes: list[Exception | str],
    found: list[str | None],
) -> tuple[str, list[str]]:
    """What becomes of a run whose submissions and later looks end like this; what it was told."""
    told: list[str] = []

    async def submit(*_: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def look(_: UUID, place: tuple[Path, Any]) -> Any:
        assert place[0] == Path("/shared")
        return found.pop(0)

    async def propose(_: Any, state: State[Any], flow_run_id: UUID) -> None:
        told.append(f"{state.name}: {state.message}")

    monkeypatch.setattr(base, "propose_state", propose)
    worker: Any = SimpleNamespace(
        client=None,
        _logger=logging.getLogger("worker"),
        _submit_job=submit,
        _housekeeping=SimpleNamespace(submitted_later=look),
    )
    flow_run = FlowRun(id=uuid4(), flow_id=uuid4(), name="run")
    configuration: Any = SimpleNamespace(shared=Path("/shared"), files=None)
    job: Any = asyncio.run(BatchWorker._submit_in_the_end(worker, flow_run, configuration))
    return job, told


def test_a_run_that_never_left_is_submitted_when_the_login_host_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes: list[Exception | str] = [Unreachable("away"), LoginRefused("who?"), "a job"]
    job, told = submitted_in_the_end(monkeypatch, outcomes, [None, None])
    assert job == "a job"
    assert told == ["SubmissionDelayed: away", "SubmissionDelayed: who?"]


def test_a_run_whose_job_is_found_is_not_submitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Exception | str] = [ConnectionLost("?"), AssertionError("a second job")]
    assert submitted_in_the_end(monkeypatch, outcomes, ["its job"])[0] == "its job"


def test_a_refusal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = SubmissionRefused("no such partition")
    with pytest.raises(SubmissionRefused):
        submitted_in_the_end(monkeypatch, [refusal], [])
