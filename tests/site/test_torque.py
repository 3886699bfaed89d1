"""The dialect torque on Debian's wrappers of a real Slurm."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_site_script
from tests.site.conftest import OF_SITE, Site, side_by_side

COMMAND = str(Path(sys.executable).parent / "hpc-bridge")
FOLDER = "/home/researcher/torque"
VARIABLES = {"HPC_BRIDGE_SITE": "tq", "HPC_BRIDGE_SITES": f"{FOLDER}/sites"}
FLOWS = """
import json, os, sys, time
from prefect import flow
from hpc_bridge import pbs


@pbs(memory="600M", walltime="2m")
@flow
def job(how: str = "") -> dict[str, str]:
    if how == "_exit":
        print("last words", flush=True)
        os._exit(3)
    if how == "sleep":
        time.sleep(300)
    return dict(os.environ)


how, options = sys.argv[1], json.loads(sys.argv[2])
flow = job.with_options(job_variables=options)
try:
    future = flow.submit(how)
    if how == "sleep":
        future.cancel()
    future.wait()
    state = future.state
    result = future.result() if state.is_completed() else None
    print(json.dumps({"state": state.name, "message": state.message, "result": result}))
except Exception as error:
    print(json.dumps({"raised": type(error).__name__, "message": str(error)}))
"""


@pytest.fixture(scope="module", autouse=True)
def wrappers(site: Site) -> Iterator[None]:
    done = run_site_script("install", *OF_SITE, "slurm-wlm-torque")
    assert done.returncode == 0, done.stdout
    scheduler = {"type": "pbs", "dialect": "torque", "poll_interval": 1}
    site.put("torque/sites/tq.yaml", json.dumps({"name": "tq", "scheduler": scheduler}))
    site.put("torque/flows.py", FLOWS)
    yield
    site.shell(f"rm -r {FOLDER}")


def call(site: Site, how: str = "", **options: object) -> dict[str, Any]:
    done = site.python(f"{FOLDER}/flows.py", how, json.dumps(options), **VARIABLES, MARKER="leaked")
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_jobs_get_what_they_ask_for_and_their_ends_are_told(site: Site) -> None:
    def gpu() -> None:
        result = call(site, queue="gpu", gpus=1, cpus_per_task=2)["result"]
        assert result["SLURM_JOB_PARTITION"] == "gpu"
        assert result["SLURM_CPUS_PER_TASK"] == "2"
        assert result["SLURM_MEM_PER_NODE"] == "600"
        assert result["SLURM_JOB_GPUS"]
        assert "MARKER" not in result

    def ends_without_a_word() -> None:
        told = call(site, "_exit")
        assert told["state"] == "JobFailed"
        assert "with exit code 3" in told["message"]
        assert "last words" in told["message"]

    def cancelled_in_the_queue() -> None:
        told = call(site, "sleep", begin="2030-01-31T08:00")
        assert told["state"] == "Cancelled"

    def refused() -> None:
        told = call(site, queue="nope")
        assert told["raised"] == "SubmissionRefused"
        assert "invalid partition specified: nope" in told["message"]

    side_by_side(gpu, ends_without_a_word, cancelled_in_the_queue, refused)
    left = site.shell(
        "squeue --noheader --user researcher --format '%j %r' | grep '^hb.* BeginTime' || :"
    )
    assert left == ""


def test_the_queues_are_listed(site: Site) -> None:
    done = site.run(COMMAND, "queue", "--json", **VARIABLES)
    assert done.returncode == 0, done.stderr
    listed = [queue["name"] for queue in json.loads(done.stdout)["queues"]]
    assert listed == ["cpu", "gpu", "scavenge", "scavrq"]
