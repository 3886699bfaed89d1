"""The hpc-bridge command, as a person starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("hpc-bridge")


def hpc_bridge(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *arguments],
        env=dict(os.environ) | {"COLUMNS": "200"} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_demo_shows_the_whole_main_job(tmp_path: Path) -> None:
    done = hpc_bridge("demo", "--folder", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("Queued", "Running", "Completed", "'pi': 3.1", "dashboard:  http://127.0.0.1"):
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
