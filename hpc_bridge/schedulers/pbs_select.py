"""From a job request to what ``qsub -l select`` and its like say (qsub(1B), pbs_resources(7B))."""

from __future__ import annotations

import re
from typing import Any

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import units

# qsub cuts directive lines by rules of its own: only what no rule changes goes there.
_SAFE = re.compile(r"[A-Za-z0-9_@%+=:,./\-\[\]^~]+", re.ASCII)
_RESOURCES = re.compile(r"[\w.-]+=[\w.,+-]+(?::[\w.-]+=[\w.,+-]+)*", re.ASCII)
_LICENSE = re.compile(r"([\w.-]+)(?::(\d+))?", re.ASCII)
_HOSTS = re.compile(r"[\w.-]+(?:,[\w.-]+)*", re.ASCII)
_BEGIN = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?", re.ASCII)
_OWN_SELECT = re.compile(r"-l\s*(?:select|place)=")
DEFAULT_GPU_RESOURCE = "ngpus"
NOT_IN_PBS = {
    "qos": "PBS has none; sites use queues instead",
    "exclude": "PBS cannot leave out single nodes",
}
"""Fields of a request for which PBS has no word, with what to say of them."""


def check_request(spec: Any) -> None:
    """Raise InvalidJobSpec for a field that no cluster with PBS can be asked for as it is.

    That is known of each field alone; what depends on others is told by ``pbs_select``.
    """
    _check(spec)
    for name, word in (("partition", "queue"), ("account",) * 2, ("dependency",) * 2):
        if (value := getattr(spec, name)) is not None:
            try:
                pbs_word(value)
            except InvalidJobSpec as error:
                raise InvalidJobSpec(f"{word}: {error}") from None
    pbs_begin(spec.begin)
    pbs_licenses(spec.licenses)


def pbs_word(value: object) -> str:
    """One word of a ``#PBS`` line; raises InvalidJobSpec for what qsub may cut or change."""
    text = str(value)
    if not _SAFE.fullmatch(text):
        raise InvalidJobSpec(
            f"{text!r} cannot stand in a #PBS line: only letters, digits and @%+=:,./-[]^~_ are"
            " read by every qsub as they are"
        )
    return text


def pbs_walltime(seconds: int | None) -> str | None:
    """Seconds -> ``HH:MM:SS``."""
    if seconds is None:
        return None
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def pbs_begin(text: str | None) -> str | None:
    """``2027-01-31T08:00:00``, a time of the cluster, -> ``202701310800.00``."""
    if text is None:
        return None
    match = _BEGIN.fullmatch(text.strip())
    if match is None:
        raise InvalidJobSpec(f"begin: {text!r}; PBS takes a date and time: '2027-01-31T08:00:00'")
    year, month, day, hour, minute, second = (field or "00" for field in match.groups())
    return f"{year}{month}{day}{hour}{minute}.{second}"


def pbs_select(spec: Any, gpu_resource: str = DEFAULT_GPU_RESOURCE) -> str | None:
    """The select statement; None when nothing of it is asked for, or the user gives their own.

    Raises InvalidJobSpec for what cannot be said in one.
    """
    if _own_select(spec):
        return None
    _check(spec)
    asked = (
        *(spec.nodes, spec.tasks, spec.tasks_per_node, spec.cpus_per_task, spec.memory),
        *(spec.memory_per_cpu, spec.gpus, spec.gpus_per_node, spec.constraint, spec.nodelist),
    )
    if not spec.exclusive and all(value is None for value in asked):
        return None
    hosts = spec.nodelist.split(",") if spec.nodelist else []
    chunks = _chunks(spec)
    if hosts and chunks != [(len(hosts), chunks[0][1])]:
        raise InvalidJobSpec("nodelist: PBS takes one host for each node; give nodes as well")
    return "+".join(
        _chunk(spec, number, tasks, sum(n for n, _ in chunks), gpu_resource, host)
        for number, tasks in chunks
        for number, host in ([(1, host) for host in hosts] or [(number, None)])
    )


def pbs_place(spec: Any) -> str | None:
    """Where the chunks go: on one host each when nodes were asked for."""
    if _own_select(spec):
        return None
    spread = "scatter" if (spec.nodes or 1) > 1 else "pack" if spec.nodes else "free"
    if spec.exclusive:
        return f"{spread}:exclhost"
    return spread if spec.nodes else None


