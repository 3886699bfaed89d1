"""Partitions, what is free in them, and what waits for them (sinfo(1), squeue(1))."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from hpc_bridge.schedulers.base import Demand, Queue, QueueNode
from hpc_bridge.schedulers.slurm_fields import gpus, resources, seconds

# One line per partition and node. Without --all: only what the user's groups may see and use.
QUEUE_FIELDS = (
    "Partition",
    "Available",
    "Time",
    "NodeList",
    "StateLong",
    "CPUsState",
    "Gres",
    "GresUsed",
)
QUEUE_ORDER = "--sort=#P,N"
"""Partitions as in slurm.conf."""
DEMAND_FIELDS = ("Partition", "State", "NumCPUs", "NumNodes", "tres-alloc", "tres-per-node")
LIVE_STATES = "PENDING,CONFIGURING,RUNNING,COMPLETING,SUSPENDED,REQUEUED"

# Of a node that takes jobs. The marks: planned for a job by the backfill scheduler, or in need of a
# reboot, which waits for its end; powered off to save energy, or on its way up, to be used.
_WORKING = frozenset({"idle", "mixed", "allocated", "completing", "planned"})
_HARMLESS_MARKS = "-@~#"


def queues(rows: Iterable[list[str]]) -> dict[str, Queue]:
    """By name, in the order of the answer, the default first."""
    found: dict[str, Queue] = {}
    nodes: dict[str, dict[str, QueueNode]] = defaultdict(dict)
    for partition, available, limit, name, state, cpus, gres, used in rows:
        plain = partition.removesuffix("*")
        if plain not in found:
            walltime = seconds(limit)
            found[plain] = Queue(
                name=plain,
                is_default=partition.endswith("*"),
                state=available,
                walltime_seconds=None if walltime is None else int(walltime),
            )
        # A partition without nodes has a line without a node.
        if name:
            nodes[plain][name] = _node(name, state, cpus, gres, used)
    filled = [replace(queue, nodes=tuple(nodes[name].values())) for name, queue in found.items()]
    return {queue.name: queue for queue in sorted(filled, key=lambda queue: not queue.is_default)}


def demands(rows: Iterable[list[str]]) -> dict[str, Demand]:
    """By partition."""
    found: dict[str, Demand] = defaultdict(Demand)
    for partitions, state, cpus, nodes, given, per_node in rows:
        for partition in partitions.split(","):
            demand = found[partition]
            if state == "PENDING":
                demand.waiting += 1
                demand.waiting_cpus += _number(cpus)
                demand.waiting_gpus += _gpus(given, per_node, _number(nodes))
            else:
                demand.running += 1
                demand.running_cpus += _number(cpus)
    return dict(found)


def _node(name: str, state: str, cpus: str, gres: str, used: str) -> QueueNode:
    """``cpus`` is allocated/idle/other/total; idle ones of a node that is away are counted too."""
    _, idle, _, total = (cpus.split("/") + [""] * 4)[:4]
    word = state.rstrip(_HARMLESS_MARKS)
    works = word in _WORKING
    all_gpus = {kind: count for kind, count in gpus(gres).items() if count}
    return QueueNode(
        name=name,
        state=state,
        is_idle=word == "idle" and "-" not in state,
        cpus=_number(total),
        free_cpus=_number(idle) if works else 0,
        gpus=all_gpus,
        free_gpus=_free(all_gpus, gpus(used)) if works else dict.fromkeys(all_gpus, 0),
    )


def _free(have: Mapping[str, int], used: Mapping[str, int]) -> dict[str, int]:
    return {kind: max(0, count - used.get(kind, 0)) for kind, count in have.items()}


def _gpus(given: str, per_node: str, nodes: int) -> int:
    """What a job asks for; a site that does not track GPUs only tells those asked per node."""
    tracked = resources(given)
    if "gres/gpu" in tracked:
        return _number(tracked["gres/gpu"])
    plain = per_node.replace("gres/", "").replace("gres:", "")
    return sum(gpus(plain).values()) * max(1, nodes)


def _number(value: str) -> int:
    return int(value) if value.isdecimal() else 0
