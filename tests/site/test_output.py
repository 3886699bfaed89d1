"""What jobs print comes into their runs' logs once; runs and jobs find each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Log

from tests.server import server_client
from tests.site.conftest import Site, Worker, job_of, read
from tests.waiting import HUNG, until

POOL = "output"
FLOWS = r"""
import os, subprocess, sys, time
from pathlib import Path
from prefect import flow, get_run_logger
from hpc_bridge import slurm

GO_ON = Path.home() / "output-go-on"

@slurm(memory="300M", walltime="5m", setup=["echo from a setup line"])
@flow
def talking(lines: int) -> None:
    get_run_logger().info("said by the logger")
    print("printed before")
    subprocess.run(["srun", "--overlap", "echo", "echoed by a step"], check=True)
    os.write(1, b"not UTF-8: \xff\xfe end\n")
    for number in range(lines):
        print(f"line {number}", flush=True)
        time.sleep(0.1)
    while not GO_ON.exists():
        time.sleep(0.2)
    print("printed after", flush=True)
    get_run_logger().warning("said at the end")
    burn(10)

def burn(seconds):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        sum(range(1000))
"""
SUBMIT = """
import sys
from output_flows import talking
print(talking.submit_to_work_pool(int(sys.argv[1])).flow_run_id)
"""
COMMAND = str(Path(sys.prefix) / "bin/hpc-bridge")
LINES = 60


@pytest.fixture(scope="module")
def run(site: Site) -> Iterator[UUID]:
    """A flow run whose worker is killed while the job prints; another worker goes on."""
    site.put("output_flows.py", FLOWS)
    site.put("submit_output.py", SUBMIT)
    site.shell("rm -f output-go-on")
    with Worker(site, POOL, "output-first") as first:
        run = submitted(site, LINES)
        try:
            until(lambda: "line 20" in relayed(run), 90, "the output comes while the job runs")
            first.kill()
            with Worker(site, POOL, "output-second"):
                yield run
        finally:
            site.batch.cancel_all()


@pytest.fixture(scope="module")
def followed(site: Site, run: UUID) -> Iterator[subprocess.Popen[str]]:
    """``hpc-bridge logs RUN --follow``, begun while the job runs."""
    process = site.start(
        *(COMMAND, "logs", str(run), "--follow"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    yield process
    process.terminate()
    process.wait(HUNG)


@pytest.fixture(scope="module")
def over(site: Site, run: UUID, followed: subprocess.Popen[str]) -> UUID:
    """The same run when it is over and all of it is told."""
    until(lambda: f"line {LINES - 1}" in relayed(run), 60, "a new worker goes on with the output")
    site.shell("touch output-go-on")
    until(lambda: read(run).state.is_completed(), 90, "the flow ends")
    until(lambda: usage(run), 60, "the job's end is told")
    return run


def submitted(site: Site, lines: int) -> UUID:
    done = site.python("submit_output.py", str(lines), HPC_BRIDGE_WORK_POOL=POOL)
    assert done.returncode == 0, done.stderr
    return UUID(done.stdout.strip())


def logs(run: UUID) -> list[Log]:
    with server_client() as client:
        of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        return list(client.read_logs(of_run, limit=200))


def relayed(run: UUID) -> list[str]:
    """Lines of the job's output that have come into the run's logs."""
    found = [log.message for log in logs(run) if log.name == "hpc_bridge.job"]
    return "\n".join(found).splitlines()


def usage(run: UUID) -> list[Any]:
    with server_client() as client:
        of_run = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run]),
            key=ArtifactFilterKey(any_=["hpc-job-usage"]),  # results are artifacts, too
        )
        return list(client.read_artifacts(artifact_filter=of_run))


def test_slurms_own_last_line_comes_too(site: Site, run: UUID) -> None:
    cancelled = submitted(site, 1)
    until(lambda: "line 0" in relayed(cancelled), 90, "it runs")
    site.batch.cancel(job_of(cancelled), user="root")
    until(lambda: usage(cancelled), 60, "its end is told")
    assert sum("CANCELLED AT" in line for line in relayed(cancelled)) == 1


def test_a_live_job_is_listed_with_its_run(site: Site, run: UUID) -> None:
    job = job_of(run)
    done = site.run(COMMAND, "jobs")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{job} ")]
    assert str(run) in line
    assert "RUNNING" in line.upper()
    assert read(run).name in line


def test_a_run_names_its_job(site: Site, run: UUID) -> None:
    flow_run = read(run)
    scheduler, job, submission = flow_run.infrastructure_pid.split(":")
    assert scheduler == site.batch.name
    assert site.batch.name_of(job) == submission
    assert flow_run.labels["hpc-bridge.job-id"] == job


def test_each_line_comes_once_although_the_worker_was_killed(over: UUID) -> None:
    lines = relayed(over)
    expected = [
        "from a setup line",
        "printed before",
        "echoed by a step",
        "not UTF-8: \ufffd\ufffd end",
        *(f"line {number}" for number in range(LINES)),
        "printed after",
    ]
    assert [line for line in lines if line in expected] == expected


def test_what_the_flow_logs_is_not_doubled(over: UUID) -> None:
    messages = "\n".join(log.message for log in logs(over))
    assert messages.count("said by the logger") == 1
    assert messages.count("said at the end") == 1


def test_the_file_itself_is_followed_to_the_end(
    site: Site, over: UUID, followed: subprocess.Popen[str]
) -> None:
    shown = followed.communicate(timeout=HUNG)[0]
    submission = read(over).infrastructure_pid.split(":")[2]
    output = site.home() / ".hpc-bridge/runs" / submission / "job.out"
    assert shown == output.read_text(errors="replace")
    assert shown.count("printed after") == 1
    assert "said at the end" in shown


def test_the_usage_has_walltime_cpus_and_memory(over: UUID) -> None:
    (artifact,) = usage(over)
    rows = {row.split("|")[1].strip(): row for row in artifact.data.splitlines() if "|" in row}
    assert "| 00:05:00 | 00:0" in rows["Walltime"]
    assert "| 1 | 00:00:" in rows["CPUs"]
    assert "| 300M | " in rows["Memory"]
    assert "not recorded" not in artifact.data
    assert float(artifact.metadata_["wall_seconds"]) >= 10
    assert float(artifact.metadata_["max_memory_mib"]) > 20
