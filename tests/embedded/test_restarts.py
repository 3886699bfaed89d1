"""One flow run, several starts: requeued, resubmitted, suspended and resumed, retried."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.states import Scheduled

from hpc_bridge.connections import connect
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.records import RESUBMITTING
from hpc_bridge.reference import JobReference
from hpc_bridge.settings import load_settings
from tests.conftest import ROOT
from tests.waiting import HUNG, until

pytestmark = pytest.mark.usefixtures("server")


def read(flow_run_id: UUID) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id)


def states(flow_run_id: UUID) -> list[str | None]:
    """The names that a flow run's state has had, in order."""

    async def history() -> list[Any]:
        async with get_client() as client:
            return await client.read_flow_run_states(flow_run_id)

    found = asyncio.run(history())
    return [state.name for state in sorted(found, key=lambda state: state.timestamp)]


def counted(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


@pytest.fixture
def restarted(tmp_path: Path) -> Callable[..., Any]:
    """The flow of tests/flows/restarts.py, which counts in the test's folder."""
    from tests.flows import restarts

    def bound(**variables: Any) -> Any:
        environment = {"env": {"HOOK_DIR": str(tmp_path)}}
        return restarts.restarted.with_options(job_variables=environment | variables)

    return bound


RUN_TWICE = {"done_again": 2, "kept": 1, "starts": 2}


def is_over(flow_run_id: UUID) -> Any:
    state = read(flow_run_id).state
    return state if state is not None and state.is_final() else None


def test_a_requeued_run_goes_on_with_the_results_that_it_kept(
    restarted: Callable[..., Any], tmp_path: Path
) -> None:
    future = restarted().submit("wait")
    until(lambda: (tmp_path / "starts").exists(), 60, "the flow waits")
    scheduler = connect("local", load_settings().shared, 1.0).cluster.scheduler
    command = scheduler.cancel_command([JobId(future.job_id)])
    requeue = ["requeue" if word == "cancel" else word for word in command]
    os.spawnvp(os.P_WAIT, requeue[0], requeue)
    assert future.result(timeout=HUNG) == "kept"
    names = states(future.flow_run_id)
    assert names[-3:] == ["Requeued", "Running", "Completed"]
    assert read(future.flow_run_id).run_count == 2
    assert {"crashed": 1, **counted(tmp_path)} == {**RUN_TWICE, "crashed": 1}
    until(future.run_directory.exit_record, 30, "the job is over")
    assert (future.run_directory.newest_attempt() or Path()).name == "1"


def test_a_run_whose_walltime_is_over_ends_with_its_logs_and_says_so(
    restarted: Callable[..., Any], tmp_path: Path
) -> None:
    future = restarted(walltime="24s").submit("wait")
    state = until(lambda: is_over(future.flow_run_id), 60, "the walltime is over")
    assert (state.name, state.is_crashed()) == ("WalltimeExceeded", True)
    assert "before the end of the walltime of 00:00:24" in state.message
    until(lambda: counted(tmp_path).get("crashed"), 30, "the hook has run")
    assert counted(tmp_path)["crashed"] == 1


def test_a_run_whose_walltime_is_over_waits_for_its_next_submission(
    restarted: Callable[..., Any], tmp_path: Path
) -> None:
    future = restarted(walltime="24s", on_walltime="resubmit").submit("wait")
    first = future.run_directory
    record = until(first.exit_record, 60, "the walltime is over")
    assert (record.cause, record.resubmit) == ("WalltimeExceeded", True)
    assert "Resubmission 1 of at most 10" in record.message
    assert future.result(timeout=HUNG) == "kept"
    assert RESUBMITTING in states(future.flow_run_id)
    assert counted(tmp_path) == RUN_TWICE  # and no on_crashed hook has run


def retry(flow_run_id: UUID) -> None:
    """As the dashboard's button does; the server takes it of a run without a deployment only so."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Scheduled(name="AwaitingRetry"), force=True)


def test_a_failed_run_is_retried_by_a_worker(
    restarted: Callable[..., Any], tmp_path: Path, worker_pool: str
) -> None:
    assert worker_pool
    future = restarted().submit_to_work_pool("fail")
    state = until(lambda: is_over(future.flow_run_id), 60, "it fails")
    assert state.is_failed()
    retry(future.flow_run_id)
    until(lambda: read(future.flow_run_id).state.is_completed(), 90, "the retry is done")
    assert read(future.flow_run_id).run_count == 2
    assert counted(tmp_path) == RUN_TWICE


@pytest.fixture
def deployed(tmp_path: Path, worker_pool: str) -> Callable[[str], tuple[UUID, Path]]:
    """Start a run of a deployment of the same flow; returns its id and where it counts."""
    source, counts = tmp_path / "project", tmp_path / "counts"
    source.mkdir()
    counts.mkdir()
    (source / "restarts.py").write_text((ROOT / "tests/flows/restarts.py").read_text())

    def run(how: str) -> tuple[UUID, Path]:
        loaded: Any = flow.from_source(source=str(source), entrypoint="restarts.py:restarted")
        variables = {"env": {"HOOK_DIR": str(counts)}}
        loaded.deploy("restarts", worker_pool, job_variables=variables, print_next_steps=False)
        started: Any = run_deployment("restarted/restarts", parameters={"how": how}, timeout=0)
        return started.id, counts

    return run


def test_a_deployments_failed_run_is_retried_from_the_dashboard(
    deployed: Callable[[str], tuple[UUID, Path]],
) -> None:
    flow_run_id, counts = deployed("fail")
    state = until(lambda: is_over(flow_run_id), 60, "it fails")
    assert state.is_failed()
    with get_client(sync_client=True) as client:  # which the server allows
        client.set_flow_run_state(flow_run_id, Scheduled(name="AwaitingRetry"))
    until(lambda: read(flow_run_id).state.is_completed(), 90, "the retry is done")
    assert counted(counts) == RUN_TWICE


def test_a_suspended_run_ends_its_job_and_a_new_one_goes_on(
    deployed: Callable[[str], tuple[UUID, Path]],
) -> None:
    flow_run_id, counts = deployed("suspend")
    until(lambda: read(flow_run_id).state.name == "Suspended", 60, "it is suspended")
    reference = JobReference.parse(read(flow_run_id).infrastructure_pid)
    assert reference is not None
    job = RunDirectory(load_settings().shared / "runs" / reference.submission_id)
    record: Any = until(job.exit_record, 60, "the job ends")
    assert (record.exit_code, record.flow_state) == (0, "PAUSED")
    with get_client(sync_client=True) as client:
        client.resume_flow_run(flow_run_id)
    until(lambda: read(flow_run_id).state.is_completed(), 90, "the run goes on")
    assert counted(counts) == RUN_TWICE
