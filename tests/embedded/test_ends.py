"""How a run ends: the process, the hooks and the states, each as a researcher's own script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelled, Cancelling

from tests.waiting import HUNG, until

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def script(flow_folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run cases of tests/flows/jobs.py in a process of their own; returns the last one's answer."""

    def run(*cases: str, **variables: str) -> dict[str, Any]:
        (tmp_path / "hooks").mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "jobs.py", *cases],
            cwd=flow_folder,
            env=dict(os.environ) | variables,
            capture_output=True,
            text=True,
            timeout=HUNG,
            check=False,
        )
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return run


def state_of(flow_run_id: str | UUID) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(str(flow_run_id))).state


def test_types_of_the_callers_script_survive(script: Callable[..., dict[str, Any]]) -> None:
    assert script("types")["result"] == [[1, 3], "set", 6, "int16", 5, True, True, 6]


def test_an_exception_class_of_the_script_comes_back(
    script: Callable[..., dict[str, Any]],
) -> None:
    answer = script("raise")
    assert (answer["raised"], answer["args"]) == ("OwnError", "('my own words', 42)")


def test_sys_exit_is_a_crash(script: Callable[..., dict[str, Any]]) -> None:
    answer = script("exit")
    assert answer["raised"] == "CrashedRun"
    assert "system exit" in answer["text"]


def test_the_launcher_starts_the_flow_on_the_node(script: Callable[..., dict[str, Any]]) -> None:
    assert script("launcher")["result"]["launcher"] == "me"


def test_the_submitters_environment_stays_behind(script: Callable[..., dict[str, Any]]) -> None:
    assert script("surroundings", MARKER="leak")["result"]["leaked"] is None


def test_included_files_lie_in_a_fresh_folder(
    script: Callable[..., dict[str, Any]], flow_folder: Path
) -> None:
    data = flow_folder / "data"
    data.mkdir()
    for name in ("a.csv", "b.csv", "secret.txt", "ignored.tmp"):
        (data / name).write_text(name)
    (flow_folder / ".prefectignore").write_text("*.tmp\n")
    assert script("files")["result"] == ["data/a.csv", "data/b.csv"]