def pbs_licenses(text: str | None) -> list[str]:
    """``matlab:2,ansys`` -> ``matlab=2``, ``ansys=1``: resources of the whole job."""
    found = []
    for entry in text.split(",") if text else []:
        match = _LICENSE.fullmatch(entry.strip())
        if match is None:
            raise InvalidJobSpec(f"licenses: {text!r}; write 'matlab:1'")
        found.append(f"{match[1]}={match[2] or 1}")
    return found


def _own_select(spec: Any) -> bool:
    if not any(_OWN_SELECT.match(line) for line in spec.directives):
        return False
    names = (
        *("nodes", "tasks", "tasks_per_node", "cpus_per_task", "memory", "memory_per_cpu"),
        *("gpus", "gpus_per_node", "constraint", "nodelist"),
    )
    both = [name for name in names if getattr(spec, name) is not None]
    if both or spec.exclusive:
        raise InvalidJobSpec(
            f"{both[0] if both else 'exclusive'}: directives have a select or place of their own,"
            " which takes its place; say it there"
        )
    return True


def _check(spec: Any) -> None:
    """What PBS has no word for."""
    for name, words in NOT_IN_PBS.items():
        if getattr(spec, name) is not None:
            raise InvalidJobSpec(f"{name}: {words}")
    if spec.reservation is not None and spec.partition is not None:
        raise InvalidJobSpec("reservation: in PBS it is a queue of its own; leave queue out")
    if spec.constraint is not None and not _RESOURCES.fullmatch(spec.constraint):
        raise InvalidJobSpec(
            f"constraint: {spec.constraint!r}; PBS picks nodes by resources, like"
            " 'cpu_type=rome:ib=True'"
        )
    if spec.nodelist is not None and not _HOSTS.fullmatch(spec.nodelist):
        raise InvalidJobSpec(f"nodelist: {spec.nodelist!r}; write 'c1,c2'")
    for field in ("gpus", "gpus_per_node"):
        if ":" in (getattr(spec, field) or ""):
            raise InvalidJobSpec(
                f"{field}: PBS counts GPUs without a type; give the number, and the type by"
                " constraint, with the resource that the site has for it"
            )


def _chunks(spec: Any) -> list[tuple[int, int | None]]:
    """(how many, tasks on each); without nodes every task may be anywhere."""
    if spec.nodes is None and spec.tasks is not None and spec.tasks_per_node is None:
        if spec.tasks > 1 and (spec.memory is not None or spec.gpus_per_node is not None):
            raise InvalidJobSpec(
                "tasks: with memory or GPUs per node PBS has to know how many nodes; give nodes"
            )
        return [(spec.tasks, 1)]
    if spec.tasks is None or spec.tasks_per_node is not None:
        nodes = spec.nodes
        if nodes is None and spec.tasks is not None:
            nodes = -(-spec.tasks // spec.tasks_per_node)
        return [(nodes or 1, spec.tasks_per_node)]
    if spec.tasks < spec.nodes:
        raise InvalidJobSpec(f"tasks: {spec.tasks} are fewer than nodes ({spec.nodes})")
    each, more = divmod(spec.tasks, spec.nodes)
    chunks: list[tuple[int, int | None]] = [(more, each + 1), (spec.nodes - more, each)]
    return [chunk for chunk in chunks if chunk[0]]


def _chunk(
    spec: Any, number: int, tasks: int | None, chunks: int, gpu_resource: str, host: str | None
) -> str:
    cpus = (spec.cpus_per_task or 1) * (tasks or 1)
    memory = spec.memory
    if memory is None and spec.memory_per_cpu is not None:
        memory = spec.memory_per_cpu * cpus
    parts = [str(number), f"ncpus={cpus}"]
    if tasks is not None:
        parts.append(f"mpiprocs={tasks}")
        if spec.cpus_per_task is not None:
            parts.append(f"ompthreads={spec.cpus_per_task}")
    if memory is not None:
        parts.append(f"mem={units.format_memory(memory).lower()}b")
    if gpus := _gpus(spec, chunks):
        parts.append(f"{gpu_resource}={gpus}")
    if spec.constraint is not None:
        parts.append(spec.constraint)
    if host is not None:
        parts.append(f"host={host}")
    return ":".join(parts)


def _gpus(spec: Any, chunks: int) -> int:
    """On each chunk."""
    if spec.gpus_per_node is not None:
        return int(spec.gpus_per_node)
    if spec.gpus is None:
        return 0
    if int(spec.gpus) % chunks:
        raise InvalidJobSpec(
            f"gpus: {spec.gpus} cannot be shared out among {chunks} chunks; give gpus_per_node"
        )
    return int(spec.gpus) // chunks
