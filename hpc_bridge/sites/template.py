"""The base job template of a site's work pool: its form offers just what the site has.

Every field that may be left empty is an ``anyOf`` with ``null`` and has no default: the pool's page
draws its first kind (a drop-down for an ``enum`` of texts), writes ``null`` for an empty one, and
the server takes that. With ``null`` as default the page of Prefect 3.8 shows the word "None"
instead, and a plain ``enum`` is refused when the page is saved.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpc_bridge.jobs.units import format_memory, format_walltime
from hpc_bridge.sites.limits import duration
from hpc_bridge.sites.profile import Offer, Partition, SiteProfile
from hpc_bridge.sites.rules import BOUNDED, Rule, size

SMALLEST, LARGEST = "x-minimum", "x-maximum"
"""Bounds of what is text with a unit, which JSON schema cannot compare."""

_WALLTIMES = (
    r"^\s*(?:(?:\d+\s*[dhmsDHMS]\s*)+|(?:\d+-)?\d+:\d{1,2}:\d{1,2}|\d+-\d+(?::\d{1,2})?)\s*$"
)
_MEMORIES = r"^\s*\d+(?:\.\d+)?\s*[KMGTkmgt](?:[iI]?[bB])?\s*$"
_UNITS = {"walltime": _WALLTIMES, "memory": _MEMORIES, "memory_per_cpu": _MEMORIES}
_GPUS = ("gpus", "gpus_per_node")
_LONGEST_MENU = 64

Schema = dict[str, Any]


def site_template(profile: SiteProfile, base_job_template: Mapping[str, Any]) -> dict[str, Any]:
    """``base_job_template`` of the worker, with the site's choices, bounds, words and defaults.

    ``{user}`` stays in paths. What will be executed (prologue, modules, Python, script template) is
    not in it: whoever submits takes it from the profile, which they have accepted.
    """
    template = copy.deepcopy(dict(base_job_template))
    properties: dict[str, Schema] = template["variables"]["properties"]
    known = {"title": "Site", "description": "The cluster that jobs of this pool run on."}
    properties["site"] = {"anyOf": [{"type": "null"}], **properties.get("site", known)}
    template["job_configuration"]["site"] = "{{ site }}"
    kinds, remarks, defaults = _kinds(profile), _remarks(profile), _defaults(profile)
    for name, field in properties.items():
        if name in kinds:
            field = _of_kinds(field, kinds[name])
        words = profile.job_variables.get(name, Rule()).description or field.get("description", "")
        field["description"] = "".join([words, *remarks.get(name, ())])
        if name in defaults:
            field["default"] = defaults[name]
        elif field.get("default", "") is None:
            del field["default"]
        properties[name] = field
    return template


def _of_kinds(field: Mapping[str, Any], kinds: Sequence[Schema]) -> Schema:
    """The field with these kinds of value in place of its own; it may be left empty as before."""
    outer = {name: value for name, value in field.items() if name not in ("type", "enum", "anyOf")}
    if {"type": "null"} not in field.get("anyOf", ()):
        return {**outer, **kinds[0]}
    title = {"title": field["title"]} if "title" in field else {}
    first, *others = kinds or [{"type": "null"}]
    if first == {"type": "null"}:
        return {**outer, **first}
    return {**outer, "anyOf": [{**title, **first}, *others, {"type": "null"}]}


def _kinds(profile: SiteProfile) -> dict[str, list[Schema]]:
    """What each variable may be, for those that the site has something to say about."""
    kinds: dict[str, list[Schema]] = {
        "scheduler": [_menu([profile.scheduler.type])],
        "site": [_menu([profile.name])],
    }
    for name in BOUNDED:
        found = _bounded(name, profile)
        if found is not None:
            kinds[name] = found
    kinds |= {name: [_choices(rule)] for name, rule in _chosen(profile) if name not in _GPUS}
    for name, offers in (("account", profile.accounts), ("qos", profile.qos)):
        if offers and name not in kinds:
            kinds[name] = [_menu([offer.name for offer in offers])]
    names = [partition.name for partition in profile.partitions]
    if names and "partition" not in kinds:
        kinds["partition"] = [_menu(names)]
        if profile.scheduler.type == "slurm" and len(names) > 1:  # the first that can runs the job
            one = _one_of(names)
            # Without a type of its own it does not hide what the server says about the menu.
            several = [{"type": "string"}, {"pattern": f"^{one}(?:,{one})+$"}]
            kinds["partition"].append({"title": "Several", "allOf": several})
    if profile.scheduler.shortest_poll_interval is not None:
        shortest = profile.scheduler.shortest_poll_interval
        kinds["poll_interval"] = [{"type": "number", "minimum": shortest}]
    return kinds


def _chosen(profile: SiteProfile) -> Iterable[tuple[str, Rule]]:
    return ((name, rule) for name, rule in profile.job_variables.items() if rule.choices)


def _menu(texts: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(texts)}


def _choices(rule: Rule) -> Schema:
    for kind, python_type in (("boolean", bool), ("integer", int)):
        if all(type(choice) is python_type for choice in rule.choices):
            return {"type": kind, "enum": list(rule.choices)}
    return _menu(map(str, rule.choices))


def _one_of(names: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, names))})"


def _bounded(name: str, profile: SiteProfile) -> list[Schema] | None:
    if name in _GPUS:
        return _gpus(name, profile)
    smallest, largest = _bounds(name, profile)
    if name in _UNITS:
        bounds = {SMALLEST: _written(name, smallest), LARGEST: _written(name, largest)}
        limits = {key: value for key, value in bounds.items() if value is not None}
        return [{"type": "string", "pattern": _UNITS[name], **limits}]
    if smallest is None and largest is None:
        return None
    most = {} if largest is None else {"maximum": largest}
    return [{"type": "integer", "minimum": smallest or 1, **most}]


def _bounds(name: str, profile: SiteProfile) -> tuple[int | None, int | None]:
    """Smallest and largest value in the variable's own unit; None is not known."""
    rule = profile.job_variables.get(name, Rule())
    smallest = None if rule.minimum is None else size(name, rule.minimum)
    limits = [_most(_LIMITS[name](one) for one in profile.partitions)] if name in _LIMITS else []
    if rule.maximum is not None:
        limits.append(size(name, rule.maximum))
    return smallest, min((limit for limit in limits if limit is not None), default=None)


