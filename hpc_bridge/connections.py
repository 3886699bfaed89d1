"""One cluster and one watcher per place, for the whole process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hpc_bridge import load
from hpc_bridge.admission import Admission
from hpc_bridge.cluster import Cluster
from hpc_bridge.errors import SettingsError
from hpc_bridge.machine_files import machine_folder
from hpc_bridge.schedulers.base import Commands, Scheduler
from hpc_bridge.schedulers.local import LocalScheduler
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.pbs_select import DEFAULT_GPU_RESOURCE
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.schedulers.torque import TorqueScheduler
from hpc_bridge.settings import SchedulerName
from hpc_bridge.shared_answer import SharedAnswer
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.storage.reach import files_at
from hpc_bridge.transports.login import LOCAL, Login, transport_to
from hpc_bridge.watcher import Watcher

if TYPE_CHECKING:
    from hpc_bridge.sites.profile import SiteProfile


_AS_ON_PATH = Commands()


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a site's profile says of how its scheduler is asked; equal ones share a connection.

    A submission keeps them in its journal: ``submission.json`` has the site's name as ``site`` and
    ``stored()`` as ``cluster_options``, for whoever adopts it (``tracking.reconnecting``).
    """

    commands: Commands = _AS_ON_PATH
    cluster: str | None = None
    accounting: bool = True
    arrays: bool = True
    submissions_per_minute: int | None = None
    live_jobs: int | None = None
    shortest_poll_interval: float | None = None
    gpu_resource: str | None = None
    dialect: str | None = None

    @classmethod
    def of(cls, profile: SiteProfile) -> Self:
        """Those of a profile."""
        part = profile.scheduler
        return cls(
            Commands.of(part.commands),
            part.cluster,
            part.accounting,
            part.arrays,
            part.submissions_per_minute,
            part.live_jobs,
            part.shortest_poll_interval,
            part.gpu_resource,
            part.dialect,
        )

    def stored(self) -> dict[str, Any]:
        """For JSON: those that differ from the defaults."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["commands"] = dict(self.commands.instead)
        default: dict[str, Any] = {
            **dict.fromkeys(fields),
            "commands": {},
            "accounting": True,
            "arrays": True,
        }
        return {name: value for name, value in fields.items() if value != default[name]}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """What ``stored`` wrote, of that what this version knows."""
        known = {field.name for field in dataclasses.fields(cls)} - {"commands"}
        fields = {name: value for name, value in stored.items() if name in known}
        return cls(Commands.of(stored.get("commands", {})), **fields)


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster and those who watch it."""

    cluster: Cluster
    watcher: Watcher
    poll_interval: float
    """Seconds between two status commands."""
    options: ClusterOptions = ClusterOptions()
    place: str = ""
    """Tells the cluster from others, for ``load.recent``."""
    login: Login = LOCAL
    """How its login side is reached from here."""

    @property
    def files(self) -> ClusterFiles:
        """Those that its login and compute nodes see."""
        return files_at(self.login)


NO_OPTIONS = ClusterOptions()
_connections: dict[tuple[str, Path, float, ClusterOptions, Login], Connection] = {}
_connecting = threading.Lock()


def connect(
    scheduler: SchedulerName,
    shared: Path,
    poll_interval: float,
    options: ClusterOptions = NO_OPTIONS,
    login: Login = LOCAL,
) -> Connection:
    """The process's connection to a scheduler, made on first use; nobody logs in yet.

    ``options`` are the site's (``ClusterOptions.of``); a ``poll_interval`` below its floor is
    raised to it. Raises SettingsError for options that the scheduler cannot follow, and
    CommandError when this machine lacks what ``login`` needs.
    """
    poll_interval = max(poll_interval, options.shortest_poll_interval or 0.0)
    key = (scheduler, shared, poll_interval, options, login)
    with _connecting:
        if key not in _connections:
            _connections[key] = _connection(*key)
        return _connections[key]


def _connection(
    name: SchedulerName, shared: Path, poll_interval: float, options: ClusterOptions, login: Login
) -> Connection:
    scheduler = _scheduler(name, shared, options, login)
    place = _place(name, shared, options, login)
    folder = machine_folder()
    answer = SharedAnswer(
        # Who keeps another shared directory may be somebody who tests.
        folder / f"status-{place}-{_digest(str(shared))}.json",
        lambda: cluster.status(),
        max_age=poll_interval * 0.9,
    )
    admission = Admission(
        folder / f"submissions-{place}.json",
        answer.ask,
        per_minute=options.submissions_per_minute,
        live_jobs=options.live_jobs,
    )
    cluster = Cluster(
        scheduler,
        transport_to(login),
        has_accounting=options.accounting,
        has_arrays=options.arrays,
        admission=admission if options.submissions_per_minute or options.live_jobs else None,
        count=partial(load.count, place),
    )
    watcher = Watcher(answer.ask, cluster.history, interval=poll_interval)
    return Connection(cluster, watcher, poll_interval, options, place, login)


def _scheduler(
    name: SchedulerName, shared: Path, options: ClusterOptions, login: Login
) -> Scheduler:
    if name == "local":
        if login != LOCAL:
            raise SettingsError(
                f"the embedded scheduler runs jobs on this machine only, and not on {login}"
            )
        options.commands.check(())
        if options.cluster is not None:
            raise SettingsError("scheduler.cluster: the embedded scheduler has one machine only")
        return LocalScheduler(shared / "local-scheduler")
    if name == "pbs":
        if options.cluster is not None:
            raise SettingsError("scheduler.cluster: of PBS a profile names one server's commands")
        if options.dialect == "torque":
            return TorqueScheduler(options.commands)
        return PBSScheduler(
            options.commands, gpu_resource=options.gpu_resource or DEFAULT_GPU_RESOURCE
        )
    return SlurmScheduler(options.commands, cluster=options.cluster)


def _place(name: str, shared: Path, options: ClusterOptions, login: Login) -> str:
    """One word for the cluster as this user reaches it, fit for a file name."""
    reached: Any = [login.host, login.user]
    if login == LOCAL:
        variables = ("PBS_CONF_FILE", "PBS_SERVER") if name == "pbs" else ("SLURM_CONF",)
        reached = [os.environ.get(variable) for variable in variables]
    where: list[Any] = [options.cluster, options.commands.instead, reached]
    if options.dialect is not None:
        where.append(options.dialect)
    return f"{name}-{_digest(str(shared) if name == 'local' else json.dumps(where))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
