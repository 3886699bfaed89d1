"""What Slurm says about a whole site: its configuration, partitions, nodes, accounts and QOS.

The text forms of scontrol(1) are read, one record a line: their keys have kept their names and
values since 22.05, while the JSON forms change with every version. Read on 22.05, 24.11 and 26.05.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpc_bridge.schedulers.slurm_fields import gpus, seconds, text

_PINNED = ("env", "TZ=UTC", "LC_ALL=C.UTF-8")
# With --all also what is hidden, or not for the groups of the user who asks.
_SHOW = (*_PINNED, "scontrol", "--all", "--oneliner", "show")
_LIST = (*_PINNED, "sacctmgr", "--noheader", "--parsable2", "--readonly", "show")
CONFIG_COMMAND = [*_SHOW, "config"]
PARTITIONS_COMMAND = [*_SHOW, "partition"]
NODES_COMMAND = [*_SHOW, "node"]
ACCOUNTS_COMMAND = [*_LIST, "account", "format=Account,Description"]
QOS_COMMAND = [*_LIST, "qos", "format=Name,Description,MaxWall,MaxSubmitPU"]

_CONFIG_LINE = re.compile(r"([\w\[\]-]+)\s*= ?(.*)")
_KEY = re.compile(r"(?:^|\s)([A-Za-z]\w*)=")


@dataclass(frozen=True, slots=True)
class SitePartition:
    """One partition as slurm.conf(5) has it; None where it sets no limit."""

    name: str
    is_default: bool
    state: str
    """UP, DOWN, DRAIN or INACTIVE."""
    is_hidden: bool
    is_for_root_only: bool
    walltime: int | None
    """Seconds."""
    default_walltime: int | None
    nodes: int
    nodes_per_job: int | None
    cpus_per_node: int | None
    memory_per_node: int | None
    """MiB."""
    accounts: tuple[str, ...] = ()
    """Empty: all but the denied ones."""
    denied_accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()
    denied_qos: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    own_qos: str | None = None
    """The QOS whose limits hold for every job of the partition."""
    preempt_mode: str | None = None
    priority_tier: int = 1


@dataclass(frozen=True, slots=True)
class SiteNode:
    """One node and what of it jobs can have."""

    name: str
    partitions: tuple[str, ...]
    cpus: int
    threads_per_core: int
    memory: int
    """MiB, without what Slurm keeps for the system."""
    gpus: Mapping[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteQos:
    """One QOS; None where it sets no limit."""

    name: str
    description: str
    walltime: int | None
    """Seconds."""
    live_jobs: int | None
    """Of one user."""


def parse_config(stdout: str) -> dict[str, str]:
    """Every setting of slurm.conf by its name, and ``SLURM_VERSION``."""
    found: dict[str, str] = {}
    for line in stdout.splitlines():
        if match := _CONFIG_LINE.fullmatch(line.strip()):
            found.setdefault(match[1], match[2].strip())
    return found


def parse_partitions(stdout: str) -> list[SitePartition]:
    """In the order of slurm.conf."""
    records = (_record(line) for line in stdout.splitlines())
    return [_partition(record) for record in records if "PartitionName" in record]


def parse_nodes(stdout: str) -> list[SiteNode]:
    """Every node that exists; one of the future has no memory that could be told."""
    records = (_record(line) for line in stdout.splitlines())
    return [_node(record) for record in records if "NodeName" in record]


def parse_accounts(stdout: str) -> list[tuple[str, str]]:
    """Names and descriptions, without Slurm's own account for root."""
    rows = [line.split("|") for line in stdout.splitlines()]
    return [(row[0], row[1]) for row in rows if len(row) == 2 and row[0] not in ("", "root")]


def parse_qos(stdout: str) -> list[SiteQos]:
    """In the order of their making."""
    rows = [line.split("|") for line in stdout.splitlines()]
    return [
        SiteQos(name, description, _walltime(walltime), _number(jobs))
        for name, description, walltime, jobs in (row for row in rows if len(row) == 4)
        if name
    ]


def _record(line: str) -> dict[str, str]:
    """``Key=Value Key=Value``; values may hold blanks.

    The first of a key counts: what people wrote (Comment, Extra, Reason) comes last.
    """
    found: dict[str, str] = {}
    keys = list(_KEY.finditer(line))
    ends = [key.start() for key in keys[1:]] + [len(line)]
    for key, end in zip(keys, ends, strict=False):  # no key, yet an end
        found.setdefault(key[1], line[key.end() : end].strip())
    return found


def _partition(record: Mapping[str, str]) -> SitePartition:
    return SitePartition(
        name=record["PartitionName"],
        is_default=record.get("Default") == "YES",
        state=record.get("State", "UP"),
        is_hidden=record.get("Hidden") == "YES",
        is_for_root_only=record.get("RootOnly") == "YES",
        walltime=_walltime(record.get("MaxTime", "")),
        default_walltime=_walltime(record.get("DefaultTime", "")),
        nodes=_number(record.get("TotalNodes", "")) or 0,
        nodes_per_job=_number(record.get("MaxNodes", "")),
        cpus_per_node=_number(record.get("MaxCPUsPerNode", "")),
        memory_per_node=_number(record.get("MaxMemPerNode", "")),
        accounts=_names(record.get("AllowAccounts", "")),
        denied_accounts=_names(record.get("DenyAccounts", "")),
        qos=_names(record.get("AllowQos", "")),
        denied_qos=_names(record.get("DenyQos", "")),
        groups=_names(record.get("AllowGroups", "")),
        own_qos=text(record.get("QoS", "")),
        preempt_mode=text(record.get("PreemptMode", "")),
        priority_tier=_number(record.get("PriorityTier", "")) or 1,
    )


def _node(record: Mapping[str, str]) -> SiteNode:
    kept = _number(record.get("MemSpecLimit", "")) or 0
    # CPUEfctv leaves out the cores that Slurm keeps for the system (since 22.05).
    cpus = record.get("CPUEfctv") or record.get("CPUTot", "")
    return SiteNode(
        name=record["NodeName"],
        partitions=_names(record.get("Partitions", "")),
        cpus=_number(cpus) or 0,
        threads_per_core=_number(record.get("ThreadsPerCore", "")) or 1,
        memory=max(0, (_number(record.get("RealMemory", "")) or 0) - kept),
        gpus={kind: count for kind, count in gpus(record.get("Gres", "")).items() if count},
        features=_names(record.get("AvailableFeatures", "")),
    )


def _names(value: str) -> tuple[str, ...]:
    """Of a list; ``ALL`` and nothing are no limit."""
    if value.upper() in ("ALL", "") or text(value) is None:
        return ()
    return tuple(name for name in value.split(",") if name)


def _number(value: str) -> int | None:
    return int(value) if value.isdecimal() else None  # UNLIMITED, N/A, (null)


def _walltime(value: str) -> int | None:
    whole = seconds(value)
    return int(whole) if whole else None  # UNLIMITED, NONE, and 0 for no limit in a QOS