_LIMITS: dict[str, Any] = {
    "nodes": lambda partition: partition.most_nodes,
    "cpus_per_task": lambda partition: partition.cpus_per_node,
    "memory": lambda partition: partition.memory_per_node,
    "walltime": lambda partition: partition.walltime,
}


def _most(limits: Iterable[int | None]) -> int | None:
    """The largest of them; None when there is none, or one that is not known."""
    known = list(limits)
    return None if None in known else max((one for one in known if one is not None), default=None)


def _written(name: str, value: int | None) -> str | None:
    if value is None:
        return None
    return format_walltime(value) if name == "walltime" else format_memory(value)


def _gpus(name: str, profile: SiteProfile) -> list[Schema] | None:
    rule = profile.job_variables.get(name, Rule())
    if rule.choices:
        numbers = [int(choice) for choice in rule.choices if str(choice).isdecimal()]
        as_numbers = [{"type": "integer", "enum": numbers}] if numbers else []
        return [_menu(map(str, rule.choices)), *as_numbers]
    counts = _gpu_counts(name, profile)
    if counts == {}:
        return [{"type": "null"}]  # there are none
    smallest, largest = _bounds(name, profile)
    if counts is None and smallest is largest is None:
        return None
    offered: dict[str, int | None] = {"": None} if counts is None else counts
    most = {kind: _least(count, largest) for kind, count in offered.items()}
    types = [kind for kind in most if kind]
    ranges = {kind: range(smallest or 1, (count or 0) + 1) for kind, count in most.items()}
    texts = [f"{kind}:{count}" if kind else f"{count}" for kind in ranges for count in ranges[kind]]
    if None in most.values() or not 0 < len(texts) <= _LONGEST_MENU:
        any_type = f"(?:{_one_of(types)}:)?" if types else r"(?:[A-Za-z][\w.-]*:)?"
        if profile.scheduler.type == "pbs":
            any_type = ""
        text: Schema = {"type": "string", "pattern": rf"^\s*{any_type}0*[1-9]\d*\s*$"}
    else:
        text = _menu(texts)
    number: Schema = {"title": "Number", "type": "integer", "minimum": smallest or 1}
    if most[""] is not None:
        number["maximum"] = most[""]
    return [text, number]


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _gpu_counts(name: str, profile: SiteProfile) -> dict[str, int | None] | None:
    """Most GPUs of each type, and under "" of all types; None when partitions are not known."""
    if not profile.partitions:
        return None
    counts: dict[str, list[int | None]] = {}
    for partition in profile.partitions:
        nodes = 1 if name == "gpus_per_node" else partition.most_nodes
        of_each = partition.gpus_per_node
        for kind, count in {"": sum(of_each.values()), **of_each}.items():
            if count:
                counts.setdefault(kind, []).append(None if nodes is None else nodes * count)
    if profile.scheduler.type == "pbs":  # which takes a number without a type
        counts = {"": counts[""]} if counts else {}
    return {kind: _most(found) for kind, found in counts.items()}


