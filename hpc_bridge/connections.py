"""One cluster and one watcher per place, for the whole process."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from hpc_bridge.cluster import Cluster
from hpc_bridge.errors import NotOwned
from hpc_bridge.schedulers.base import Scheduler
from hpc_bridge.schedulers.local import LocalScheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.settings import SchedulerName
from hpc_bridge.shared_answer import SharedAnswer
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.watcher import Watcher


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster and those who watch it."""

    cluster: Cluster
    watcher: Watcher
    poll_interval: float
    """Seconds between two status commands."""


_connections: dict[tuple[str, Path, float], Connection] = {}
_connecting = threading.Lock()


def connect(scheduler: SchedulerName, shared: Path, poll_interval: float) -> Connection:
    """The process's connection to a scheduler, made on first use."""
    key = (scheduler, shared, poll_interval)
    with _connecting:
        if key not in _connections:
            cluster = Cluster(_scheduler(scheduler, shared), LocalTransport())
            answer = SharedAnswer(
                _answer_file(scheduler, shared), cluster.status, max_age=poll_interval * 0.9
            )
            watcher = Watcher(answer.ask, cluster.history, interval=poll_interval)
            _connections[key] = Connection(cluster, watcher, poll_interval)
        return _connections[key]


def _scheduler(name: SchedulerName, shared: Path) -> Scheduler:
    if name == "local":
        return LocalScheduler(shared / "local-scheduler")
    return SlurmScheduler()


def _answer_file(scheduler: str, shared: Path) -> Path:
    """A file of this machine: file locks are not to be trusted on every shared file system."""
    folder = Path(tempfile.gettempdir()) / f"hpc-bridge-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise NotOwned(f"{folder} is not a folder of yours; remove it or set TMPDIR")
    place = hashlib.sha256(str(shared).encode()).hexdigest()[:12]
    return folder / f"status-{scheduler}-{place}.json"
