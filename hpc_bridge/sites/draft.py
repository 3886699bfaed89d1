"""A profile drafted from what a cluster says of itself, with remarks for the admin who reads it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_bridge.jobs.units import format_memory
from hpc_bridge.schedulers.slurm_fields import NO_TYPE
from hpc_bridge.schedulers.slurm_site import SiteNode, SitePartition, SiteQos
from hpc_bridge.sites.facts import SlurmFacts
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.surroundings import Surroundings

MOST_ACCOUNTS = 25
"""More are no list to choose from."""
_STATES = {
    "DOWN": "It is DOWN now: jobs can be submitted, and none starts.",
    "DRAIN": "It is set to DRAIN now: no job can be submitted.",
    "INACTIVE": "It is INACTIVE now: no job can be submitted, and none starts.",
}


@dataclass(frozen=True)
class Draft:
    """A profile and what its reader should know and check."""

    profile: SiteProfile
    remarks: Mapping[str, Sequence[str]]
    """By section; those of a partition by ``partitions.NAME``, those on the whole by ``""``."""
    examples: Mapping[str, Any]
    """What a section could hold that the draft leaves empty."""


def site_name(cluster: str) -> str:
    """A site's name made of a cluster's."""
    return re.sub(r"[^a-zA-Z0-9._-]+", "-", cluster).lstrip("._-") or "cluster"


def draft_slurm(
    facts: SlurmFacts,
    around: Surroundings,
    *,
    name: str,
    description: str = "",
    contact: str = "",
    shared_dir: str | None = None,
    login: Mapping[str, Any] | None = None,
    commands: Mapping[str, str] | None = None,
) -> Draft:
    """Everything that the answers tell; what they do not tell is left out and remarked on.

    ``login`` is the profile's part, where the login node was reached over SSH; ``commands`` are the
    paths of those of Slurm's that are only found with them.
    """
    listed, left_out = _sorted_out(facts.partitions)
    partitions = [(partition, _nodes_of(partition, facts)) for partition in listed]
    version = facts.version
    content = {
        "name": name,
        "description": description or f"Slurm cluster {facts.cluster}",
        "contact": contact,
        "scheduler": {
            "type": "slurm",
            "version": version,
            "accounting": facts.has_accounting,
            "arrays": _largest_index(facts) > 0,
            "commands": dict(commands or {}),
        },
        "login": dict(login or {}),
        "paths": {"shared_dir": shared_dir or around.shared_dir, "node_scratch": _scratch(facts)},
        "partitions": [_described(partition, nodes) for partition, nodes in partitions],
        "accounts": [_offer(*account) for account in _listed_accounts(facts)],
        "qos": [_offer(qos.name, qos.description) for qos in facts.qos],
        "containers": {"runtime": around.container_runtime},
    }
    remarks = {
        "": [
            f"Drafted by 'hpc-bridge site init' on {around.host} from the answers of Slurm"
            f" {version or '(version not known)'}.",
            "Read it through, complete what is missing, then check it with 'hpc-bridge site"
            " validate' and 'hpc-bridge doctor'.",
        ],
        "scheduler": [*_on_scheduler(facts), *(_ON_COMMANDS if commands else ())],
        "login": _on_login(around, is_remote=bool(login)),
        "paths": _on_paths(around, shared_dir),
        "partitions": _on_partitions(facts, left_out),
        "accounts": _on_accounts(facts),
        "qos": _on_qos(facts),
        "environment": _on_environment(around),
        "containers": _on_containers(around),
        "network": [
            "Whether nodes reach the Prefect server is not known: 'hpc-bridge doctor' finds out."
        ],
    }
    for partition, nodes in partitions:
        remarks[f"partitions.{partition.name}"] = _on_partition(partition, nodes, facts)
    return Draft(SiteProfile.model_validate(content), remarks, _examples(facts, around))


def _examples(facts: SlurmFacts, around: Surroundings) -> dict[str, Any]:
    environment = {"modules": ["python/3.12"]} if around.has_modules else {}
    unknown = {
        "accounts": "accounts" in facts.refused or "accounts" in facts.private,
        "qos": "qos" in facts.refused,
    }
    return {
        "contact": "hpc-support@example.org",
        "login": {"transport": "openssh", "host": around.host, "machines": ["login*.example.org"]},
        **{what: ["name", "other-name"] for what, is_so in unknown.items() if is_so},
        "environment": {**environment, "python": "~/venvs/flows"},
        "containers": {"runtime": "apptainer"},
        "network": {"nodes_reach_server": True},
    }


def _sorted_out(
    partitions: Iterable[SitePartition],
) -> tuple[list[SitePartition], dict[str, str]]:
    """Those for a profile, and why the others are not in it."""
    listed, left_out = [], {}
    for partition in partitions:
        if partition.is_hidden:
            left_out[partition.name] = "hidden"
        elif partition.is_for_root_only:
            left_out[partition.name] = "for root only"
        elif not partition.nodes:
            left_out[partition.name] = "has no nodes"
        else:
            listed.append(partition)
    return listed, left_out


def _nodes_of(partition: SitePartition, facts: SlurmFacts) -> list[SiteNode]:
    return [node for node in facts.nodes if partition.name in node.partitions]


def _described(partition: SitePartition, nodes: Sequence[SiteNode]) -> dict[str, Any]:
    limit, default = partition.walltime, partition.default_walltime
    given = {
        "name": partition.name,
        "default": partition.is_default,
        "walltime": walltime_words(limit),
        "default_walltime": walltime_words(
            default if not limit else min(default or 0, limit) or None
        ),
        "nodes": partition.nodes,
        "nodes_per_job": _below(partition.nodes_per_job, partition.nodes),
        "cpus_per_node": _smaller(_most(node.cpus for node in nodes), partition.cpus_per_node),
        "memory_per_node": _memory(
            _smaller(_most(node.memory for node in nodes), partition.memory_per_node)
        ),
        "gpus_per_node": _gpus(nodes),
        "accounts": list(partition.accounts),
        "qos": list(partition.qos),
        "groups": list(partition.groups),
    }
    return {name: value for name, value in given.items() if value}


def _gpus(nodes: Iterable[SiteNode]) -> dict[str, int]:
    """The most of each type on one node."""
    most: dict[str, int] = {}
    for node in nodes:
        for kind, count in node.gpus.items():
            most[kind] = max(count, most.get(kind, 0))
    return dict(sorted(most.items()))


def _listed_accounts(facts: SlurmFacts) -> list[tuple[str, str]]:
    """None when this user sees only some of them: the others' jobs would be refused."""
    if "accounts" in facts.private or len(facts.accounts) > MOST_ACCOUNTS:
        return []
    return sorted(facts.accounts)


