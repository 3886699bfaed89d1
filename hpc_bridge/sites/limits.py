"""What a site forbids or does not have, told before submission.

A limit that the profile leaves out, and a rule that needs what is not asked for, judge nothing.
"""

from __future__ import annotations

import difflib
import grp
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs.units import format_memory, format_walltime
from hpc_bridge.schedulers.slurm_fields import NO_TYPE
from hpc_bridge.sites.profile import Partition, SiteProfile
from hpc_bridge.sites.rules import broken, size
from hpc_bridge.sites.words import in_word, queue_word

if TYPE_CHECKING:
    from hpc_bridge.sites.site import Site


def check_request(
    site: Site,
    variables: Mapping[str, Any],
    *,
    whole: bool = True,
    groups: Collection[str] | None = None,
) -> None:
    """Raise InvalidJobSpec with every problem of a set of job variables, one per line.

    Without ``whole`` more may be asked for later, and so the default partition is not judged.
    ``groups`` are the Unix groups of the account that submits, where they are known.
    """
    problems = found_problems(site.profile, variables, whole=whole, groups=groups)
    if problems:
        raise InvalidJobSpec("\n".join([f"site {site.name!r} would not take this job:", *problems]))


def found_problems(
    profile: SiteProfile,
    variables: Mapping[str, Any],
    *,
    whole: bool = True,
    groups: Collection[str] | None = None,
) -> list[str]:
    """As ``check_request``: the problems, each with the nearest thing that would work."""
    asked = _Asked.of(variables, groups)
    problems = [
        *_scheduler(profile, asked),
        *_offered(profile, asked),
        *_rules(profile, asked),
    ]
    names = _named(profile, asked)
    named = [partition for name in names if (partition := profile.partition(name)) is not None]
    if whole and variables.get("partition") is None and profile.default_partition:
        named = [profile.default_partition]
    refusals = [_refusals(partition, profile, asked) for partition in named]
    return problems + (refusals[0] if refusals and all(refusals) else [])


def _named(profile: SiteProfile, asked: _Asked) -> list[str]:
    """Of a list that Slurm takes the first partition that can runs the job; PBS takes one queue."""
    text = str(asked.values.get("partition") or "")
    names = [text] if profile.scheduler.type == "pbs" else text.split(",")
    return [name for name in names if name]


def own_groups() -> set[str]:
    """Names of the Unix groups of this process."""
    found = set()
    for group in {os.getgid(), *os.getgroups()}:
        with suppress(KeyError):
            found.add(grp.getgrgid(group).gr_name)
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request in numbers; None is what nobody has said."""

    values: Mapping[str, Any]
    groups: Collection[str] | None

    @classmethod
    def of(cls, variables: Mapping[str, Any], groups: Collection[str] | None) -> _Asked:
        # What refers to a block or a variable of the server is known once it has been resolved.
        values = {
            name: value
            for name, value in variables.items()
            if value is not None and not (isinstance(value, str) and "{{" in value)
        }
        return cls(values, groups)

    def number(self, name: str) -> int | None:
        value = self.values.get(name)
        return None if value is None else size(name, value)

    @property
    def nodes(self) -> int | None:
        """As said, or as tasks and tasks per node imply."""
        nodes, tasks, on_each = map(self.number, ("nodes", "tasks", "tasks_per_node"))
        if nodes is None and tasks is not None and on_each is not None:
            return -(-tasks // on_each)
        return nodes

    @property
    def tasks_on_a_node(self) -> int:
        """The fewest that some node must hold."""
        on_each, tasks, nodes = self.number("tasks_per_node"), self.number("tasks"), self.nodes
        if on_each is not None:
            return min(on_each, tasks or on_each)
        return -(-tasks // nodes) if tasks is not None and nodes is not None else 1

    @property
    def tasks(self) -> int:
        """In all."""
        return self.number("tasks") or (self.number("tasks_per_node") or 1) * (self.nodes or 1)

    @property
    def cpus_per_task(self) -> int:
        return self.number("cpus_per_task") or 1


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What one check of a partition found."""

    allows: str
    asked: str
    instead: str | None = None
    """A smaller request that would work."""


_Check = Callable[[Partition, _Asked], _Refusal | None]


def _scheduler(profile: SiteProfile, asked: _Asked) -> Iterable[str]:
    kind = asked.values.get("scheduler", profile.scheduler.type)
    if kind != profile.scheduler.type:
        yield f"its scheduler is {profile.scheduler.type!r}, not {kind!r}: leave scheduler out"


