"""A profile drafted from what Slurm says of itself, with remarks for the admin who reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpc_bridge.schedulers.slurm_fields import NO_TYPE
from hpc_bridge.schedulers.slurm_site import SiteNode, SitePartition, SiteQos
from hpc_bridge.sites.draft import (
    ON_COMMANDS,
    Draft,
    Said,
    below,
    common_content,
    common_examples,
    common_remarks,
    memory_words,
    most,
    smaller,
    walltime_words,
)
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.slurm_facts import SlurmFacts
from hpc_bridge.sites.surroundings import Surroundings

MOST_ACCOUNTS = 25
"""More are no list to choose from."""
_STATES = {
    "DOWN": "It is DOWN now: jobs can be submitted, and none starts.",
    "DRAIN": "It is set to DRAIN now: no job can be submitted.",
    "INACTIVE": "It is INACTIVE now: no job can be submitted, and none starts.",
}


def draft_slurm(facts: SlurmFacts, around: Surroundings, said: Said) -> Draft:
    """Everything that the answers tell; what they do not tell is left out and remarked on."""
    listed, left_out = _sorted_out(facts.partitions)
    partitions = [(partition, _nodes_of(partition, facts)) for partition in listed]
    content = common_content(said, around, facts)
    content["paths"]["node_scratch"] = _scratch(facts)
    content |= {
        "scheduler": {
            "type": "slurm",
            "version": facts.version,
            "accounting": facts.has_accounting,
            "arrays": _largest_index(facts) > 0,
            "commands": dict(said.commands),
        },
        "partitions": [_described(partition, nodes) for partition, nodes in partitions],
        "accounts": [_offer(*account) for account in _listed_accounts(facts)],
        "qos": [_offer(qos.name, qos.description) for qos in facts.qos],
    }
    remarks = common_remarks(said, around, facts, facts.version) | {
        "scheduler": [*_on_scheduler(facts), *([ON_COMMANDS] if said.commands else ())],
        "partitions": _on_partitions(facts, left_out),
        "accounts": _on_accounts(facts),
        "qos": _on_qos(facts),
    }
    for partition, nodes in partitions:
        remarks[f"partitions.{partition.name}"] = _on_partition(partition, nodes, facts)
    unknown = {
        "accounts": "accounts" in facts.refused or "accounts" in facts.private,
        "qos": "qos" in facts.refused,
    }
    examples = common_examples(around) | {
        what: ["name", "other-name"] for what, is_so in unknown.items() if is_so
    }
    return Draft(SiteProfile.model_validate(content), remarks, examples)


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
        "nodes_per_job": below(partition.nodes_per_job, partition.nodes),
        "cpus_per_node": smaller(most(node.cpus for node in nodes), partition.cpus_per_node),
        "memory_per_node": memory_words(
            smaller(most(node.memory for node in nodes), partition.memory_per_node)
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
    return f"{node.cpus} CPUs, {memory_words(node.memory) or '0M'}{gpus}"


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


# values


def _largest_index(facts: SlurmFacts) -> int:
    size = facts.config.get("MaxArraySize", "")
    return int(size) - 1 if size.isdecimal() and int(size) > 1 else 0


def _scratch(facts: SlurmFacts) -> str | None:
    folder = facts.config.get("TmpFS", "")
    return folder if folder.startswith("/") and "%" not in folder else None
