"""A profile drafted from what PBS says of itself, with remarks for the admin who reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_bridge.schedulers.pbs_select import DEFAULT_GPU_RESOURCE
from hpc_bridge.schedulers.pbs_site import Access, SiteHost, SiteQueue, hosts_of
from hpc_bridge.schedulers.slurm_fields import NO_TYPE
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
from hpc_bridge.sites.pbs_facts import PBSFacts
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.surroundings import Surroundings


def draft_pbs(facts: PBSFacts, around: Surroundings, said: Said) -> Draft:
    """Everything that the answers tell; what they do not tell is left out and remarked on."""
    listed, left_out = _sorted_out(facts.queues)
    queues = [(queue, hosts_of(queue, facts.hosts)) for queue in listed]
    gpus = next(iter(facts.gpu_resources), DEFAULT_GPU_RESOURCE)
    scheduler = {
        "type": "pbs",
        "version": facts.server.version,
        "accounting": facts.server.keeps_history,
        "arrays": facts.server.largest_array is None or facts.server.largest_array > 1,
        "commands": dict(said.commands),
        "gpu_resource": None if gpus == DEFAULT_GPU_RESOURCE else gpus,
    }
    content = common_content(said, around, facts) | {
        "scheduler": scheduler,
        "partitions": [_described(queue, hosts, facts, gpus) for queue, hosts in queues],
    }
    remarks = common_remarks(said, around, facts, facts.server.version) | {
        "scheduler": [*_on_scheduler(facts), *([ON_COMMANDS] if said.commands else ())],
        "partitions": _on_queues(facts, left_out),
        "accounts": ["PBS has no list of accounts or projects; a list here is one to choose from."],
    }
    remarks["paths"].append("Jobs have a folder of their own on each node in $TMPDIR.")
    for queue, hosts in queues:
        remarks[f"partitions.{queue.name}"] = _on_queue(queue, hosts, facts, gpus)
    examples = common_examples(around) | {"accounts": ["project", "other-project"]}
    return Draft(SiteProfile.model_validate(content), remarks, examples)


def _sorted_out(queues: Sequence[SiteQueue]) -> tuple[list[SiteQueue], dict[str, str]]:
    """Those for a profile, and why the others are not in it."""
    listed, left_out = [], {}
    for queue in queues:
        if queue.is_routing:
            there = ", ".join(queue.leads_to) or "queues that are not known"
            left_out[queue.name] = f"only leads to {there}"
        elif queue.only_from_routes:
            left_out[queue.name] = "takes jobs from routing queues only"
        elif not queue.is_enabled:
            left_out[queue.name] = "disabled: it takes no jobs now"
        elif not queue.is_started:
            left_out[queue.name] = "stopped: none of its jobs starts now"
        else:
            listed.append(queue)
    return listed, left_out


def _described(
    queue: SiteQueue, hosts: Sequence[SiteHost], facts: PBSFacts, gpus: str
) -> dict[str, Any]:
    server = facts.server
    limit = smaller(queue.walltime, server.walltime)
    default = queue.default_walltime or server.default_walltime
    nodes_per_job = smaller(queue.nodes_per_job, server.nodes_per_job)
    on_a_host = most(host.counts.get(gpus, 0) for host in hosts)
    given = {
        "name": queue.name,
        "default": queue.name == server.default_queue,
        "walltime": walltime_words(limit),
        "default_walltime": walltime_words(smaller(default, limit) if default else None),
        "nodes": len(hosts),
        "nodes_per_job": below(nodes_per_job, len(hosts)) if hosts else nodes_per_job,
        "cpus_per_node": smaller(most(host.cpus for host in hosts), queue.cpus_per_job),
        "memory_per_node": memory_words(
            smaller(most(host.memory for host in hosts), queue.memory_per_job)
        ),
        "gpus_per_node": {NO_TYPE: on_a_host} if on_a_host else {},
    }
    return {name: value for name, value in given.items() if value}


# remarks


def _on_scheduler(facts: PBSFacts) -> list[str]:
    server, lines = facts.server, []
    if not server.keeps_history:
        lines.append(
            "The server forgets jobs as they end (job_history_enable is not set): what became of"
            " one is known from its own records only."
        )
    if server.largest_array is not None:
        lines.append(f"An array has {server.largest_array} elements at most (max_array_size).")
    if not server.shows_all_jobs:
        lines.append("Users see only their own jobs (query_other_jobs).")
    if not server.is_scheduling:
        lines.append("Scheduling is switched off now: jobs can be submitted, and none starts.")
    if len(facts.gpu_resources) > 1:
        names = ", ".join(facts.gpu_resources)
        lines.append(f"Several resources may count GPUs ({names}): gpu_resource is the right one?")
    lines += _access_words(server.access, "Only these may use the cluster")
    if server.limits:
        lines.append(f"Limits of the server: {_in_words(server.limits)}; live_jobs limits a user.")
    lines.append("If jobs are charged to projects with -P, say so: account_option: -P")
    return lines


def _on_queues(facts: PBSFacts, left_out: Mapping[str, str]) -> list[str]:
    lines = ["CPUs, memory and GPUs are those of each queue's largest host, all its vnodes."]
    if why := facts.refused.get("nodes"):
        lines.append(f"The nodes are not known, so nor are these: {why}")
    elif not facts.hosts:
        lines.append("PBS shows no nodes to this user, so these are not known.")
    lines += [f"Left out: {name} ({why})." for name, why in left_out.items()]
    default = facts.server.default_queue
    if default is None:
        lines.append("None is the default: each job must name one.")
    elif default in left_out:
        lines.append(f"Jobs that name none go to {default}.")
    return lines


def _on_queue(queue: SiteQueue, hosts: Sequence[SiteHost], facts: PBSFacts, gpus: str) -> list[str]:
    lines = _access_words(queue.access, "Only these may use it")
    if queue.shortest_walltime:
        lines.append(f"It takes no jobs shorter than {walltime_words(queue.shortest_walltime)}.")
    if queue.limits:
        lines.append(f"Its limits: {_in_words(queue.limits)}.")
    if facts.hosts and not hosts:
        lines.append("Which hosts it has could not be told.")
    kinds = Counter(_host_words(host, gpus) for host in hosts)
    if len(kinds) > 1:
        lines.append("Its hosts differ:")
        lines += [f"  {count} with {words}" for words, count in kinds.items()]
    return lines


def _access_words(access: Access, who: str) -> list[str]:
    """What the lists say; which groups of a user count, the server decides."""
    return [
        f"{who}: {what} {', '.join(entries) or '(nobody)'} ({name})."
        for what, entries, name in (
            ("users", access.users, "acl_users"),
            ("groups", access.groups, "acl_groups"),
        )
        if entries is not None
    ]


def _in_words(limits: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in limits.items())


def _host_words(host: SiteHost, gpus: str) -> str:
    count = host.counts.get(gpus, 0)
    return f"{host.cpus} CPUs, {memory_words(host.memory) or '0M'}" + (
        f", {count} GPUs" if count else ""
    )