def _offered(profile: SiteProfile, asked: _Asked) -> Iterable[str]:
    """Names that the site does not know."""
    word = queue_word(profile.scheduler.type)
    partitions = [partition.name for partition in profile.partitions]
    for name in _named(profile, asked):
        if partitions and name not in partitions:
            yield _unknown(f"there is no {word} {name!r}", name, partitions)
    for field, offers in (("account", profile.accounts), ("qos", profile.qos)):
        value, names = asked.values.get(field), [offer.name for offer in offers]
        if value is not None and names and value not in names:
            yield _unknown(f"{field} {value!r} is not offered", value, names)


def _unknown(problem: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"{problem}{guess} (there: {', '.join(known)})"


def _rules(profile: SiteProfile, asked: _Asked) -> Iterable[str]:
    for name, rule in profile.job_variables.items():
        if (value := asked.values.get(name)) is not None and (
            words := broken(name, rule, value)
        ) is not None:
            yield f"{in_word(name, profile.scheduler.type)} {words}" + (
                f" ({rule.description})" if rule.description else ""
            )


def _refusals(partition: Partition, profile: SiteProfile, asked: _Asked) -> list[str]:
    found, word = [], queue_word(profile.scheduler.type)
    for check in _CHECKS:
        refusal = check(partition, asked)
        if refusal is not None:
            ways = [refusal.instead, _elsewhere(check, partition, profile, asked, refusal)]
            instead = ", or ".join(way for way in ways if way) or f"no other {word} takes it"
            found.append(f"{word} {partition.name!r} {refusal.allows}; {refusal.asked}: {instead}")
    return found


def _elsewhere(
    check: _Check, partition: Partition, profile: SiteProfile, asked: _Asked, refusal: _Refusal
) -> str | None:
    """Partitions that take all of the request; without another way those that take this of it."""
    others = [other for other in profile.partitions if other.name != partition.name]
    fitting = [other for other in others if not check(other, asked) and not _gpus(other, asked)]
    best = [other for other in fitting if all(one(other, asked) is None for one in _CHECKS)]
    others = best or ([] if refusal.instead else fitting)
    names = " or ".join(repr(other.name) for other in others[:4])
    return f"use {queue_word(profile.scheduler.type)}={names}" if names else None


# The checks of one partition.


def _account(partition: Partition, asked: _Asked) -> _Refusal | None:
    return _membership("accounts", partition.accounts, asked.values.get("account"))


def _qos(partition: Partition, asked: _Asked) -> _Refusal | None:
    return _membership("QOS", partition.qos, asked.values.get("qos"))


def _membership(what: str, allowed: Sequence[str], value: str | None) -> _Refusal | None:
    if value is None or not allowed or value in allowed:
        return None
    return _Refusal(f"is for {what} {', '.join(allowed)}", f"you asked with {value!r}")


def _groups(partition: Partition, asked: _Asked) -> _Refusal | None:
    if asked.groups is None or not partition.groups or {*partition.groups} & {*asked.groups}:
        return None
    return _Refusal(f"is for members of {', '.join(partition.groups)}", "you are in none of them")


def _walltime(partition: Partition, asked: _Asked) -> _Refusal | None:
    walltime, limit = asked.number("walltime"), partition.walltime
    if walltime is None or limit is None or walltime <= limit:
        return None
    return _Refusal(
        f"allows {duration(limit)}",
        f"you asked for {duration(walltime)}",
        f"use walltime={_written(limit)!r}",
    )


def _nodes(partition: Partition, asked: _Asked) -> _Refusal | None:
    nodes, limit = asked.nodes, partition.most_nodes
    if nodes is None or limit is None or nodes <= limit:
        return None
    return _Refusal(
        _allows(partition, _count(limit, "node")), f"you asked for {nodes}", f"use nodes={limit}"
    )


def _cpus(partition: Partition, asked: _Asked) -> _Refusal | None:
    limit, of_each = partition.cpus_per_node, asked.cpus_per_task
    if limit is None:
        return None
    allows = _allows(partition, f"{_count(limit, 'CPU')} per node")
    if of_each > limit:
        return _Refusal(
            allows, f"you asked for {of_each} for one task", f"use cpus_per_task={limit}"
        )
    on_a_node, at_most = asked.tasks_on_a_node, limit // of_each
    nodes, most_nodes = -(-asked.tasks // at_most), partition.most_nodes
    if on_a_node > at_most:
        words = f"you asked for {_tasks(on_a_node, of_each)} on {_on_nodes(asked)}"
    elif most_nodes is not None and nodes > most_nodes and most_nodes >= (asked.nodes or 1):
        allows = _allows(
            partition, f"{_count(limit, 'CPU')} on each of {_count(most_nodes, 'node')}"
        )
        words = f"you asked for {_tasks(asked.tasks, of_each)}"
    else:
        return None
    if asked.number("tasks_per_node") is not None:
        instead = f"use tasks_per_node={at_most}"
    elif most_nodes is not None and nodes > most_nodes:
        instead = f"use tasks={most_nodes * at_most}"
    else:
        instead = f"use nodes={nodes}"
    return _Refusal(allows, words, instead)


def _tasks(tasks: int, cpus: int) -> str:
    if tasks == 1:
        return _count(cpus, "CPU")
    each = f" of {_count(cpus, 'CPU')}" if cpus > 1 else ""
    return f"{tasks} tasks{each}"


def _memory(partition: Partition, asked: _Asked) -> _Refusal | None:
    limit, per_cpu = partition.memory_per_node, asked.number("memory_per_cpu")
    cpus = asked.tasks_on_a_node * asked.cpus_per_task
    memory = per_cpu * cpus if per_cpu is not None else asked.number("memory")
    if limit is None or memory is None or memory <= limit:
        return None
    words, instead = f"you asked for {format_memory(memory)}", f"memory={format_memory(limit)!r}"
    if per_cpu is not None:
        words += f" on a node ({_count(cpus, 'CPU')} with {format_memory(per_cpu)} each)"
        instead = f"memory_per_cpu={format_memory(max(1, limit // cpus))!r}"
    return _Refusal(
        _allows(partition, f"{format_memory(limit)} of memory per node"), words, f"use {instead}"
    )


def _gpus(partition: Partition, asked: _Asked) -> _Refusal | None:
    field = "gpus" if "gpus" in asked.values else "gpus_per_node"
    count = asked.number(field)
    if count is None:
        return None
    kind = str(asked.values[field]).rpartition(":")[0]
    there = partition.gpus_per_node
    words = f"you asked for {_count_gpus(count, kind)}"
    if not there:
        return _Refusal("has no GPUs", words)
    if kind and kind not in there:
        return _Refusal(
            f"has no GPUs of type {kind!r} (there: {', '.join(there)})",
            words,
            _of_the_only_type(partition, asked, field, count),
        )
    limit = there[kind] if kind else sum(there.values())
    allows = _allows(partition, f"{_count_gpus(limit, kind)} per node")
    if field == "gpus_per_node":
        if count <= limit:
            return None
        return _Refusal(allows, f"{words} per node", f"use gpus_per_node={_gpus_of(limit, kind)}")
    needed, most_nodes = -(-count // limit), partition.most_nodes
    if most_nodes is not None and needed > most_nodes:
        most = _gpus_of(most_nodes * limit, kind)
        return _Refusal(f"{allows} on {_count(most_nodes, 'node')}", words, f"use gpus={most}")
    if asked.nodes is not None and needed > asked.nodes:
        return _Refusal(allows, f"{words} on {_on_nodes(asked)}", f"use nodes={needed}")
    return None


def _of_the_only_type(partition: Partition, asked: _Asked, field: str, count: int) -> str | None:
    """The same number, or as many as there are; None where there is a choice of types."""
    if len(partition.gpus_per_node) > 1:
        return None
    [(kind, limit)] = partition.gpus_per_node.items()
    nodes = 1 if field == "gpus_per_node" else asked.nodes or partition.most_nodes
    most = count if nodes is None else min(count, nodes * limit)
    return f"use {field}={_gpus_of(most, '' if kind == NO_TYPE else kind)}"


def _count_gpus(count: int, kind: str) -> str:
    return _count(count, f"{kind} GPU" if kind else "GPU")


def _gpus_of(count: int, kind: str) -> str:
    """As one writes it."""
    return f"'{kind}:{count}'" if kind else str(count)


_CHECKS: tuple[_Check, ...] = (_account, _qos, _groups, _walltime, _nodes, _cpus, _memory, _gpus)


def _allows(partition: Partition, what: str) -> str:
    walltime = f"{duration(partition.walltime)} and " if partition.walltime else ""
    return f"allows {walltime}{what}"


def _on_nodes(asked: _Asked) -> str:
    return "each node" if asked.nodes is None else _count(asked.nodes, "node")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


def duration(seconds: int) -> str:
    """``259200`` -> ``"3 days"``; the largest unit that says it exactly, else a clock."""
    for unit, length in _UNITS:
        if seconds % length == 0:
            return _count(seconds // length, unit)
    return format_walltime(seconds)


def _written(seconds: int) -> str:
    """As one writes a walltime: ``"3d"``."""
    for unit, length in _UNITS:
        if seconds % length == 0:
            return f"{seconds // length}{unit[0]}"
    return format_walltime(seconds)