def _remarks(profile: SiteProfile) -> dict[str, list[str]]:
    """What follows a field's own description."""
    remarks: dict[str, list[str]] = {}
    for name in _UNITS:
        smallest, largest = _bounds(name, profile)
        written = duration if name == "walltime" else format_memory
        if smallest is not None:
            remarks.setdefault(name, []).append(f" At least {written(smallest)}.")
        if largest is not None:
            remarks.setdefault(name, []).append(f" At most {written(largest)}.")
    for name in _GPUS:
        if _gpu_counts(name, profile) == {} and name not in profile.job_variables:
            remarks[name] = [" This site has none."]
    if profile.partitions:
        default = profile.default_partition
        remarks["partition"] = [f" That is {default.name}."] if default else []
        remarks["partition"].append(_list(profile.partitions, _partition))
    remarks["account"] = [_list(profile.accounts, lambda offer: offer.description)]
    remarks["qos"] = [_list(profile.qos, lambda offer: offer.description)]
    if profile.environment.python:
        remarks["python"] = [f" At this site: {profile.environment.python}."]
    return remarks


def _list(offers: Iterable[Offer | Partition], words: Any) -> str:
    """In one line, as the page draws descriptions; empty when there is nothing to say of any."""
    lines = [(offer.name, words(offer)) for offer in offers]
    if not any(text for _, text in lines):
        return ""
    return "".join(f" • {name}: {text}" if text else f" • {name}" for name, text in lines)


def _partition(partition: Partition) -> str:
    of_each = [f"{count} {kind} GPUs" for kind, count in partition.gpus_per_node.items()]
    memory, nodes = partition.memory_per_node, partition.most_nodes
    facts = [
        f"at most {duration(partition.walltime)}" if partition.walltime else "",
        f"{nodes} node{'s' if nodes > 1 else ''}" if nodes else "",
        f"{partition.cpus_per_node} CPUs" if partition.cpus_per_node else "",
        format_memory(memory) if memory else "",
        *of_each,
    ]
    known = ", ".join(fact for fact in facts if fact)
    return "; ".join(text for text in (partition.description, known) if text)


def _defaults(profile: SiteProfile) -> dict[str, Any]:
    """As Site.admin_variables(), for everybody, and without what is executed."""
    rules = {name: rule.default for name, rule in profile.job_variables.items()}
    given = {
        **rules,
        "site": profile.name,
        "scheduler": profile.scheduler.type,
        "shared_dir": profile.paths.shared_dir,
        "api_url": profile.network.api_url,
        "poll_interval": profile.scheduler.poll_interval,
        "arrays": None if profile.scheduler.arrays else False,
    }
    return {
        name: str(value) if name in _GPUS else value
        for name, value in given.items()
        if value is not None
    }
