"""``hpc-bridge queue``: partitions or queues, what is free in them and what waits, for choosing."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpc_bridge.cli.columns import aligned
from hpc_bridge.cli.server_access import ask
from hpc_bridge.connections import NO_OPTIONS, ClusterOptions, Connection, connect
from hpc_bridge.errors import ServerUnreachable
from hpc_bridge.files import expanded_path
from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.schedulers.base import Demand, Queue, QueueNode
from hpc_bridge.schedulers.slurm_fields import NO_TYPE
from hpc_bridge.settings import DEFAULT_SHARED_DIR, POLL_INTERVAL, Settings
from hpc_bridge.sites.choosing import groups_asked
from hpc_bridge.sites.files import load_site, place_of
from hpc_bridge.sites.profile import Partition
from hpc_bridge.sites.resolve import local_site, resolve_site
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.words import queue_word
from hpc_bridge.transports.login import LOCAL

_FULL = ("allocated", "job-busy", "job-exclusive")
"""Words of Slurm and PBS for a node that jobs have all of."""


@dataclass(frozen=True, slots=True)
class Share:
    """How much there is, and how much of it no job has."""

    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.free}/{self.total}"


@dataclass(frozen=True, slots=True)
class Resources:
    """Of some nodes, each counted once."""

    nodes: Share
    """Free: idle."""
    cpus: Share
    """Free: also those of nodes that run other jobs."""
    gpus: dict[str, Share]

    @classmethod
    def of(cls, nodes: Iterable[QueueNode]) -> Resources:
        each = list({node.name: node for node in nodes}.values())
        kinds = sorted({kind for node in each for kind in node.gpus})
        return cls(
            Share(sum(node.is_idle for node in each), len(each)),
            Share(sum(node.free_cpus for node in each), sum(node.cpus for node in each)),
            {
                kind: Share(
                    sum(node.free_gpus.get(kind, 0) for node in each),
                    sum(node.gpus.get(kind, 0) for node in each),
                )
                for kind in kinds
            },
        )


@dataclass(frozen=True, slots=True)
class QueueLine:
    """One partition."""

    name: str
    is_default: bool
    state: str
    walltime_seconds: int | None
    resources: Resources
    waiting: int
    waiting_cpus: int
    waiting_gpus: int
    running: int
    usable: bool | None
    """Whether this user's account, QOS and groups may use it; None when that is not known."""
    because: str
    """Why not, or for whom it is."""
    shares_nodes_with: list[str]
    description: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All partitions that the scheduler shows to this user."""

    site: str | None
    queues: list[QueueLine]
    resources: Resources
    """Of the whole: a node that is in several partitions is counted once."""
    notes: list[str] = field(default_factory=list)


def show_queues(settings: Settings, name: str | None, *, as_json: bool) -> None:
    """Print them. Raises CommandError when the scheduler does not answer, and SiteError."""
    site = _site(settings, name)
    cluster = _connection(settings, site).cluster
    word = queue_word(site.profile.scheduler.type if site else settings.effective_scheduler)
    found = overview(cluster.queues(), cluster.demand(), site, word)
    if as_json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        return
    if sys.stdout.isatty():
        _print(found, word)
    else:
        sys.stdout.write(aligned([(word, *_COLUMNS), *(_cells(line) for line in found.queues)]))
        for note in found.notes:
            sys.stderr.write(f"hpc-bridge: {note}\n")


def overview(
    queues: Mapping[str, Queue],
    demand: Mapping[str, Demand],
    site: Site | None,
    word: str = "partition",
) -> Overview:
    """What the two answers and the site's profile say together."""
    groups = groups_asked(site) if site else None
    lines = [_line(queue, queues, demand.get(queue.name, Demand()), site, groups)
             for queue in queues.values()]  # fmt: skip
    resources = Resources.of(node for queue in queues.values() for node in queue.nodes)
    notes = []
    if any(line.shares_nodes_with for line in lines):
        notes.append(
            f"{word}s share nodes, which are counted in each of them; in all there are"
            f" {_in_words(resources)}"
        )
    if _hides_jobs(queues, demand):
        notes.append("the scheduler shows you only some of the jobs, so more may be waiting")
    if site is not None:
        known = [partition.name for partition in site.profile.partitions]
        if missing := [name for name in known if name not in queues]:
            notes.append(
                f"in the profile of {site.name}, but not shown by the scheduler (gone, hidden, or"
                f" not for your groups): {', '.join(missing)}"
            )
        if site.profile.example:
            notes.append(f"the profile of {site.name} is an example, not of the cluster asked")
    return Overview(site.name if site else None, lines, resources, notes)


def _site(settings: Settings, name: str | None) -> Site | None:
    named = name or settings.site
    place = place_of(named) if named else None
    if named is not None and place is not None and place.kind != "packaged":
        site: Site | None = load_site(named)
    elif named is None:
        site = local_site(None)
    else:
        try:
            site = ask(lambda client: resolve_site(name, client))
        except ServerUnreachable:
            site = local_site(name)
    if site is None or name is not None:
        return site
    same = settings.scheduler in (None, site.profile.scheduler.type)
    return site if same else None


def _connection(settings: Settings, site: Site | None) -> Connection:
    scheduler, options, login = settings.effective_scheduler, NO_OPTIONS, LOCAL
    shared = settings.shared_dir or DEFAULT_SHARED_DIR
    if site is not None:
        login = site.login
        part = site.profile.scheduler
        scheduler, options = part.type, ClusterOptions.of(site.profile)
        if settings.shared_dir is None:
            chosen = site.admin_variables() | site.user_variables()
            shared = chosen["shared_dir"]
    if login == LOCAL:
        shared = expanded_path(shared)
    # On a cluster elsewhere nothing is done with it here: it only tells connections apart.
    return connect(scheduler, Path(shared), POLL_INTERVAL[scheduler], options, login)


