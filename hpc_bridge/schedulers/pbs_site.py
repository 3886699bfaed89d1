"""What PBS says about a whole site: its server, queues and nodes.

``qstat -B -f``, ``qstat -Q -f`` and ``pbsnodes -a -v`` are read as JSON, and as text where the
commands are too old for that or print no JSON. Attributes: pbs_server_attributes(7B),
pbs_queue_attributes(7B), pbs_node_attributes(7B).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.pbs_answers import flat, read_json
from hpc_bridge.schedulers.pbs_fields import mebibytes, number, seconds
from hpc_bridge.schedulers.pbs_select import DEFAULT_GPU_RESOURCE

_PBS = PBSScheduler()
SERVER_COMMAND = [*_PBS.command("qstat"), "-B", "-f"]
QUEUES_COMMAND = [*_PBS.command("qstat"), "-Q", "-f"]
NODES_COMMAND = [*_PBS.command("pbsnodes"), "-a", "-v"]
AS_JSON = ("-F", "json")

_JSON = re.compile(r"^\{\s*$", re.MULTILINE)
_HEADING = re.compile(r"(?:(?:Server|Queue): )?(\S+)\s*")
_ATTRIBUTE = re.compile(r" +([\w.]+) = (.*)", re.DOTALL)
_LIMITS = re.compile(r"max_(?:run|queued|user|group|running|queuable)\w*(?:\.\w+)?|queued_jobs_\w+")
_NO_LIMIT = 2**31 - 1

Attributes = Mapping[str, str]
"""Of a resource they are named ``resources_max.walltime``."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may submit, as an access control list says it (pbs_server_attributes(7B), ``acl_*``)."""

    users: tuple[str, ...] | None = None
    """Entries such as ``+ada@*`` or ``-bob``; None when the list is not in force."""
    groups: tuple[str, ...] | None = None

    def takes(self, user: str, groups: tuple[str, ...]) -> bool:
        """Whether an account may, as far as names tell: hosts are not looked at."""
        by_name = self.users is None or _is_in((user,), self.users)
        return by_name and (self.groups is None or _is_in(groups, self.groups))


@dataclass(frozen=True, slots=True)
class SiteServer:
    """The one server of a site; None where it sets no limit."""

    name: str
    version: str | None
    default_queue: str | None
    is_scheduling: bool
    keeps_history: bool
    shows_all_jobs: bool
    largest_array: int | None
    walltime: int | None
    """Seconds."""
    default_walltime: int | None
    nodes_per_job: int | None
    access: Access
    limits: Attributes = field(default_factory=dict)
    """``max_run``, ``max_queued`` and their like, unread."""


@dataclass(frozen=True, slots=True)
class SiteQueue:
    """One queue; None where it sets no limit of its own."""

    name: str
    is_routing: bool
    is_enabled: bool
    is_started: bool
    leads_to: tuple[str, ...]
    """Of a routing queue."""
    only_from_routes: bool
    walltime: int | None
    """Seconds."""
    shortest_walltime: int | None
    default_walltime: int | None
    nodes_per_job: int | None
    cpus_per_job: int | None
    memory_per_job: int | None
    """MiB."""
    access: Access
    limits: Attributes = field(default_factory=dict)
    chunk: Attributes = field(default_factory=dict)
    """What each chunk of a job has by default: where sites bind a queue to some nodes."""


@dataclass(frozen=True, slots=True)
class SiteHost:
    """One host with all of its vnodes."""

    name: str
    queue: str | None
    """The only one that may use it."""
    cpus: int
    memory: int
    """MiB."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Further resources that are counted, by name."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Further resources that are not."""


def parse_server(stdout: str) -> SiteServer | None:
    """None when the answer names no server."""
    for name, said in _records(stdout, "Server").items():
        return SiteServer(
            name=name,
            version=said.get("pbs_version"),
            default_queue=said.get("default_queue"),
            is_scheduling=said.get("scheduling") != "False",
            keeps_history=said.get("job_history_enable") == "True",
            shows_all_jobs=said.get("query_other_jobs") != "False",
            largest_array=number(said.get("max_array_size", "")),
            walltime=seconds(said.get("resources_max.walltime", "")),
            default_walltime=seconds(said.get("resources_default.walltime", "")),
            nodes_per_job=number(said.get("resources_max.nodect", "")),
            access=_access(said),
            limits=_limits(said),
        )
    return None


def parse_queues(stdout: str) -> list[SiteQueue]:
    """In the server's order."""
    return [_queue(name, said) for name, said in _records(stdout, "Queue").items()]


def parse_hosts(stdout: str) -> list[SiteHost]:
    """Those with CPUs; what each of a host's vnodes has is added up."""
    of_host: dict[str, list[Attributes]] = {}
    for name, said in _records(stdout, "nodes").items():
        host = said.get("resources_available.host") or said.get("Mom") or name.partition("[")[0]
        of_host.setdefault(host, []).append(said)
    hosts = [_host(name, vnodes) for name, vnodes in of_host.items()]
    return [host for host in hosts if host.cpus]


