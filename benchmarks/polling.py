"""Polling: commands that the scheduler gets while 200 jobs are live, and when none is."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import wait

from benchmarks.rows import Row, Run
from hpc_bridge.cluster import Cluster
from hpc_bridge.connections import connect
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import new_submission_id
from hpc_bridge.watcher import Watcher

TITLE = "polling: commands to the scheduler"
INTERVAL = 1.5
_LONGEST_WAIT = 60.0


def measure(run: Run) -> list[Row]:
    """Submit, watch for some polls, cancel, and look on for as long again."""
    live = 200 if run.scheduler == "slurm" else 40
    polls = 4 if run.quick else 10
    connection = connect(run.scheduler, run.shared, INTERVAL)
    cluster, watcher = connection.cluster, connection.watcher
    jobs = [_submit(cluster) for _ in range(live)]
    try:
        before = cluster.counters.copy()
        polled = _after_polls(watcher, polls)
        watched = [watcher.watch(job_id, name) for job_id, name in jobs]
        if not polled.wait(_LONGEST_WAIT):
            raise TimeoutError(f"fewer than {polls} polls in {_LONGEST_WAIT:g} s")
        asked = cluster.counters - before
        known = sum(job.latest is not None for job in watched)
    finally:
        cluster.cancel([job_id for job_id, _ in jobs])
    cancelled = time.monotonic()
    missing = len(wait([job.done for job in watched], timeout=_LONGEST_WAIT).not_done)
    until_known = time.monotonic() - cancelled
    before = cluster.counters.copy()
    time.sleep(polls * INTERVAL)
    quiet = cluster.counters - before
    return [
        Row(
            f"{live} live jobs, {polls} polls: commands per poll",
            f"{asked.total() / polls:g} ({_words(asked)})",
            f"{live} one per job",
            asked.total() / polls / live,
            "1",
        ),
        Row("  jobs whose state is known", f"{known}", target=f"{live}"),
        Row("  ends known after scancel", f"{live - missing} in {until_known:.1f} s"),
        Row(f"no live job, {polls * INTERVAL:g} s: commands", _words(quiet), target="0"),
    ]


def _submit(cluster: Cluster) -> tuple[JobId, str]:
    name = new_submission_id()
    directives = ("--mem=1M", "--time=10", "--output=/dev/null", f"--job-name={name}")
    lines = ["#!/bin/bash", *(f"#SBATCH {directive}" for directive in directives), "sleep 600\n"]
    return cluster.submit("\n".join(lines), name), name


def _after_polls(watcher: Watcher, number: int) -> threading.Event:
    """Set as soon as the watcher's own thread has polled so often."""
    reached = threading.Event()
    poll, done = watcher.poll, 0

    def counted() -> bool:
        nonlocal done
        usable = poll()
        done += 1
        if done == number:
            reached.set()
        return usable

    watcher.poll = counted  # type: ignore[method-assign]
    return reached


def _words(commands: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(commands.items())) or "0"
