"""A Slurm that takes every job, for tests of what is handed to it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from hpc_bridge import connections
from hpc_bridge.cluster import Cluster
from hpc_bridge.connections import NO_OPTIONS, Connection
from hpc_bridge.schedulers.base import Scheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.storage.bundle import BundleStore, Packed
from hpc_bridge.transports.base import Completed, Files, Progress, Stdin, Transport
from hpc_bridge.transports.login import LOCAL
from hpc_bridge.watcher import Watcher
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.submission import JobRequest

CONFIG = "MaxArraySize            = {}\nMaxJobCount = 10000\n"


class FakeSlurm(Transport):
    """Numbers jobs from 100; remembers their scripts."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.refusal: Completed | Exception | None = None
        self.found = ""
        self.max_array_size = 1001
        self.questions = 0
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Stdin = b"",
        timeout: float,
        unset: Sequence[str] = (),
        files: Files | None = None,
        progress: Progress | None = None,
        may_log_in: bool = True,
    ) -> Completed:
        assert isinstance(stdin, bytes)
        assert files is None  # on this machine they are written before
        if "scontrol" in argv:
            self.questions += 1
            return Completed(0, CONFIG.format(self.max_array_size), "")
        if "squeue" in argv:
            return Completed(0, self.found, "")
        self.begun.set()
        assert self.gate.wait(30)
        if isinstance(self.refusal, Exception):
            raise self.refusal
        if self.refusal is not None:
            return self.refusal
        self.scripts.append(stdin.decode())
        return Completed(0, f"{99 + len(self.scripts)}\n", "")

    def user(self) -> str:
        return "researcher"


def connected(
    shared: Path, monkeypatch: pytest.MonkeyPatch, scheduler: Scheduler | None = None
) -> FakeSlurm:
    """Let configurations for ``shared`` talk to a FakeSlurm."""
    slurm = FakeSlurm()
    cluster = Cluster(scheduler or SlurmScheduler(), slurm)
    watcher = Watcher(lambda: None, lambda _jobs, _since: {}, interval=30)  # type: ignore[arg-type, return-value]
    for name in ("slurm", "local"):
        for interval in (30.0, 1.0):
            monkeypatch.setitem(
                connections._connections,
                (name, shared, interval, NO_OPTIONS, LOCAL),
                Connection(cluster, watcher, interval),
            )
    monkeypatch.setenv("PREFECT_API_URL", "http://server:4200/api")
    return slurm


def bundle(shared: Path, *, files: bool = False, python: str = "3.12") -> str:
    """The command that runs a bundle which lies ready on the shared directory."""
    archive = None
    if files:
        archive = shared / f"{uuid4()}.zip"
        archive.write_bytes(b"PK")
    (shared / "bundles").mkdir(mode=0o700, exist_ok=True)
    content = f'{{"hpc_bridge": {{"python": "{python}"}}}}'.encode()
    key = BundleStore(shared).save(Packed(content, archive))
    return f"python -m hpc_bridge.node.execute --key {key}"


def request(shared: Path, flow_run_id: UUID | None = None, **values: Any) -> JobRequest:
    """A flow run that is to become a job; its environment has its id, as Prefect would put it."""
    flow_run_id = flow_run_id or uuid4()
    environment = {"PREFECT__FLOW_RUN_ID": str(flow_run_id), **values.pop("env", {})}
    configuration = BatchJobConfiguration(
        shared_dir=str(shared),
        python="/env/bin/python",
        name=f"run {flow_run_id}",
        labels={"prefect.io/flow-run-id": str(flow_run_id)},
        env=environment,
        **values,
    )
    return JobRequest(configuration, flow_run_id, f"run {flow_run_id} / echo", "pool")
