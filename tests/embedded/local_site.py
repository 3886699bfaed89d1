"""The embedded scheduler's command in a folder of its own, and the processes of its jobs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.local import LocalScheduler
from tests.waiting import PATIENCE

T = TypeVar("T")
DEADLINE = 20.0 * PATIENCE
GATED = "until [ -e gate ]; do sleep 0.02; done\n"
"""A script that runs until the test opens its gate."""
LONG = f"120.{os.getpid()}"
"""Seconds that a script sleeps; they tell its processes from those of other test runs."""


class Site:
    """A state directory, a folder to work in, and the scheduler as the cluster uses it."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.state = folder / "state"
        self.work = folder / "work"
        self.work.mkdir()
        self.scheduler = LocalScheduler(self.state, cpus=cpus)

    def run(self, argv: list[str], stdin: str = "", **environment: str) -> Answer:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            cwd=self.work,
            env={**os.environ, **environment},
        )
        return Answer(tuple(argv), done.returncode, done.stdout, done.stderr)

    def command(self, *words: str) -> Answer:
        return self.run([*self.scheduler.submit_command("hbname")[:-1], *words])

    def submit(self, body: str, *directives: str, shebang: str = "#!/bin/bash") -> JobId:
        lines = [shebang, *(f"#SBATCH {directive}" for directive in directives), body]
        answer = self.run(self.scheduler.submit_command("hbname"), "\n".join(lines) + "\n")
        return self.scheduler.parse_submit(answer)

    def statuses(self) -> dict[JobId, JobStatus]:
        return self.scheduler.parse_status(self.run(self.scheduler.status_command("me")))

    def status(self, job: JobId) -> JobStatus:
        return self.statuses()[job]

    def wait(self, job: JobId, *states: JobState) -> JobStatus:
        def reached() -> JobStatus | None:
            status = self.status(job)
            return status if status.state in states else None

        return until(reached, f"job {job} to be {states}")

    def end(self, job: JobId) -> JobStatus:
        def ended() -> JobStatus | None:
            status = self.status(job)
            return status if status.state.is_terminal else None

        return until(ended, f"the end of job {job}")

    def cancel(self, *jobs: JobId) -> None:
        self.scheduler.parse_cancel(self.run(self.scheduler.cancel_command(jobs)))

    def open_gate(self) -> None:
        (self.work / "gate").touch()

    def output(self, job: JobId) -> str:
        return (self.work / f"slurm-{job}.out").read_text()

    def keeper(self, job: JobId) -> int:
        words = [f"--state={self.state}", "keep", job.value]
        found = processes(lambda argv: any(argv[at : at + 3] == words for at in range(len(argv))))
        # Beside the keeper there may be its child that waits for a lock.
        (keeper,) = [pid for pid in found if parent(pid) not in {None, *found}]
        return keeper

    def members(self, job: JobId) -> list[int]:
        mark = f"HPC_BRIDGE_LOCAL_JOB={self.state}/jobs/{job}"
        return processes(lambda entries: mark in entries, "environ")


def until(condition: Callable[[], T | None], what: str) -> T:
    """What ``condition`` gives as soon as it is true; fails after the deadline."""
    give_up = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def processes(wanted: Callable[[list[str]], bool], file: str = "cmdline") -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / file).read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            if wanted(words):
                found.append(int(folder.name))
    return found


def sleepers() -> list[int]:
    return processes(lambda argv: argv[:2] == ["sleep", LONG])


def parent(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
