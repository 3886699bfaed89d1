"""The drill's flow. Every start, step and success is one line of a file that nobody else writes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.flow_runs import suspend_flow_run

from hpc_bridge import slurm

_FOR_EVER = 3600


class OwnError(Exception):
    """Of the flow that is to fail."""


def note(what: str, **more: Any) -> None:
    """Append a line; a short write to a file opened so is one piece (POSIX, O_APPEND)."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    line = {
        "what": what,
        "flow_run": os.environ["PREFECT__FLOW_RUN_ID"],
        "submission": Path(os.environ["HPC_BRIDGE_RUN_DIR"]).name,
        "job": f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"],
        "attempt": int(os.environ["HPC_BRIDGE_ATTEMPT"]),
        "time": time.time(),
        **more,
    }
    file = os.open(os.environ["DRILL_EFFECTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


def has_run_before() -> bool:
    """Whether an earlier submission of this flow run has started."""
    lines = Path(os.environ["DRILL_EFFECTS"]).read_text().splitlines()
    own = os.environ["PREFECT__FLOW_RUN_ID"], Path(os.environ["HPC_BRIDGE_RUN_DIR"]).name
    starts = [json.loads(line) for line in lines]
    return any(line["flow_run"] == own[0] and line["submission"] != own[1] for line in starts)


@task(persist_result=True)
def step(number: int) -> int:
    """Done once for one flow run, when its result was kept."""
    note("step", step=number)
    return number


@slurm
@flow
def work(how: str, seconds: float) -> str:
    """Leave a line at the start, and one, the effect, at the successful end."""
    note("start")
    if how == "tasks":
        for number in range(3):
            step(number)
            time.sleep(seconds / 3)
    elif how == "overrun" or (how == "resubmit" and not has_run_before()):
        time.sleep(_FOR_EVER)
    else:
        time.sleep(seconds)
    if how == "raise":
        raise OwnError("as planned")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "suspend":
        suspend_flow_run(timeout=_FOR_EVER)
    note("effect")
    return how