def gpu_resources(hosts: list[SiteHost]) -> list[str]:
    """Names of resources that may count GPUs, the likeliest first."""
    names = {name for host in hosts for name, count in host.counts.items() if count}
    likely = [name for name in names if re.search(r"gpu", name, re.IGNORECASE)]
    usual = [name for name in (DEFAULT_GPU_RESOURCE, "gpus", "ngpu", "gpu") if name in likely]
    return usual + sorted(set(likely) - set(usual))


def hosts_of(queue: SiteQueue, hosts: list[SiteHost]) -> list[SiteHost]:
    """Those that are the queue's alone, else those that are nobody's, as far as its chunks fit."""
    own = [host for host in hosts if host.queue == queue.name]
    found = own or [host for host in hosts if host.queue is None]
    return [host for host in found if _fits(host, queue.chunk)]


def _fits(host: SiteHost, chunk: Attributes) -> bool:
    """Only by texts: a queue of ``default_chunk.Qlist = gpu`` has the hosts with that in Qlist."""
    wanted = {name: text for name, text in chunk.items() if name in host.texts}
    return all(text in host.texts[name].split(",") for name, text in wanted.items())


def _queue(name: str, said: Attributes) -> SiteQueue:
    prefix = "default_chunk."
    return SiteQueue(
        name=name,
        is_routing=said.get("queue_type") == "Route",
        is_enabled=said.get("enabled") == "True",
        is_started=said.get("started") == "True",
        leads_to=_names(said.get("route_destinations", "")),
        only_from_routes=said.get("from_route_only") == "True",
        walltime=seconds(said.get("resources_max.walltime", "")),
        shortest_walltime=seconds(said.get("resources_min.walltime", "")),
        default_walltime=seconds(said.get("resources_default.walltime", "")),
        nodes_per_job=number(said.get("resources_max.nodect", "")),
        cpus_per_job=number(said.get("resources_max.ncpus", "")),
        memory_per_job=_memory(said.get("resources_max.mem", "")),
        access=_access(said),
        limits=_limits(said),
        chunk={
            key.removeprefix(prefix): text for key, text in said.items() if key.startswith(prefix)
        },
    )


def _host(name: str, vnodes: list[Attributes]) -> SiteHost:
    prefix = "resources_available."
    cpus = memory = 0
    counts: dict[str, int] = {}
    texts: dict[str, str] = {}
    for said in vnodes:
        for key, text in said.items():
            resource = key.removeprefix(prefix)
            if resource == key or resource in ("host", "vnode", "arch"):
                continue
            count = number(text)
            if resource == "ncpus":
                cpus += count or 0
            elif resource == "mem":
                memory += _memory(text) or 0
            elif count is not None:
                counts[resource] = counts.get(resource, 0) + count
            else:
                texts.setdefault(resource, text)
    queues = {said.get("queue") for said in vnodes if number(said.get(f"{prefix}ncpus", "0"))}
    return SiteHost(
        name=name,
        queue=queues.pop() if len(queues) == 1 else None,
        cpus=cpus,
        memory=memory,
        counts=counts,
        texts=texts,
    )


def _access(said: Attributes) -> Access:
    return Access(
        users=_names(said.get("acl_users", "")) if said.get("acl_user_enable") == "True" else None,
        groups=(
            _names(said.get("acl_groups", "")) if said.get("acl_group_enable") == "True" else None
        ),
    )


def _is_in(names: tuple[str, ...], entries: tuple[str, ...]) -> bool:
    """The first entry that names one of them decides; without any it is a no."""
    for entry in entries:
        allows, plain = not entry.startswith("-"), entry.lstrip("+-").partition("@")[0]
        if plain in (*names, "*"):
            return allows
    return False


def _limits(said: Attributes) -> dict[str, str]:
    found = {name: text for name, text in said.items() if _LIMITS.fullmatch(name)}
    return {name: text for name, text in found.items() if text not in ("", str(_NO_LIMIT))}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _memory(text: str) -> int | None:
    size = mebibytes(text)
    return int(size) if size else None


def _records(stdout: str, part: str) -> dict[str, dict[str, str]]:
    """The objects of one part of an answer, in whichever form, by name."""
    if _JSON.search(stdout):
        return {name: dict(flat(said)) for name, said in read_json(stdout, part).items()}
    return dict(_text_records(stdout))


def _text_records(stdout: str) -> Iterator[tuple[str, dict[str, str]]]:
    """``Queue: workq`` or a node's name alone, then an attribute a line; long ones are wrapped."""
    name, last = "", ""
    found: dict[str, str] = {}
    for line in stdout.split("\n"):
        if line.startswith("\t") and last:
            found[last] += line[1:]
        elif match := _ATTRIBUTE.fullmatch(line):
            last = match[1]
            found.setdefault(last, match[2])
        elif line.strip() and (heading := _HEADING.fullmatch(line)):
            if name and found:
                yield name, found
            name, last, found = heading[1], "", {}
    if name and found:
        yield name, found