def _offer(name: str, description: str) -> dict[str, str]:
    return {"name": name, "description": "" if description == name else description}


# remarks


def _on_scheduler(facts: SlurmFacts) -> list[str]:
    config, lines = facts.config, []
    if index := _largest_index(facts):
        lines.append(f"An array's indices end at {index} (MaxArraySize).")
    else:
        lines.append("MaxArraySize allows no job arrays.")
    if jobs := config.get("MaxJobCount"):
        lines.append(
            f"Slurm holds {jobs} jobs of all users (MaxJobCount); live_jobs limits one user's."
        )
    if not facts.has_accounting:
        lines.append("No accounting: what became of a job is known from its own records only.")
    if "rl_enable" in config.get("SlurmctldParameters", ""):
        lines.append("Slurm limits how often a user may ask it (rl_enable): poll_interval: 60")
    return lines


_ON_COMMANDS = ("The paths of commands are there since only login shells find them on PATH.",)


def _on_login(around: Surroundings, *, is_remote: bool) -> list[str]:
    if not is_remote:
        return [
            "How users reach it from elsewhere, over SSH; who logs in, and with which key, is each"
            " user's own part. On the host, and on other 'machines', commands run directly."
        ]
    return [
        f"Its own name is {around.host}; are there other login nodes? On 'machines' commands run"
        " directly. With a second factor, 'master: reuse' only uses what users have opened."
    ]


def _on_paths(around: Surroundings, chosen: str | None) -> list[str]:
    home = around.home.filesystem or "a file system of unknown type"
    folders = [
        f"{folder.name} is on {folder.filesystem or 'a file system of unknown type'} here."
        for folder in around.others
    ]
    if around.home.is_shared:
        folders.insert(0, f"The home is on {home} here.")
    elif chosen is None or chosen.startswith("~"):
        folders.insert(0, f"The home is on {home} here: do compute nodes see the same folder?")
    return [*folders, "'hpc-bridge doctor' tests the shared directory from login and node."]


def _on_partitions(facts: SlurmFacts, left_out: Mapping[str, str]) -> list[str]:
    lines = ["CPUs, memory and GPUs are those of each partition's largest node."]
    if why := facts.refused.get("nodes"):
        lines.append(f"The nodes are not known, so nor are these: {why}")
    elif not facts.nodes:
        lines.append("Slurm shows no nodes to this user, so these are not known.")
    for name, why in left_out.items():
        lines.append(f"Left out: {name} ({why}).")
    if not any(partition.is_default for partition in facts.partitions):
        lines.append("None is the default: each job must name one.")
    return lines


