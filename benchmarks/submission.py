"""Submission: what a flow run adds over the scheduler's own submit command.

The jobs begin in an hour, so that none of them runs while the next is submitted; all are cancelled
at the end.
"""

from __future__ import annotations

import subprocess
import time
from statistics import median
from typing import Any

from prefect import flow
from prefect.bundles import create_bundle_for_flow_run  # noqa: F401  loaded before the clock runs
from prefect.client.base import PrefectHttpxAsyncClient

from benchmarks.parts import Parts
from benchmarks.rows import Row, Run, milliseconds
from hpc_bridge import slurm
from hpc_bridge.connections import connect
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import RunDirectory
from hpc_bridge.storage.bundle import BundleStore, bundles
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.workers import submission as submitting

TITLE = "submission: .submit() in a warm process"
PARTS = {
    "server calls": (PrefectHttpxAsyncClient, "send"),
    "bundling": (bundles, "create_bundle_for_flow_run"),
    "bundle file": (BundleStore, "save"),
    "job script": (submitting, "job_script"),
    "run directory": (RunDirectory, "write"),
    "sbatch": (LocalTransport, "run"),
}


@flow
def nothing(number: int) -> int:
    """The smallest flow with a parameter."""
    return number


def measure(run: Run) -> list[Row]:
    """Both ways in turn, so that neither has the machine's better half minute."""
    batch = slurm(memory="10M", walltime="5m", begin="now+3600")(nothing)
    cluster = connect(run.scheduler, run.shared, 30.0).cluster
    command = cluster.scheduler.submit_command()
    jobs: list[JobId] = []
    flows, bare = [], []
    parts = Parts()
    warm = batch.submit(0)
    script = (warm.run_directory.path / "job.sh").read_text()
    jobs.append(JobId(warm.job_id))
    try:
        for number in range(5 if run.quick else 20):
            seconds, future = _timed(lambda n: _with_parts(parts, batch, n), number)
            flows.append(seconds)
            jobs.append(JobId(future.job_id))
            seconds, done = _timed(_submit_bare, command, script)
            bare.append(seconds)
            jobs.append(JobId(done.stdout.strip().partition(";")[0]))
    finally:
        cluster.cancel(jobs)
    return _rows(flows, bare, parts)


def _with_parts(parts: Parts, batch: Any, number: int) -> Any:
    with parts.timing(PARTS):
        return batch.submit(number)


def _submit_bare(command: list[str], script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=script, capture_output=True, text=True, check=True)


def _timed(function: Any, *args: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - began, result


def _rows(flows: list[float], bare: list[float], parts: Parts) -> list[Row]:
    added = 1000 * (median(flows) - median(bare))
    rows = [
        Row(
            f".submit() (median of {len(flows)})",
            milliseconds(flows),
            f"{milliseconds(bare)} bare sbatch",
            median(flows) / median(bare),
        ),
        Row("  what the flow run adds", f"{added:.0f} ms"),
    ]
    for part, spent in parts.seconds.most_common():
        calls = parts.calls[part] / len(flows)
        rows.append(
            Row(f"  {part}, mean", f"{1000 * spent / len(flows):.0f} ms in {calls:g} calls")
        )
    rest = 1000 * (sum(flows) - sum(parts.seconds.values())) / len(flows)
    rows.append(Row("  all else, mean", f"{rest:.0f} ms"))
    return rows
