"""Polling: commands that the scheduler gets while 1, 50 and 500 jobs are live, and when none is."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from unittest import mock

from benchmarks.rows import Row, Run
from hpc_bridge.cluster import Cluster
from hpc_bridge.connections import connect
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import new_submission_id
from hpc_bridge.settings import POLL_INTERVAL
from hpc_bridge.watcher import WatchedJob, Watcher

TITLE = "polling: commands to the scheduler"
INTERVAL = 1.0
_PROCESSES = 4
_LONGEST_WAIT = 60.0

Job = tuple[JobId, str]


def measure(run: Run) -> list[Row]:
    """Submit, watch for some polls, alone and in several processes, cancel, and look on."""
    numbers = (1, 50, 500) if run.scheduler == "slurm" else (1, 10, 40)
    live = numbers[-1]
    polls = 5 if run.quick else 10
    connection = connect(run.scheduler, run.shared, INTERVAL)
    cluster = connection.cluster
    jobs = [_submit(cluster) for _ in range(live)]
    try:
        together = _several_processes(run, jobs, polls)
        rows = []
        for number in numbers:
            before = cluster.counters.copy()
            watched = _watch(connection.watcher, jobs[:number], polls)
            asked = cluster.counters - before
            rows.append(_row(run, number, asked, polls))
            if number < live:
                for job in watched:
                    connection.watcher.forget(job)
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
        *rows,
        Row(
            f"  {_PROCESSES} processes: commands per interval, in all",
            f"{together:.2f}",
            f"{_PROCESSES} one each",
            together / _PROCESSES,
        ),
        Row("  jobs whose state is known", f"{known}", target=f"{live}"),
        Row("  ends known after cancelling", f"{live - missing} in {until_known:.1f} s"),
        Row("no live job: commands", f"{_words(quiet)} in {polls * INTERVAL:g} s", target="0"),
    ]


def _row(run: Run, live: int, asked: Counter[str], polls: int) -> Row:
    each = asked.total() / polls
    hourly = 3600 / POLL_INTERVAL[run.scheduler]
    return Row(
        f"{live} live {'job' if live == 1 else 'jobs'}: commands per poll",
        f"{each:g}; {each * hourly:g} an hour ({polls} polls: {_words(asked)})",
        f"{live} one per job; {live * hourly:g} an hour",
        each / live,
        "1",
    )


def _submit(cluster: Cluster) -> Job:
    name = new_submission_id()
    directives = ("--mem=1M", "--time=10", "--output=/dev/null", f"--job-name={name}")
    lines = ["#!/bin/bash", *(f"#SBATCH {directive}" for directive in directives), "sleep 600\n"]
    return cluster.submit("\n".join(lines), name), name


def _watch(watcher: Watcher, jobs: Sequence[Job], polls: int) -> list[WatchedJob]:
    """Watch ``jobs`` until the watcher's own thread has polled so often."""
    with _polls(watcher, polls) as reached:
        watched = [watcher.watch(job_id, name) for job_id, name in jobs]
        if not reached.wait(_LONGEST_WAIT):
            raise TimeoutError(f"fewer than {polls} polls in {_LONGEST_WAIT:g} s")
    return watched


@contextmanager
def _polls(watcher: Watcher, number: int) -> Iterator[threading.Event]:
    """Set when the watcher has polled so often."""
    reached = threading.Event()
    poll, done = watcher.poll, 0

    def counted(newer_than: datetime | None = None) -> bool:
        nonlocal done
        usable = poll(newer_than)
        done += 1
        if done == number:
            reached.set()
        return usable

    with mock.patch.object(watcher, "poll", counted):
        yield reached


def _several_processes(run: Run, jobs: Sequence[Job], polls: int) -> float:
    """Commands of all processes per interval of the time in which they watch."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=spawn) as pool:
        watching = [pool.submit(_watch_alone, run, jobs, polls) for _ in range(_PROCESSES)]
        commands, began, ended = zip(*(future.result() for future in watching), strict=True)
    return float(sum(commands) / ((max(ended) - min(began)) / INTERVAL))


def _watch_alone(run: Run, jobs: Sequence[Job], polls: int) -> tuple[int, float, float]:
    """(commands, start, end) of one process."""
    connection = connect(run.scheduler, run.shared, INTERVAL)
    began = time.monotonic()
    _watch(connection.watcher, jobs, polls)
    return connection.cluster.counters.total(), began, time.monotonic()


def _words(commands: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(commands.items())) or "0"