def _on_partition(
    partition: SitePartition, nodes: Sequence[SiteNode], facts: SlurmFacts
) -> list[str]:
    lines = [_STATES[partition.state]] if partition.state in _STATES else []
    lines += [
        f"{what} that may not use it: {', '.join(names)}."
        for what, names in (
            ("Accounts", partition.denied_accounts),
            ("QOS", partition.denied_qos),
        )
        if names
    ]
    if partition.own_qos:
        lines.append(f"The limits of QOS {partition.own_qos} hold for all its jobs.")
    if above := _preempted_by(partition, facts):
        mode = partition.preempt_mode
        lines.append(f"Its jobs give way to those of {', '.join(above)} (PreemptMode {mode}).")
    kinds = Counter(_in_words(node) for node in nodes)
    if len(kinds) > 1:
        lines.append("Its nodes differ:")
        lines += [f"  {count} with {words}" for words, count in kinds.items()]
    if features := sorted({feature for node in nodes for feature in node.features}):
        lines.append(f"Features (--constraint): {', '.join(features)}.")
    if any(node.threads_per_core > 1 for node in nodes):
        lines.append("Its cores have several hardware threads; Slurm counts each as a CPU.")
    if any(NO_TYPE in node.gpus for node in nodes):
        lines.append(f"GPUs that Slurm has no type for are called {NO_TYPE!r}.")
    return lines


def _preempted_by(partition: SitePartition, facts: SlurmFacts) -> list[str]:
    """Partitions above it that share nodes with it."""
    by_partition = "partition_prio" in facts.config.get("PreemptType", "")
    if not by_partition or partition.preempt_mode in (None, "OFF"):
        return []
    mine = {node.name for node in _nodes_of(partition, facts)}
    return [
        other.name
        for other in facts.partitions
        if other.priority_tier > partition.priority_tier
        and mine & {node.name for node in _nodes_of(other, facts)}
    ]


def _in_words(node: SiteNode) -> str:
    gpus = "".join(f", {kind}:{count}" for kind, count in sorted(node.gpus.items()))
    return f"{node.cpus} CPUs, {_memory(node.memory) or '0M'}{gpus}"


def _on_accounts(facts: SlurmFacts) -> list[str]:
    if not facts.has_accounting:
        return []
    if why := facts.refused.get("accounts"):
        return [f"Not known: {why}"]
    if "accounts" in facts.private:
        return ["Not known: Slurm shows users only their own (PrivateData)."]
    if len(facts.accounts) > MOST_ACCOUNTS:
        return [f"There are {len(facts.accounts)}, too many to choose from; any is taken."]
    return ["All that there are; which of them a user may use, Slurm decides."]


def _on_qos(facts: SlurmFacts) -> list[str]:
    if not facts.has_accounting:
        return []
    if why := facts.refused.get("qos"):
        return [f"Not known: {why}"]
    return [
        "All that there are; which of them an account may use, Slurm decides.",
        *(f"  {qos.name}: {limits}" for qos in facts.qos if (limits := _limits(qos))),
    ]


def _limits(qos: SiteQos) -> str:
    parts = [
        f"walltime at most {walltime_words(qos.walltime)}" if qos.walltime else "",
        f"at most {qos.live_jobs} queued and running jobs of a user" if qos.live_jobs else "",
    ]
    return ", ".join(part for part in parts if part)


def _on_environment(around: Surroundings) -> list[str]:
    lines = ["What runs on a node before a flow, and the Python that runs it."]
    if around.has_modules:
        lines.append("'module' works in login shells here.")
    return lines


def _on_containers(around: Surroundings) -> list[str]:
    if around.container_runtime:
        return [f"{around.container_runtime} is on PATH here; do the nodes have it too?"]
    return ["Neither apptainer nor singularity is on PATH here."]


# values


def _largest_index(facts: SlurmFacts) -> int:
    size = facts.config.get("MaxArraySize", "")
    return int(size) - 1 if size.isdecimal() and int(size) > 1 else 0


def _scratch(facts: SlurmFacts) -> str | None:
    folder = facts.config.get("TmpFS", "")
    return folder if folder.startswith("/") and "%" not in folder else None


def _most(values: Iterable[int]) -> int | None:
    return max(values, default=0) or None


def _smaller(value: int | None, limit: int | None) -> int | None:
    return min(value, limit) if value and limit else value or limit


def _below(value: int | None, limit: int) -> int | None:
    """None for what is no limit."""
    return value if value is not None and value < limit else None


def _memory(mebibytes: int | None) -> str | None:
    return format_memory(mebibytes) if mebibytes else None


def walltime_words(seconds: int | None) -> str | None:
    """As people write it: ``1d12h``."""
    if not seconds:
        return None
    text = ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text
