"""Flows that the tests run as a researcher would: as a script, or from a deployment.

``python jobs.py CASE ...`` prints one line of JSON a case: what came back, or what was raised.
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.logging import get_run_logger

from hpc_bridge import slurm

JOB = {"memory": "600M", "walltime": "5m"}


class OwnError(Exception):
    """Defined in the caller's script only."""


@dataclasses.dataclass
class Point:
    x: int = 1
    tags: list[str] = dataclasses.field(default_factory=list)


class Own:
    def __init__(self, value: int) -> None:
        self.value = value


@task
def square(x: int) -> int:
    return x * x


def note_hook(flow: Any, flow_run: Any, state: Any) -> None:
    """Hooks leave a file, so that a test sees that they ran, and how often."""
    folder = pathlib.Path(os.environ["HOOK_DIR"])
    with (folder / f"{flow_run.id}.{state.type.value}").open("a") as file:
        file.write("ran\n")


@slurm(**JOB)
@flow
def types(s: set[int], a: np.ndarray, p: Point, o: Own) -> list[Any]:
    return [
        sorted(s),
        type(s).__name__,
        a.sum().item(),
        a.dtype.name,
        p.x,
        isinstance(p, Point),
        isinstance(o, Own),
        o.value,
    ]


@slurm(**JOB)
@flow(on_crashed=[note_hook], on_cancellation=[note_hook])
def end(how: str) -> str:
    get_run_logger().info("about to end by %s", how)
    print("printed by the flow", flush=True)
    if how == "raise":
        raise OwnError("my own words", 42)
    if how == "exit":
        sys.exit(3)
    if how == "_exit":
        os._exit(3)
    if how == "memory":
        return str(len(b"\1" * 2**31))
    if how == "hoard":
        kept = b"\1" * 800_000_000
        time.sleep(300)
        return str(len(kept))
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segv":
        ctypes.string_at(0)
    if how == "sleep":
        time.sleep(300)
    return how


@slurm(**JOB)
@flow
async def asynchronous(x: int) -> int:
    await asyncio.sleep(0.01)
    return square(x)


@slurm(**JOB)
@flow
def ten_times(x: int) -> int:
    return 10 * x


@flow
def parent(x: int) -> int:
    return ten_times(x)


@slurm(**JOB)
@flow
def parent_in_a_job(x: int) -> int:
    return ten_times(x)


@slurm(**JOB, include_files=["data/", "!data/secret.txt"])
@flow
def files() -> list[str]:
    return sorted(str(path) for path in pathlib.Path("data").rglob("*") if path.is_file())


@slurm(**JOB)
@flow
def surroundings() -> dict[str, Any]:
    job = os.environ.get("SLURM_JOB_ID", "")
    return {
        "cwd": str(pathlib.Path.cwd()),
        "job": job,
        "value": os.environ.get("VALUE"),
        "leaked": os.environ.get("MARKER"),
        "executable": sys.argv[0] and sys.executable,
        "launcher": os.environ.get("LAUNCHED_BY"),
    }


@slurm(**JOB)
@flow
def napping(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@slurm(**JOB)
@flow(on_crashed=[note_hook], on_cancellation=[note_hook])
def counted(seconds: float = 0, how: str = "") -> float:
    """Every start leaves a line in HOOK_DIR, so that a test counts what was done.

    ``how`` has words: children, stubborn, _exit; gated waits until there is a file ``<run>.go``.
    """
    hows = how.split()
    folder = pathlib.Path(os.environ["HOOK_DIR"])
    run = os.environ["PREFECT__FLOW_RUN_ID"]
    with (folder / f"{run}.starts").open("a") as file:
        file.write(f"{os.environ['SLURM_JOB_ID']}\n")
    if "children" in hows:
        commands = [["sleep", "301"], ["setsid", "sleep", "302"]]
        children = [subprocess.Popen(command) for command in commands]
        text = " ".join(str(child.pid) for child in children)
        (folder / f"{run}.children").write_text(text)
    while "gated" in hows and not (folder / f"{run}.go").exists():
        time.sleep(0.2)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            time.sleep(ends - time.monotonic())
        except BaseException:
            if "stubborn" not in hows:
                raise
    if "_exit" in hows:
        os._exit(3)
    return seconds


@slurm(**JOB)
@flow
async def patient(seconds: float) -> None:
    await asyncio.sleep(seconds)


def result_of(call: Callable[[], Any]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        answer: dict[str, Any] = {"result": call()}
    except BaseException as error:
        answer = {"raised": type(error).__name__, "text": str(error), "args": repr(error.args)}
    return answer | {"seconds": round(time.monotonic() - started, 2)}


def weird(text: str) -> Any:
    """The same text as name, comment and environment value; refused or byte for byte."""
    bound = surroundings.with_options(
        job_variables={"name": text, "comment": text, "env": {"VALUE": text}}
    )
    return bound()


def submit_and_leave() -> str:
    """The caller ends at once; the job goes on."""
    future = napping.submit(1)
    sys.stdout.write(json.dumps({"flow_run_id": str(future.flow_run_id), "job": future.job_id}))
    sys.stdout.flush()
    os._exit(0)


CASES: dict[str, Callable[[], Any]] = {
    "types": lambda: types({3, 1}, np.arange(4, dtype="int16"), Point(5), Own(6)),
    "raise": lambda: end("raise"),
    "exit": lambda: end("exit"),
    "kill": lambda: end("kill"),
    "segv": lambda: end("segv"),
    "memory": lambda: end("memory"),
    "async": lambda: asyncio.run(asynchronous(7)),
    "parent": lambda: parent(2),
    "parent_in_a_job": lambda: parent_in_a_job(3),
    "files": files,
    "surroundings": surroundings,
    "state": lambda: str(end("raise", return_state=True).type.value),
    "submit": lambda: napping.submit(0.1).result(),
    "submit_and_leave": submit_and_leave,
    "pool": lambda: napping.submit_to_work_pool(0.2).result(timeout=90),
    "launcher": lambda: surroundings.with_options(
        launcher={"execution": ["env", "LAUNCHED_BY=me", sys.executable]}
    )(),
    "partition": lambda: ten_times.with_options(job_variables={"partition": "nope"})(1),
    "partition_by_worker": lambda: (
        ten_times.with_options(job_variables={"partition": "nope"})
        .submit_to_work_pool(1)
        .result(timeout=60)
    ),
    "account": lambda: ten_times.with_options(job_variables={"account": "nope"})(1),
    "weird": lambda: weird(os.environ["WEIRD"]),
    "cwd_missing": lambda: ten_times.with_options(job_variables={"working_directory": "/nowhere"})(
        1
    ),
    "python_missing": lambda: ten_times.with_options(
        job_variables={"python": "/nowhere/bin/python"}
    )(1),
}


if __name__ == "__main__":
    for case in sys.argv[1:]:
        sys.stdout.write(json.dumps({"case": case, **result_of(CASES[case])}) + "\n")
        sys.stdout.flush()
