"""The hpc-bridge command, as a person starts it."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from hpc_bridge import BatchFlowRunFuture, slurm
from tests.waiting import HUNG, until

COMMAND = Path(sys.executable).with_name("hpc-bridge")
NO_SERVER = "http://127.0.0.1:9/api"


@slurm(walltime="5m")
@flow
def printing(text: str, until_there_is: str | None = None) -> str:
    for number in range(1, 4):
        print(f"line {number} of {text}", flush=True)
    while until_there_is and not Path(until_there_is).exists():
        time.sleep(0.1)
    print("went on", flush=True)
    return text


def hpc_bridge(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *arguments],
        env=dict(os.environ) | {"COLUMNS": "200"} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG,
    )


def test_demo_shows_the_whole_main_job(tmp_path: Path) -> None:
    done = hpc_bridge("demo", "--folder", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "Pending",
        "Running",
        "Completed",
        "'pi': 3.1",
        "dashboard:  http://127.0.0.1",
    ):
        assert expected in done.stdout
    script = done.stdout.split("job script: ")[1].splitlines()[0]
    assert Path(script).read_text().startswith("#!/bin/bash\n#SBATCH --job-name=hb")


def test_render_prints_a_flows_script_without_a_server(flow_folder: Path) -> None:
    done = hpc_bridge(
        "render",
        f"{flow_folder}/jobs.py:napping",
        "--set",
        "memory=2G",
        "--set",
        "nodes=2",
        PREFECT_API_URL="http://127.0.0.1:9/api",
        HPC_BRIDGE_SCHEDULER="slurm",
    )
    assert done.returncode == 0, done.stderr
    for line in ("#SBATCH --mem=2G", "#SBATCH --nodes=2", "#SBATCH --time=00:05:00"):
        assert line in done.stdout.splitlines()


def test_render_starts_no_server_of_its_own(tmp_path: Path) -> None:
    done = hpc_bridge("render", PREFECT_API_URL="", PREFECT_HOME=str(tmp_path))
    assert done.stdout.startswith("#!/bin/bash\n")
    assert "server" not in done.stderr
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "memory=banana"], "'banana' is not an amount of memory"),
        (["--set", "memroy=1G"], "did you mean 'memory'?"),
        (["--set", "memory"], "not of the form name=value"),
        (["nowhere.py:flow"], "cannot be loaded"),
    ],
)
def test_render_says_what_is_wrong(arguments: list[str], message: str) -> None:
    done = hpc_bridge("render", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# logs, jobs, clean


@pytest.fixture(scope="module")
def ended_run(server: str) -> BatchFlowRunFuture[Any]:
    """A run that has printed something and is over."""
    future: BatchFlowRunFuture[Any] = printing.submit("done")
    assert future.result() == "done"
    run = future.run_directory
    assert run is not None
    until(run.exit_record, 30, "its process has printed the last line")
    return future


@pytest.mark.parametrize("what", ["flow run id", "flow run name", "submission id", "job id"])
def test_logs_prints_the_output_of_a_run_by_each_of_its_names(
    ended_run: BatchFlowRunFuture[Any], what: str
) -> None:
    run = ended_run.run_directory
    assert run is not None
    with get_client(sync_client=True) as client:
        name = client.read_flow_run(ended_run.flow_run_id).name
    named = {
        "flow run id": str(ended_run.flow_run_id),
        "flow run name": name,
        "submission id": run.submission_id,
        "job id": str(ended_run.job_id),
    }
    done = hpc_bridge("logs", named[what])
    assert (done.returncode, done.stdout) == (0, run.output().read_text()), done.stderr
    assert "line 3 of done\n" in done.stdout
    assert (
        hpc_bridge("logs", named[what], "--lines", "1").stdout == done.stdout.splitlines(True)[-1]
    )


def test_logs_of_a_job_needs_no_server(ended_run: BatchFlowRunFuture[Any]) -> None:
    done = hpc_bridge("logs", str(ended_run.job_id), "--follow", PREFECT_API_URL=NO_SERVER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "line 3 of done\n" in done.stdout


@pytest.mark.parametrize(
    ("run", "api_url", "message"),
    [
        ("no-such-owl", None, "there is no flow run, submission or job 'no-such-owl'"),
        ("no-such-owl", "http://127.0.0.1:9/api", "does not answer"),
        ("999999", None, "has the job id 999999"),
    ],
)
def test_logs_says_what_it_did_not_find(
    server: str, run: str, api_url: str | None, message: str
) -> None:
    done = hpc_bridge("logs", run, **({"PREFECT_API_URL": api_url} if api_url else {}))
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_error(ended_run: BatchFlowRunFuture[Any]) -> None:
    run = ended_run.run_directory
    assert run is not None
    command = f"{COMMAND} logs {run.submission_id} | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n0\n") or done.stdout[1:] == "0\n"
    assert done.stderr == ""


def test_a_live_job_is_listed_and_its_output_followed_to_the_end(
    server: str, shared_dir: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    future = printing.submit("live", str(go_on))
    run = future.run_directory
    until(lambda: "line 3 of live" in run.output_tail(), 60, "the flow prints")

    [job] = [
        job
        for job in json.loads(hpc_bridge("jobs", "--json").stdout)
        if job["flow_run_id"] == str(future.flow_run_id)
    ]
    assert (job["state"], job["job_id"]) == ("RUNNING", future.job_id)
    assert job["output"] == str(run.output())
    assert job["flow_run"]
    plain = hpc_bridge("jobs", PREFECT_API_URL=NO_SERVER)
    assert plain.returncode == 0
    assert run.submission_id in plain.stdout
    assert "names of flow runs are not known" in plain.stderr
    assert hpc_bridge("clean", "--older-than", "1s", "--dry-run").returncode == 0

    with subprocess.Popen(
        [str(COMMAND), "logs", run.submission_id, "--follow"], stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        while "line 3 of live" not in following.stdout.readline():
            pass
        go_on.touch()
        rest = following.stdout.read()
    assert following.returncode == 0
    assert "went on\n" in rest
    assert future.result() == "live"


def test_ctrl_c_ends_following_quietly(server: str, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    future = printing.submit("live", str(go_on))
    run = future.run_directory
    with subprocess.Popen(
        [str(COMMAND), "logs", run.submission_id, "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        while "line 3 of live" not in following.stdout.readline():
            pass
        following.send_signal(signal.SIGINT)
        assert following.wait(HUNG) == 130
        assert following.stderr.read() == ""
    go_on.touch()
    assert future.result() == "live"


def test_clean_removes_only_what_has_ended_and_says_so(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", str(shared))
    future = printing.submit("done")
    assert future.result() == "done"
    run = future.run_directory
    until(lambda: run.exit_record() is not None, 30, "the job ends")
    if run.settled() is None:
        run.settle(0, state="COMPLETED")
    result = shared / "results" / "abc"
    result.write_bytes(b"of a run")

    assert "removed 0 run directories" in hpc_bridge("clean").stdout
    until(lambda: "would remove 1 run directory" in dry_run(), 10, "a second passes")
    assert run.path.exists()
    # A file that the end of the job writes late makes the directory young again.
    done = until(lambda: removed_by(hpc_bridge("clean", "--older-than", "1s")), 10, "it is removed")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"removed 1 run directory and 1 bundle of {shared}: ")
    assert not run.path.exists()
    assert list((shared / "bundles").iterdir()) == []
    assert result.exists()


def removed_by(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str] | None:
    return None if "removed 0 run directories" in done.stdout else done


def dry_run() -> str:
    return hpc_bridge("clean", "--older-than", "1s", "--dry-run").stdout


# service


@pytest.mark.parametrize("kind", ["systemd", "scrontab"])
def test_service_prints_a_unit_for_the_personal_pool(kind: str) -> None:
    done = hpc_bridge("service", kind, HPC_BRIDGE_SITE="alpha")
    assert done.returncode == 0, done.stderr
    assert f"alpha-{getpass.getuser()}" in done.stdout
    assert "{{" not in done.stdout
