"""Submission: what a flow run adds over the scheduler's own submit command.

The jobs begin in an hour, so that none of them runs while the next is submitted; all are cancelled
at the end.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from prefect import bundles, flow
from prefect.client.base import PrefectHttpxAsyncClient
from prefect.workers.base import BaseWorker

from benchmarks.parts import Parts
from benchmarks.rows import Row, Run, milliseconds
from hpc_bridge import slurm
from hpc_bridge.connections import connect
from hpc_bridge.jobs import JobId
from hpc_bridge.storage.cluster_files import LocalFiles
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.workers import base
from hpc_bridge.workers import submission as submitting

TITLE = "submission: .submit() in a warm process"
PARTS = (
    ("server's answers", PrefectHttpxAsyncClient, "send"),
    ("worker's set-up", BaseWorker, "setup"),
    ("result storage", base, "aresolve_result_storage"),
    ("bundling", bundles, "create_bundle_for_flow_run"),
    ("files, with fsync", LocalFiles, "put"),
    ("rendering", base, "job_script"),
    ("rendering", submitting, "job_script"),
    ("node's environment", submitting, "node_environment"),
    ("submit command", LocalTransport, "run"),
)


@flow
def nothing(number: int) -> int:
    """The smallest flow with a parameter."""
    return number


def measure(run: Run) -> list[Row]:
    """Both ways in turn, so that neither has the machine's better half minute."""
    batch = slurm(memory="10M", walltime="5m", begin="now+3600")(nothing)
    cluster = connect(run.scheduler, run.shared, 30.0).cluster
    first = batch.submit(0)  # makes the pool and loads what is loaded late
    script = (first.run_directory.path / "job.sh").read_text()
    command = cluster.scheduler.submit_command("hbname")
    jobs = [first.job_id]
    flows, bare = [], []
    parts = Parts(PARTS)
    try:
        for number in range(5 if run.quick else 20):
            with parts.timing():
                flows.append(_seconds(jobs, lambda n: batch.submit(n).job_id, number))
            bare.append(_seconds(jobs, _submit, command, script))
    finally:
        cluster.cancel([JobId(job) for job in jobs])
    return _rows(flows, bare, parts, command)


def _submit(command: list[str], script: str) -> str:
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    return done.stdout.strip().partition(";")[0]


def _seconds(jobs: list[str], submit: Callable[..., str], *args: Any) -> float:
    began = time.perf_counter()
    jobs.append(submit(*args))
    return time.perf_counter() - began


def _rows(flows: list[float], bare: list[float], parts: Parts, command: Any) -> list[Row]:
    name = "sbatch" if "sbatch" in command else "submit command of the embedded scheduler"
    added = 1000 * (median(flows) - median(bare))
    rows = [
        Row(
            f"one flow run (median of {len(flows)})",
            milliseconds(flows),
            f"{milliseconds(bare)} {name}",
            median(flows) / median(bare),
        ),
        Row("  added", f"{added:.0f} ms"),
    ]
    for part, spent in parts.seconds.most_common():
        calls = parts.calls[part] / len(flows)
        rows.append(Row(f"  {part}", f"{1000 * spent / len(flows):.0f} ms in {calls:g} calls"))
    rest = 1000 * (sum(flows) - parts.seconds.total()) / len(flows)
    rows.append(Row("  all else", f"{rest:.0f} ms (parts are means)"))
    return rows
