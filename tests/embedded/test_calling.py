"""The ways of calling a decorated flow, on the embedded scheduler with a real Prefect server."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from prefect import flow, tags, task
from prefect.client.orchestration import get_client
from prefect.exceptions import CrashedRun, ParameterTypeError

from hpc_bridge import BatchFlowRunFuture, slurm
from hpc_bridge.errors import BundleError, ServerUnreachable, SharedDirectoryError, WorkPoolError
from tests.waiting import HUNG

pytestmark = pytest.mark.usefixtures("server")


class OwnError(Exception):
    pass


@dataclasses.dataclass
class Point:
    x: int = 1
    tags: list[str] = dataclasses.field(default_factory=list)


@task
def square(x: int) -> int:
    return x * x


@slurm(walltime="5m")
@flow
def total(count: int) -> int:
    return sum(future.result() for future in square.map(range(count)))


@slurm(walltime="5m")
@flow
def types(s: Any, a: Any, p: Point) -> list[Any]:
    return [type(s).__name__, type(a).__name__, a.tolist(), p, isinstance(p, Point)]


@slurm(walltime="5m")
@flow
async def asynchronous(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


@slurm(walltime="5m")
@flow
def failing() -> None:
    raise OwnError("my own words", 42)


@slurm(walltime="5m")
@flow
def echo(x: Any) -> Any:
    return x


def flow_run(flow_run_id: UUID) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id)


def runs_of(name: str) -> int:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    with get_client(sync_client=True) as client:
        named = FlowFilter(name=FlowFilterName(any_=[name]))
        return len(client.read_flow_runs(flow_filter=named))


def test_a_direct_call_returns_the_result() -> None:
    assert total(4) == 14


def test_parameters_arrive_as_they_were_given() -> None:
    kind, array, values, point, same = types({1, 2}, np.arange(3), Point(3))
    assert (kind, array, values, same) == ("set", "ndarray", [0, 1, 2], True)
    assert point == Point(3)


def test_an_async_flow_is_awaited() -> None:
    assert asyncio.run(asynchronous(1)) == 2


def test_a_failing_flow_raises_its_own_exception() -> None:
    with pytest.raises(OwnError) as caught:
        failing()
    assert caught.value.args == ("my own words", 42)


def test_return_state_gives_the_state_instead() -> None:
    assert failing(return_state=True).is_failed()


def test_submit_returns_when_the_job_is_in_the_queue() -> None:
    future = echo.submit({"a": 1})
    assert isinstance(future, BatchFlowRunFuture)
    run = flow_run(future.flow_run_id)
    assert run.infrastructure_pid == f"local:{future.job_id}:{future.run_directory.submission_id}"
    assert future.result(timeout=HUNG) == {"a": 1}
    with get_client(sync_client=True) as client:
        names = [state.name for state in client.read_flow_run_states(future.flow_run_id)]
    assert names[0] == "Pending"
    assert names[-2:] == ["Running", "Completed"]


def test_a_future_waits_no_longer_than_it_was_told() -> None:
    future = echo.with_options(job_variables={"begin": "now+1hour"}).submit(1)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.5)
    assert not future.state.is_final()


def test_a_run_of_the_pool_is_taken_by_its_worker(worker_pool: str) -> None:
    future = echo.submit_to_work_pool({1, 2})
    assert future.result(timeout=HUNG) == {1, 2}
    assert flow_run(future.flow_run_id).work_pool_name == worker_pool


def test_a_call_within_a_flow_is_its_child() -> None:
    @flow
    def parent() -> Any:
        future = echo.submit(7)
        return future.flow_run_id, future.result()

    child, result = parent()
    assert result == 7
    assert flow_run(child).parent_task_run_id is not None


def test_a_job_can_submit_a_job() -> None:
    @slurm(walltime="5m")
    @flow
    def outer(x: int) -> Any:
        return echo(x * 2)

    assert outer(4) == 8


def test_tags_reach_the_run() -> None:
    with tags("night"):
        future = echo.submit(1)
    assert "night" in flow_run(future.flow_run_id).tags
    assert future.result(timeout=HUNG) == 1


def test_with_options_adds_to_the_decorator() -> None:
    future = echo.with_options(
        name="renamed", job_variables={"comment": "mine", "cpus_per_task": 1}
    ).submit(1)
    assert future.result(timeout=HUNG) == 1
    script = (future.run_directory.path / "job.sh").read_text()
    assert "#SBATCH --comment=mine" in script
    assert "#SBATCH --time=00:05:00" in script
    assert flow_run(future.flow_run_id).job_variables["comment"] == "mine"


def test_what_cannot_be_pickled_is_refused_before_a_run_exists() -> None:
    before = runs_of("echo")
    with pytest.raises(BundleError, match="parameter 'x' of flow 'echo' cannot be pickled"):
        echo(threading.Lock())
    assert runs_of("echo") == before


def test_parameters_of_a_wrong_type_are_refused_before_a_run_exists() -> None:
    before = runs_of("total")
    with pytest.raises(ParameterTypeError):
        total("many")
    assert runs_of("total") == before


def test_a_missing_shared_directory_is_named() -> None:
    with pytest.raises(SharedDirectoryError, match="/nowhere/at/all does not exist; create it"):
        echo.with_options(job_variables={"shared_dir": "/nowhere/at/all"})(1)


def test_a_pool_of_another_type_is_refused() -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name="others", type="process"))
        except ObjectAlreadyExists:
            pass
    with pytest.raises(WorkPoolError, match="'others' is of type 'process', not 'slurm'"):
        slurm(work_pool="others")(echo)(1)


def test_a_server_that_is_away_is_named() -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    away = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(away), pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9"):
        echo(1)


def test_a_missing_python_ends_the_run_with_advice() -> None:
    bound = echo.with_options(job_variables={"python": "/nowhere/bin/python"})
    state = bound(1, return_state=True)
    assert (state.name, state.is_crashed()) == ("PythonNotFound", True)
    assert "/nowhere/bin/python" in state.message
    assert "set 'python'" in state.message


def test_an_unreachable_server_on_the_node_is_told_by_the_job() -> None:
    bound = echo.with_options(
        job_variables={
            "api_url": "http://127.0.0.1:9/api",
            "env": {"PREFECT_CLIENT_MAX_RETRIES": "0"},
        }
    )
    state = bound(1, return_state=True)
    assert state.name == "ServerUnreachable"
    assert "HPC_BRIDGE_API_URL" in state.message


def test_a_missing_working_directory_ends_the_run_with_advice() -> None:
    state = echo.with_options(job_variables={"working_directory": "/nowhere"})(1, return_state=True)
    assert state.name == "WorkingDirectoryMissing"
    assert "/nowhere does not exist" in state.message


def test_the_flow_runs_where_it_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @slurm(walltime="5m")
    @flow
    def where() -> str:
        return str(Path.cwd())

    monkeypatch.chdir(tmp_path)
    assert where() == str(tmp_path)


def test_a_crash_of_the_process_is_a_crash_with_its_signal() -> None:
    @slurm(walltime="5m")
    @flow
    def dying() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(CrashedRun, match="died of signal 11"):
        dying()
