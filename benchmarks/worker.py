"""Worker: memory and CPU with 500 live jobs, which are submitted through it as one burst.

All but a few wait in the queue: a job of tomorrow is as live as one that runs. Prefect's own
process worker, which has nothing to do meanwhile, runs beside it.
"""

from __future__ import annotations

import time
from collections import Counter

from prefect.client.orchestration import get_client

from benchmarks.rows import Row, Run
from benchmarks.service import (
    Cost,
    WorkerProcess,
    count_runs,
    create_runs,
    deploy,
    no_jobs_left,
    until,
)

TITLE = "worker: 500 live jobs"
INTERVAL = 30.0
_POLLS = 2
_RUNNING = 4
_LONGEST_WAIT = 600.0
_POOL = "benchmark-worker"


def measure(run: Run) -> list[Row]:
    """Start both, submit, wait until all are in the queue, and look on for two polls."""
    live = 50 if run.quick else 500
    interval = {"HPC_BRIDGE_POLL_INTERVAL": f"{INTERVAL:g}"}
    with (
        get_client(sync_client=True) as client,
        no_jobs_left(run.shared),
        WorkerProcess(run.shared, "benchmark-process", "process") as prefects,
        WorkerProcess(run.shared, _POOL, run.scheduler, **interval) as worker,
    ):
        waiting = deploy(client, "tomorrow", _POOL, begin="now+86400")
        running = deploy(client, "print_lines", _POOL)
        empty = worker.peak_memory
        create_runs(client, running, _RUNNING)
        create_runs(client, waiting, live - _RUNNING)
        began = worker.cost()

        def are_live() -> bool:
            queued = count_runs(client, waiting, "Queued")
            return queued + count_runs(client, running, "Running") == live

        until(are_live, _LONGEST_WAIT, f"{live} jobs are live", worker.alive)
        submitted = worker.commands()["sbatch"]
        taken = worker.cost()
        before, commands = (prefects.cost(), taken), worker.commands()
        time.sleep(_POLLS * INTERVAL)
        after, asked = (prefects.cost(), worker.cost()), worker.commands() - commands
        memory = prefects.peak_memory, worker.peak_memory
    return [
        Row(
            "no job: memory, peak",
            f"{empty:.0f} MiB",
            f"{memory[0]:.0f} MiB Prefect's process worker, idle",
            empty / memory[0],
        ),
        Row(
            f"{live} live jobs, {_RUNNING} of them running: memory, peak",
            f"{memory[1]:.0f} MiB",
            f"{memory[0]:.0f} MiB",
            memory[1] / memory[0],
            "< 300 MiB",
        ),
        _cpu_row(before, after),
        _commands_row(asked),
        Row(
            f"{live} runs ready at once: submissions",
            f"{submitted}",
            f"{live} one each",
            submitted / live,
        ),
        Row("  until all are known to be live", f"{taken.at - began.at:.0f} s"),
        Row("  CPU of the worker for it", f"{1000 * (taken.cpu - began.cpu) / live:.0f} ms a run"),
    ]


def _cpu_row(before: tuple[Cost, Cost], after: tuple[Cost, Cost]) -> Row:
    prefects, ours = (cost.percent_until(later) for cost, later in zip(before, after, strict=True))
    # No ratio: the baseline is about nothing.
    return Row(
        f"  CPU over {_POLLS} polls",
        f"{ours:.1f} % of a core",
        f"{prefects:.2f} % Prefect's process worker, idle",
        target="a few %",
    )


def _commands_row(asked: Counter[str]) -> Row:
    words = ", ".join(f"{count} {name}" for name, count in sorted(asked.items())) or "0"
    hourly = asked.total() * 3600 / (_POLLS * INTERVAL)
    return Row(f"  commands in {_POLLS} polls", f"{words}; {hourly:.0f} an hour")
