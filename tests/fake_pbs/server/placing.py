"""Select statements, and where their chunks fit."""

from __future__ import annotations

from dataclasses import dataclass, field

from .attributes import DURATIONS, KNOWN_RESOURCES, NUMBERS, SIZES, clock, seconds, size_kb
from .store import Store

COUNTED = ("ncpus", "mem", "ngpus")
"""What a node has a number of; mem in kB."""


class Refused(Exception):
    """A request that the server or its tools do not take: exit code and words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


@dataclass
class Chunk:
    """``count`` times the same resources."""

    count: int
    resources: dict[str, str] = field(default_factory=dict)

    def needs(self) -> dict[str, int]:
        return {
            name: (size_kb(value) or 0) if name == "mem" else int(value)
            for name, value in self.resources.items()
            if name in COUNTED
        }


def check_value(store: Store, name: str, value: str, known: str, value_of: str) -> None:
    """Raise Refused for a resource that is unknown (187) or whose value is none (166)."""
    if name not in KNOWN_RESOURCES and name not in store.config["resources"]:
        raise Refused(187, known + name)
    is_good = (
        (name not in NUMBERS or (value.isascii() and value.isdigit()))
        and (name not in SIZES or size_kb(value) is not None)
        and (name not in DURATIONS or seconds(value) is not None)
    )
    if not is_good:
        raise Refused(166, f"Illegal attribute or resource value {value_of}{name}")


def chunks_of(store: Store, select: str) -> list[Chunk]:
    """Of a select statement; every chunk has CPUs, one if none is said."""
    chunks: list[Chunk] = []
    for piece in select.split("+"):
        words = piece.split(":")
        count = 1
        if words[0].isdigit():
            count = int(words.pop(0))
        chunk = Chunk(count)
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or not value:
                raise Refused(166, "Illegal attribute or resource value Resource_List.select")
            check_value(store, name, value, "Unknown resource: ", "select.")
            chunk.resources[name] = value
        chunk.resources.setdefault("ncpus", "1")
        chunks.append(chunk)
    return chunks


def written(chunks: list[Chunk]) -> str:
    """The statement as the server shows it."""
    return "+".join(
        ":".join([str(c.count), *(f"{n}={v}" for n, v in c.resources.items())]) for c in chunks
    )


def totals(chunks: list[Chunk]) -> dict[str, str]:
    """``Resource_List`` of a select statement, without select, place and walltime."""
    found = {"nodect": str(sum(chunk.count for chunk in chunks))}
    for name in ("ncpus", "ngpus", "mpiprocs"):
        numbers = [c.count * int(c.resources[name]) for c in chunks if name in c.resources]
        if numbers:
            found[name] = str(sum(numbers))
    sizes = [c.count * (size_kb(c.resources["mem"]) or 0) for c in chunks if "mem" in c.resources]
    if sizes:
        found["mem"] = _size(sum(sizes))
    return found


def _size(kilobytes: int) -> str:
    for unit in ("gb", "mb"):
        step = 1024**2 if unit == "gb" else 1024
        if kilobytes % step == 0:
            return f"{kilobytes // step}{unit}"
    return f"{kilobytes}kb"


def duration(text: str) -> str:
    """A walltime as the server shows it."""
    return clock(seconds(text) or 0)


@dataclass
class Node:
    """A virtual node, what it has and what of it is free."""

    name: str
    host: str
    has: dict[str, int]
    free: dict[str, int]
    is_up: bool
    is_exclusive: bool = False
    jobs: list[str] = field(default_factory=list)


def nodes_of(store: Store, live: list[dict]) -> list[Node]:
    """The nodes with what running jobs use taken off; a file ``node-down.NAME`` is a dead one."""
    nodes = []
    for name, said in store.config["nodes"].items():
        has = {"ncpus": said["ncpus"], "mem": size_kb(said["mem"]) or 0, "ngpus": said["ngpus"]}
        is_up = store.switch(f"node-down.{said['host']}") is None
        nodes.append(Node(name, said["host"], has, dict(has), is_up))
    by_name = {node.name: node for node in nodes}
    for record in live:
        for place in record.get("places", ()):
            node = by_name[place["node"]]
            for resource, amount in place["needs"].items():
                node.free[resource] -= amount
            node.is_exclusive = node.is_exclusive or "excl" in record["place"]
            if record["id"] not in node.jobs:
                node.jobs.append(record["id"])
    return nodes


def lacking(chunks: list[Chunk], nodes: list[Node], place: str) -> str | None:
    """Why a job can never run, or not now, in the scheduler's words; None if the sums suffice."""
    hosts = {node.host for node in nodes}
    if "scatter" in place and sum(chunk.count for chunk in chunks) > len(hosts):
        return "Can Never Run: Not enough total nodes available"
    up = [node for node in nodes if node.is_up]
    if not up:
        return "Not Running: Not enough free nodes available"
    short = None
    for resource in COUNTED:
        asked = sum(chunk.count * chunk.needs().get(resource, 0) for chunk in chunks)
        total = sum(node.has[resource] for node in nodes)
        free = sum(node.free[resource] for node in up)
        unit = "kb" if resource == "mem" else ""
        words = "Insufficient amount of resource: " + resource
        if asked > total:  # measured against nodes without jobs
            return f"Can Never Run: {words} (R: {asked}{unit} A: {total}{unit} T: {total}{unit})"
        if asked > free and short is None:
            short = f"Not Running: {words} (R: {asked}{unit} A: {free}{unit} T: {total}{unit})"
    return short


def placed(chunks: list[Chunk], nodes: list[Node], place: str) -> list[dict] | None:
    """A node for every chunk, first fit; None if one finds none."""
    free = {node.name: dict(node.free) for node in nodes}
    used_hosts: set[str] = set()
    found: list[dict] = []
    for chunk in chunks:
        needs = chunk.needs()
        for _ in range(chunk.count):
            for node in nodes:
                if not node.is_up or node.is_exclusive or ("excl" in place and node.jobs):
                    continue
                if "scatter" in place and node.host in used_hosts:
                    continue
                if chunk.resources.get("host", node.host) != node.host:
                    continue
                if all(free[node.name][r] >= amount for r, amount in needs.items()):
                    break
            else:
                return None
            for resource, amount in needs.items():
                free[node.name][resource] -= amount
            used_hosts.add(node.host)
            found.append(
                {
                    "node": node.name,
                    "host": node.host,
                    "needs": needs,
                    "mpiprocs": int(chunk.resources.get("mpiprocs", "1")),
                    "threads": int(chunk.resources.get("ompthreads", needs["ncpus"])),
                }
            )
    return found


def exec_vnode(places: list[dict]) -> str:
    """``(node:ncpus=1:mem=102400kb)+(...)``."""
    pieces = []
    for place in places:
        needs = {n: f"{v}kb" if n == "mem" else v for n, v in place["needs"].items() if v}
        pieces.append(f"({':'.join([place['node'], *(f'{n}={v}' for n, v in needs.items())])})")
    return "+".join(pieces)


def exec_host(places: list[dict], first: int) -> str:
    """``host/0*2+host/1*2``: a number for each chunk, and its CPUs when more than one."""
    return "+".join(
        f"{place['host']}/{first + number}"
        + (f"*{place['needs']['ncpus']}" if place["needs"]["ncpus"] > 1 else "")
        for number, place in enumerate(places)
    )
