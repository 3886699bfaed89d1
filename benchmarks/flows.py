"""What the jobs of the benchmarks do, from deployments whose entrypoint is this file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from prefect import flow


@flow
def say_the_end(at: float, folder: str) -> None:
    """End at a moment (seconds since the epoch), as flows do."""
    _wait_and_note(at, folder)


@flow
def vanish(at: float, folder: str) -> None:
    """End at a moment so that only the scheduler knows: nobody is left who could say so."""
    processes = [os.getpid()]
    for _ in ("supervisor", "job script"):
        stat = Path(f"/proc/{processes[-1]}/stat").read_text()
        processes.append(int(stat.rpartition(")")[2].split()[1]))
    _wait_and_note(at, folder)
    for process in reversed(processes):
        os.kill(process, signal.SIGKILL)


@flow
def print_lines() -> None:
    """A line every second until the walltime."""
    while True:
        print("still here")  # job output, which the worker relays
        time.sleep(1)


@flow
def tomorrow() -> None:
    """Its jobs begin tomorrow, and so never."""


def _wait_and_note(at: float, folder: str) -> None:
    time.sleep(max(0.0, at - time.time()))
    note = Path(folder, os.environ["PREFECT__FLOW_RUN_ID"])
    note.write_text(f"{os.environ['SLURM_JOB_ID']} {time.time()}")
