"""Bursts: submissions for 1,000 scheduled runs that are ready at once."""

from __future__ import annotations

import time

from prefect.client.orchestration import get_client

from benchmarks.rows import Row, Run
from benchmarks.service import WorkerProcess, count_runs, create_runs, deploy, no_jobs_left, until

TITLE = "bursts: scheduled runs that are ready at once"
_LONGEST_WAIT = 1800.0
_POOL = "benchmark-bursts"


def measure(run: Run) -> list[Row]:
    """Leave them to a worker; they begin tomorrow, so that no job runs meanwhile."""
    count = 100 if run.quick else 1000
    with (
        get_client(sync_client=True) as client,
        no_jobs_left(run.shared),
        WorkerProcess(run.shared, _POOL, run.scheduler) as worker,
    ):
        deployment = deploy(client, "tomorrow", _POOL, begin="now+86400")
        create_runs(client, deployment, count)
        began = time.monotonic()
        until(
            lambda: count_runs(client, deployment, "Queued") == count,
            _LONGEST_WAIT,
            f"{count} runs are queued",
            worker.alive,
        )
        elapsed = time.monotonic() - began
        submissions = worker.commands()["sbatch"]
        memory = worker.peak_memory
    return [
        Row(
            f"{count} runs: submissions",
            f"{submissions}",
            f"{count} one each",
            submissions / count,
        ),
        Row("  until all runs say that they are queued", f"{elapsed:.0f} s"),
        Row("  memory of the worker, peak", f"{memory:.0f} MiB"),
    ]
