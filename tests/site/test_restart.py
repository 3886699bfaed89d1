"""kill -9 at any point, on a real Slurm: every run ends right, by one job, with one effect."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.site.conftest import (
    Caller,
    Site,
    Worker,
    burst,
    counted_deployment,
    create_run,
    ends,
    job_of,
    read,
    side_by_side,
)
from tests.waiting import until

FOLDER = "/home/researcher/restarts"
ADOPTED = 20
"""Seconds for a worker's start-up and one poll, on a machine that has much else to do."""


@pytest.fixture(scope="module", autouse=True)
def folder(site: Site) -> str:
    site.shell(f"mkdir -p {FOLDER}")
    return FOLDER


def starts(site: Site, run: UUID) -> list[str]:
    """Jobs that have begun the flow, one a start."""
    path = site.home() / "restarts" / f"{run}.starts"
    return path.read_text().split() if path.exists() else []


def jobs_named(site: Site, *runs: UUID) -> list[int]:
    """How many jobs the accounting knows of each run's submission."""
    names = [read(run).infrastructure_pid.split(":")[2] for run in runs]
    found = site.shell("sacct --noheader -X --starttime=now-1hour --format=JobName%20").split()
    return [found.count(name) for name in names]


def until_all(runs: list[UUID], name: str, seconds: float = 120) -> None:
    until(lambda: all(read(run).state.name == name for run in runs), seconds, f"all are {name}")


def is_looked_after(site: Site, run: UUID, worker: Worker) -> bool:
    """Whether the worker holds the newest claim on the run's submission."""
    reference = read(run).infrastructure_pid
    if reference is None:
        return False
    folder = site.home() / ".hpc-bridge/runs" / reference.split(":")[2]
    newest = max(folder.glob("tracker.*"), key=lambda path: int(path.name.split(".")[1]))
    return f"-{worker.pid}-" in newest.read_text()


@contextmanager
def killing_sbatch(site: Site, name: str, before: str, after: str) -> Iterator[str]:
    """A folder with an sbatch that kills who called it, once, before or after the real one."""
    site.put(
        f"{name}/sbatch",
        "#!/bin/bash\n"
        f"[ -e ~/{name}/done ] && exec /usr/bin/sbatch \"$@\"\n"
        f"touch ~/{name}/done\n"
        f"{before}\n"
        "/usr/bin/sbatch \"$@\"\n"
        f"{after}\n",
    )
    site.shell(f"chmod +x ~/{name}/sbatch && rm -f ~/{name}/done")
    yield f"/home/researcher/{name}:/usr/local/bin:/usr/bin:/bin"