@pytest.mark.parametrize(
    "text", ["$(touch {trap}) `touch {trap}`", "'a' \"b\" \\ # é ; | & %j", "-x --wrap=date"]
)
def test_odd_text_is_kept_byte_for_byte(
    script: Callable[..., dict[str, Any]], text: str, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    text = text.replace("{trap}", str(trap))
    assert script("weird", WEIRD=text)["result"]["value"] == text
    assert not trap.exists()


def test_a_line_break_in_a_comment_is_refused(script: Callable[..., dict[str, Any]]) -> None:
    answer = script("weird", WEIRD="a\n#SBATCH --partition=gpu")
    assert answer["raised"] == "InvalidJobSpec"
    assert "one line of text" in answer["text"]


def running_end(hooks: Path) -> Any:
    """A job of the flow ``end`` that sleeps, once it runs."""
    from tests.flows import jobs

    future = jobs.end.with_options(job_variables={"env": {"HOOK_DIR": str(hooks)}}).submit("sleep")
    until(lambda: state_of(future.flow_run_id).is_running(), 60, "the flow runs")
    return future


def test_cancelling_a_running_flow_ends_it_cancelled_with_its_hook(tmp_path: Path) -> None:
    future = running_end(tmp_path)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(future.flow_run_id, Cancelling())
    future.wait(timeout=HUNG)
    assert future.state.is_cancelled()
    hooks = [path.name for path in tmp_path.iterdir()]
    assert hooks == [f"{future.flow_run_id}.CANCELLING"]
    assert next(tmp_path.iterdir()).read_text() == "ran\n"


def test_a_killed_process_is_a_crash_and_its_hook_runs_once(tmp_path: Path) -> None:
    from tests.flows import jobs

    bound = jobs.end.with_options(job_variables={"env": {"HOOK_DIR": str(tmp_path)}})
    future = bound.submit("kill")
    future.wait(timeout=HUNG)
    assert future.state.is_crashed()
    assert "signal 9" in future.state.message
    until(lambda: list(tmp_path.iterdir()), 30, "the hook ran")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["ran\n"]


def test_a_job_that_is_cancelled_at_the_scheduler_ends_cancelled(tmp_path: Path) -> None:
    from hpc_bridge.connections import connect
    from hpc_bridge.jobs import JobId
    from hpc_bridge.settings import load_settings

    future = running_end(tmp_path)
    connect("local", load_settings().shared, 1.0).cluster.cancel([JobId(future.job_id)])
    future.wait(timeout=HUNG)
    assert future.state.is_cancelled()
    assert "cancelled at the scheduler" in future.state.message


@pytest.fixture
def waiting_end(tmp_path: Path) -> Any:
    """A job that starts in a while."""
    from tests.flows import jobs

    variables = {"env": {"HOOK_DIR": str(tmp_path)}, "begin": "now+4"}
    return jobs.end.with_options(job_variables=variables).submit("sleep")


@pytest.mark.parametrize("state", [Cancelling(), Cancelled()])
def test_a_run_that_is_cancelled_while_its_job_waits_takes_it_out_of_the_queue(
    waiting_end: Any, state: Any
) -> None:
    from hpc_bridge.connections import connect
    from hpc_bridge.jobs import JobId, JobState
    from hpc_bridge.settings import load_settings

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(waiting_end.flow_run_id, state)
    cluster = connect("local", load_settings().shared, 1.0).cluster
    job = JobId(waiting_end.job_id)
    until(lambda: cluster.status()[job].state is JobState.CANCELLED, 60, "the job is cancelled")
    waiting_end.wait(timeout=HUNG)
    assert waiting_end.state.is_cancelled()
    assert waiting_end.run_directory.newest_attempt() is None


@pytest.mark.parametrize("state", [Cancelling(), Cancelled()])
def test_a_job_whose_run_was_cancelled_unseen_does_not_run(
    waiting_end: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc_bridge.tracking.keeper import Keeper

    async def nobody_looks(_: Keeper) -> None:
        pass

    monkeypatch.setattr(Keeper, "look_for_cancelling", nobody_looks)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(waiting_end.flow_run_id, state)
    until(lambda: waiting_end.run_directory.exit_record(), 60, "the job is over")
    until(lambda: waiting_end.state.is_cancelled(), 60, "the run is cancelled")
    assert "printed by the flow" not in waiting_end.run_directory.output_tail()


def test_the_job_outlives_its_caller(script: Callable[..., dict[str, Any]]) -> None:
    answer = script("submit_and_leave")
    until(lambda: state_of(answer["flow_run_id"]).is_completed(), 60, "the flow is over")


def test_a_refused_job_leaves_the_worker_at_work(
    script: Callable[..., dict[str, Any]], worker_pool: str
) -> None:
    from tests.flows import jobs

    assert worker_pool
    refused = jobs.ten_times.with_options(job_variables={"directives": ["--no-such-option=1"]})
    future = refused.submit_to_work_pool(1)
    future.wait(timeout=HUNG)
    assert (future.state.name, future.state.is_crashed()) == ("Refused", True)
    assert "no-such-option" in future.state.message
    assert jobs.ten_times.submit_to_work_pool(1).result(timeout=HUNG) == 10


def test_no_key_in_any_byte_but_the_env_file(flow_folder: Path, tmp_path: Path) -> None:
    key, shared = "pnu_markerkey0123456789", tmp_path / "shared"
    done = subprocess.run(
        [sys.executable, "jobs.py", "surroundings", "submit"],
        cwd=flow_folder,
        env=dict(os.environ)
        | {
            "PREFECT_API_KEY": key,
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "HPC_BRIDGE_SHARED_DIR": str(shared),
        },
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert '"result"' in done.stdout, done.stderr
    assert key not in done.stdout + done.stderr
    holders = {path for path in shared.rglob("*") if path.is_file() and holds(path, key)}
    assert {path.name for path in holders} == {"env"}
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}


def holds(path: Path, key: str) -> bool:
    """Whether the key stands in the file, also within what a bundle packs."""
    content = path.read_bytes()
    if path.name == "bundle.json":
        import base64
        import gzip

        bundle = json.loads(content)
        for part in ("function", "context"):
            content += gzip.decompress(base64.b64decode(bundle[part]))
    return key.encode() in content