def _line(
    queue: Queue,
    queues: Mapping[str, Queue],
    demand: Demand,
    site: Site | None,
    groups: Collection[str] | None,
) -> QueueLine:
    partition = site.profile.partition(queue.name) if site else None
    usable, because = _access(partition, site, groups)
    mine = {node.name for node in queue.nodes}
    return QueueLine(
        name=queue.name,
        is_default=queue.is_default,
        state=queue.state,
        walltime_seconds=queue.walltime_seconds,
        resources=Resources.of(queue.nodes),
        waiting=demand.waiting,
        waiting_cpus=demand.waiting_cpus,
        waiting_gpus=demand.waiting_gpus,
        running=demand.running,
        usable=usable,
        because=because,
        shares_nodes_with=[
            other.name
            for other in queues.values()
            if other.name != queue.name and not mine.isdisjoint(node.name for node in other.nodes)
        ],
        description=partition.description if partition else "",
    )


def _access(
    partition: Partition | None, site: Site | None, groups: Collection[str] | None
) -> tuple[bool | None, str]:
    """By the profile; what the user has not chosen is not known."""
    if partition is None or site is None:
        return None, ""
    chosen = site.admin_variables() | site.user_variables()
    open_questions = []
    for what, allowed in (("account", partition.accounts), ("qos", partition.qos)):
        value = chosen.get(what)
        if allowed and value is None:
            open_questions.append(f"{what} {' or '.join(allowed)}")
        elif allowed and value not in allowed:
            return False, f"not for {what} {value}"
    if partition.groups and groups is not None and not {*partition.groups} & {*groups}:
        return False, f"only for members of {', '.join(partition.groups)}"
    if open_questions:
        return None, f"with {', '.join(open_questions)}"
    return True, ""


def _hides_jobs(queues: Mapping[str, Queue], demand: Mapping[str, Demand]) -> bool:
    """Whether far more CPUs are in use than the jobs that are shown have."""
    nodes = {node.name: node for queue in queues.values() for node in queue.nodes}
    # Of nodes that are away it is not known what they do.
    working = [node for node in nodes.values() if node.free_cpus or node.state in _FULL]
    used = sum(node.cpus - node.free_cpus for node in working)
    return used > 2 * sum(one.running_cpus for one in demand.values()) and used > 0


# for people

_COLUMNS = (
    *("state", "walltime", "idle_nodes", "free_cpus", "free_gpus"),
    *("running", "waiting", "waiting_cpus", "waiting_gpus", "usable", "description"),
)


def _cells(line: QueueLine) -> list[str]:
    return [
        f"{line.name}*" if line.is_default else line.name,
        line.state,
        _walltime(line),
        str(line.resources.nodes),
        str(line.resources.cpus),
        _gpus(line.resources, ","),
        *map(str, (line.running, line.waiting, line.waiting_cpus, line.waiting_gpus)),
        _usable(line),
        line.description,
    ]


def _print(found: Overview, word: str) -> None:
    console = Console()
    table = Table(title=f"{word.capitalize()}s of {found.site}" if found.site else None)
    table.add_column(word, overflow="fold")
    for column in ("state", "walltime"):
        table.add_column(column)
    for column in ("idle nodes", "free CPUs", "free GPUs", "running", "waiting"):
        table.add_column(column, justify="right")
    rest = [
        (head, text)
        for head, text in (("for you", _usable), ("description", _description))
        if any(text(line) for line in found.queues)
    ]
    for head, _ in rest:
        table.add_column(head)
    for line in found.queues:
        table.add_row(
            f"[bold]{escape(line.name)}[/] (default)" if line.is_default else escape(line.name),
            line.state if line.state == "up" else f"[red]{line.state}[/]",
            _walltime(line),
            str(line.resources.nodes),
            str(line.resources.cpus),
            _gpus(line.resources, "\n"),
            str(line.running),
            _waiting(line),
            *(escape(text(line)) for _, text in rest),
        )
    console.print(table)
    for note in found.notes:
        console.print(f"Note: {note}.", markup=False, highlight=False)


def _walltime(line: QueueLine) -> str:
    seconds = line.walltime_seconds
    return "unlimited" if seconds is None else format_walltime(seconds)


def _gpus(resources: Resources, between: str) -> str:
    return between.join(f"{kind} {share}" for kind, share in resources.gpus.items())


def _waiting(line: QueueLine) -> str:
    if not line.waiting:
        return "0"
    gpus = f", {line.waiting_gpus} GPUs" if line.waiting_gpus else ""
    return f"{line.waiting} ({line.waiting_cpus} CPUs{gpus})"


def _usable(line: QueueLine) -> str:
    if line.usable is None:
        return line.because
    return "yes" if line.usable else f"no: {line.because}"


def _description(line: QueueLine) -> str:
    return line.description


def _in_words(resources: Resources) -> str:
    kinds = {kind: "" if kind == NO_TYPE else f"{kind} " for kind in resources.gpus}
    gpus = "".join(f", {share} {kinds[kind]}GPUs" for kind, share in resources.gpus.items())
    return f"{resources.nodes} idle nodes, {resources.cpus} free CPUs{gpus}"
