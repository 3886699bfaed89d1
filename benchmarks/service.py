"""A worker in a process of its own: what it costs, and the commands that it runs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from benchmarks.places import CHECKOUT
from hpc_bridge.journal import RunDirectory

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")
_START_SECONDS = 90.0
_STOP_SECONDS = 15.0
_MOST_AT_ONCE = 50
_PREFETCH = timedelta(seconds=10)  # a worker's own, as it comes
_MIB = 1024  # /proc says kB


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a process until a moment (monotonic)."""

    at: float
    cpu: float
    """Seconds, those of the commands that it has run too."""

    def percent_until(self, later: Cost) -> float:
        """Of one core, on average."""
        return 100 * (later.cpu - self.cpu) / (later.at - self.at)


class WorkerProcess:
    """``prefect worker start`` on this machine; ``folder`` holds its log."""

    def __init__(self, folder: Path, pool: str, kind: str, **variables: str) -> None:
        self._folder = folder / pool
        self._folder.mkdir(mode=0o700, parents=True)
        self._log = self._folder / "worker.log"
        self._commands = self._folder / "commands"
        self._commands.touch()
        environment = os.environ | {
            "PATH": f"{self._wrappers()}:{os.environ['PATH']}",
            "PREFECT_LOGGING_LEVEL": "INFO",
            **variables,
        }
        argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def __enter__(self) -> WorkerProcess:
        try:
            until(lambda: "started!" in self.text, _START_SECONDS, "the worker starts", self.alive)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; its jobs stay."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def text(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    def alive(self) -> None:
        """Raises RuntimeError with the log when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the worker has ended: {self.text}")

    @property
    def peak_memory(self) -> float:
        """Resident, in MiB, the most so far."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        sizes = dict(line.split(":", 1) for line in lines)
        return int(sizes["VmHWM"].split()[0]) / _MIB

    def cost(self) -> Cost:
        """Until now."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        # proc(5): 14 to 17 are its own and its ended children's times in ticks.
        ticks = sum(map(int, stat[11:15]))
        return Cost(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"))

    def commands(self) -> Counter[str]:
        """Commands of the scheduler that it has run so far."""
        return Counter(self._commands.read_text().split())

    def _wrappers(self) -> Path:
        """A folder for its PATH: independent of what the worker says of itself."""
        wrappers = self._folder / "bin"
        wrappers.mkdir()
        for name in COMMANDS:
            path = shutil.which(name)
            if path is None:
                continue
            lines = [
                "#!/bin/sh",
                f"echo {name} >> {shlex.quote(str(self._commands))}",
                f'exec {shlex.quote(path)} "$@"',
            ]
            (wrappers / name).write_text("\n".join(lines) + "\n")
            (wrappers / name).chmod(0o700)
        return wrappers


def until(
    condition: Callable[[], Any], seconds: float, what: str, check: Callable[[], None] | None = None
) -> Any:
    """The first true value of ``condition``. Raises TimeoutError, and what ``check`` raises."""
    ends = time.monotonic() + seconds
    while not (value := condition()):
        if check is not None:
            check()
        if time.monotonic() > ends:
            raise TimeoutError(f"after {seconds:g} s not yet: {what}")
        time.sleep(1)  # the server has enough to do
    return value


def deploy(client: SyncPrefectClient, name: str, pool: str, **job_variables: Any) -> UUID:
    """A deployment of one of ``benchmarks.flows``."""
    folder = {"directory": str(CHECKOUT)}
    return client.create_deployment(
        client.create_flow_from_name(name.replace("_", "-")),
        name=pool,
        entrypoint=f"benchmarks/flows.py:{name}",
        pull_steps=[{"prefect.deployments.steps.set_working_directory": folder}],
        work_pool_name=pool,
        job_variables={"memory": "300M", "walltime": "30m"} | job_variables,
    )


def create_runs(client: SyncPrefectClient, deployment: UUID, number: int) -> None:
    """Runs that are scheduled for the same moment; returns when workers begin to take them.

    Not ready at once: meanwhile the server would mark them late one by one.
    """
    at = datetime.now(UTC) + _PREFETCH + timedelta(seconds=2 + number / 25)
    details = {"scheduled_time": at.isoformat()}
    run = {"state": {"type": "SCHEDULED", "state_details": details}}
    while (missing := number - count_runs(client, deployment)) > 0:
        # Some may fail while SQLite is locked: what counts is how many there are.
        client._client.post(
            f"/deployments/{deployment}/create_flow_run/bulk",
            json=[run] * min(missing, _MOST_AT_ONCE),
        )
    time.sleep(max(0.0, (at - _PREFETCH - datetime.now(UTC)).total_seconds()))


def count_runs(client: SyncPrefectClient, deployment: UUID, state: str | None = None) -> int:
    """Runs of a deployment, all or those whose state has that name."""
    wanted: dict[str, Any] = {"deployments": {"id": {"any_": [str(deployment)]}}}
    if state is not None:
        wanted["flow_runs"] = {"state": {"name": {"any_": [state]}}}
    answer = client._client.post("/flow_runs/count", json=wanted)
    answer.raise_for_status()
    number: int = answer.json()
    return number


@contextmanager
def no_jobs_left(shared: Path) -> Iterator[None]:
    """Cancel at the end what was submitted meanwhile."""
    before = set((shared / "runs").glob("hb*"))
    try:
        yield
    finally:
        runs = set((shared / "runs").glob("hb*")) - before
        jobs = [RunDirectory(run).read_submission().get("job_id") for run in runs]
        if known := [job for job in jobs if job]:
            subprocess.run(["scancel", "--quiet", *known], check=False)
