"""Queues, vnodes, and what waits for them: the JSON of ``qstat -Q``, ``qstat -B``, ``pbsnodes``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from hpc_bridge.errors import UnexpectedOutput
from hpc_bridge.schedulers.base import Demand, Queue, QueueNode
from hpc_bridge.schedulers.pbs_answers import Record, read_json
from hpc_bridge.schedulers.pbs_fields import number, seconds

# pbs_node_attributes(7B), "state"; several are joined by commas.
_WORKING = frozenset({"free", "job-busy", "job-exclusive", "resv-exclusive"})
_FREE = "free"
_NO_TYPE = "gpu"
_COUNTS = re.compile(r"(\w+):(\d+)")
_WAITING = frozenset("QHWT")


def server(stdout: str) -> Mapping[str, Any]:
    """The attributes of the one server."""
    found = read_json(stdout, "Server")
    if not found:
        raise UnexpectedOutput("PBS named no server")
    return next(iter(found.values()))


def queues(about: str, listed: str, nodes: str, gpu_resource: str) -> dict[str, Queue]:
    """By name, the default first, from what the server, its queues and its nodes say."""
    default = server(about).get("default_queue")
    found = read_json(listed, "Queue")
    vnodes = [
        (fields.get("queue"), _node(name, fields, gpu_resource))
        for name, fields in read_json(nodes, "nodes").items()
    ]
    # A node that is a host of vnodes has nothing by itself.
    working = [(queue, node) for queue, node in vnodes if node.cpus]
    ordered = sorted(found.items(), key=lambda entry: entry[0] != default)
    return {
        name: Queue(
            name=name,
            is_default=name == default,
            state=_state(fields),
            walltime_seconds=seconds(_part(fields, "resources_max").get("walltime", "")),
            nodes=_nodes_of(name, fields, working),
        )
        for name, fields in ordered
    }


def demands(records: Iterable[Record], gpu_resource: str) -> dict[str, Demand]:
    """By queue; an array counts with those of its elements that are not over."""
    found: dict[str, Demand] = defaultdict(Demand)
    for record in records:
        demand = found[record.get("queue")]
        cpus = number(record.get("Resource_List.ncpus")) or 0
        gpus = number(record.get(f"Resource_List.{gpu_resource}")) or 0
        waiting, running = _jobs(record)
        demand.waiting += waiting
        demand.waiting_cpus += waiting * cpus
        demand.waiting_gpus += waiting * gpus
        demand.running += running
        demand.running_cpus += running * cpus
    return dict(found)


def _jobs(record: Record) -> tuple[int, int]:
    """How many wait and run."""
    if record.get("array_state_count"):
        counts = {name: int(n) for name, n in _COUNTS.findall(record.get("array_state_count"))}
        return counts.get("Queued", 0), counts.get("Running", 0) + counts.get("Exiting", 0)
    return (1, 0) if record.get("job_state") in _WAITING else (0, 1)


def _state(fields: Mapping[str, Any]) -> str:
    if fields.get("enabled") != "True":
        return "disabled"
    return "up" if fields.get("started") == "True" else "stopped"


def _nodes_of(
    name: str, fields: Mapping[str, Any], nodes: list[tuple[Any, QueueNode]]
) -> tuple[QueueNode, ...]:
    """Those that belong to the queue alone, else those that belong to none."""
    if fields.get("queue_type") != "Execution":
        return ()
    own = tuple(node for queue, node in nodes if queue == name)
    return own or tuple(node for queue, node in nodes if queue is None)


def _node(name: str, fields: Mapping[str, Any], gpu_resource: str) -> QueueNode:
    state = str(fields.get("state", "state-unknown"))
    words = set(state.split(","))
    have, used = _part(fields, "resources_available"), _part(fields, "resources_assigned")
    cpus, busy = (number(part.get("ncpus", 0)) or 0 for part in (have, used))
    gpus, busy_gpus = (number(part.get(gpu_resource, 0)) or 0 for part in (have, used))
    takes_jobs = words <= _WORKING and not words & {"job-exclusive", "resv-exclusive"}
    return QueueNode(
        name=name,
        state=state,
        is_idle=state == _FREE and not busy and not busy_gpus,
        cpus=cpus,
        free_cpus=max(0, cpus - busy) if takes_jobs else 0,
        gpus={_NO_TYPE: gpus} if gpus else {},
        free_gpus={_NO_TYPE: max(0, gpus - busy_gpus) if takes_jobs else 0} if gpus else {},
    )


def _part(fields: Mapping[str, Any], name: str) -> Mapping[str, str]:
    part = fields.get(name, {})
    return part if isinstance(part, dict) else {}
