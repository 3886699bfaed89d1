"""Flows that run more than once for one flow run; each start and each step leaves a line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.flow_runs import suspend_flow_run

from hpc_bridge import slurm

JOB: dict[str, Any] = {"memory": "600M", "walltime": "5m"}


def note(name: str) -> int:
    """One more line of a kind; returns how many there are."""
    path = Path(os.environ["HOOK_DIR"]) / name
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


@task(persist_result=True)
def kept() -> str:
    note("kept")
    return "kept"


@task(persist_result=False)
def done_again() -> None:
    note("done_again")


def crashed(flow: Any, flow_run: Any, state: Any) -> None:
    note("crashed")


@slurm(**JOB)
@flow(on_crashed=[crashed])
def restarted(how: str) -> str:
    """What happens at its first start; a later one comes to the end."""
    value = kept()
    done_again()
    first = note("starts") == 1
    if how == "wait" and first:
        time.sleep(300)
    if how == "fail" and first:
        raise ValueError("the first time")
    if how == "suspend":
        suspend_flow_run(timeout=300)
    return value
