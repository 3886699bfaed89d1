"""Pools that follow their site: what was derived, what their owners have changed since.

A pool's template keeps a record of the defaults that it was given. A default that is still as
recorded follows the site; any other is the owner's, and stays as long as the site allows it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpc_bridge.jobs.units import parse_memory, parse_walltime
from hpc_bridge.sites.template import LARGEST, SMALLEST, Schema

RECORD = "x-hpc-bridge"
_EXECUTED = ("setup", "template", "python", "command", "env", "api_url")
"""What decides what a job executes, and who gets its credentials. The site's own pool hands none of
it on, since anybody who may edit pools could write it there: it is the profile's, or the user's."""
_LONG = 60


@dataclass(frozen=True, slots=True)
class Derived:
    """What a pool of a site is to be."""

    site: str
    template: dict[str, Any]
    description: str
    user: str | None = None
    """Login name of whose pool it is; None for the site's own, from which the others are made."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """A pool brought up to date."""

    template: dict[str, Any]
    description: str
    changes: tuple[str, ...]
    """In words, one for each field of the form; empty when there is nothing to change."""
    warnings: tuple[str, ...] = ()


def record_of(template: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a pool's template says of its site; None when it was not made from one."""
    record = (template.get("variables") or {}).get(RECORD)
    return record if isinstance(record, dict) and isinstance(record.get("site"), str) else None


def personal(site_pool: Derived, user: str, pool: str) -> Derived:
    """The pool of one account, made from the site's own."""
    template = copy.deepcopy(site_pool.template)
    template["variables"].pop(RECORD, None)
    fields = _fields(template)
    for name in _EXECUTED:
        fields.get(name, {}).pop("default", None)
    template["job_configuration"] = {
        name: f"{{{{ {name} }}}}" for name in template["job_configuration"] if name in fields
    }
    shared = fields.get("shared_dir", {})
    if isinstance(shared.get("default"), str):
        shared["default"] = shared["default"].replace("{user}", user)
    description = f"Batch jobs of {pool}, made by hpc-bridge from the site {site_pool.site}."
    return Derived(site_pool.site, template, description, user)


def with_record(derived: Derived, *, adopted: bool = False) -> dict[str, Any]:
    """The template with the record; ``adopted`` is a pool that somebody else had made."""
    template = copy.deepcopy(derived.template)
    record = {
        "site": derived.site,
        "user": derived.user,
        "adopted": adopted,
        "description": derived.description,
        "defaults": {name: field.get("default") for name, field in _fields(template).items()},
    }
    template["variables"][RECORD] = record
    return template


def without_record(template: Mapping[str, Any]) -> dict[str, Any]:
    """The template of a pool that follows no site any more."""
    variables = {name: value for name, value in template["variables"].items() if name != RECORD}
    return {**template, "variables": variables}


def renewed(
    current: Mapping[str, Any],
    current_description: str | None,
    derived: Derived,
    packaged: Mapping[str, Any],
) -> Renewed:
    """``current`` as ``derived`` has it now, with what its owner has changed.

    For a pool without a record, ``packaged`` is what it is compared with: the worker's template.
    """
    record = record_of(current)
    written = record["defaults"] if record else _defaults(packaged)
    new = with_record(derived, adopted=record["adopted"] if record else True)
    fields, old = _fields(new), _fields(current)
    warnings = []
    for name, field in fields.items():
        before, now = old.get(name), field.get("default")
        own = before.get("default") if before else written.get(name)
        if own != written.get(name) and own != now:
            if allowed(name, field, own):
                field["default"] = own
            else:
                warnings.append(f"{name}: {own!r} is not offered any more; it is {now!r} now")
        if field.get("default") is None and before is not None:  # as whoever saved it wrote it
            field.pop("default", None)
            field |= {"default": None} if "default" in before else {}
    foreign = {name: field for name, field in old.items() if name not in {*written, *fields}}
    variables = {**_mapping(current.get("variables")), **new["variables"]}
    variables["properties"] = fields | foreign
    jobs = {
        name: value
        for name, value in _mapping(current.get("job_configuration")).items()
        if value != f"{{{{ {name} }}}}" or name in foreign
    }
    template = {**current, "variables": variables}
    template["job_configuration"] = new["job_configuration"] | jobs
    written_description = record["description"] if record else ""
    own_description = (current_description or "") != written_description
    description = current_description if own_description else derived.description
    changes = [] if template == current else _changes(old, _fields(template))
    if template != current and not changes:
        changes.append("what is recorded of its site")
    if description != (current_description or ""):
        changes.append(f"description: {description}")
    return Renewed(template, description or "", tuple(changes), tuple(warnings))


def allowed(name: str, field: Schema, value: Any) -> bool:
    """Whether the pool's form takes the value, limits of units included."""
    from prefect.utilities.schema_tools.validation import validate

    schema = {"type": "object", "properties": {name: field}}
    if validate({name: value}, schema, allow_none_with_default=True):
        return False
    parse = parse_walltime if name == "walltime" else parse_memory
    for kind in field.get("anyOf", ()):
        bounds = kind.get(SMALLEST), kind.get(LARGEST)
        if bounds == (None, None) or value is None:
            continue
        try:
            given = parse(value)
        except ValueError:
            return False
        if bounds[0] is not None and given < parse(bounds[0]):
            return False
        if bounds[1] is not None and given > parse(bounds[1]):
            return False
    return True


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _fields(template: Mapping[str, Any]) -> dict[str, Schema]:
    return _mapping(_mapping(template.get("variables")).get("properties"))


def _defaults(template: Mapping[str, Any]) -> dict[str, Any]:
    return {name: field.get("default") for name, field in _fields(template).items()}


def _changes(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[str]:
    found = []
    for name, field in new.items():
        before = old.get(name)
        if before is None:
            found.append(f"{name}: new")
        elif before != field:
            was, now = _facts(before), _facts(field)
            differing = [
                f"{fact} {_shown(was.get(fact))} -> {_shown(now.get(fact))}"
                for fact in {**was, **now}
                if was.get(fact) != now.get(fact)
            ]
            if before.get("description") != field.get("description"):
                differing.append("description")
            found.append(f"{name}: {', '.join(differing) or 'details of its form'}")
    return found + [f"{name}: removed" for name in old if name not in new]


def _facts(field: Schema) -> dict[str, Any]:
    """What people would call different about a field."""
    facts: dict[str, Any] = {"default": field.get("default")}
    for kind in field.get("anyOf", [field]):
        number = kind.get("type") in ("integer", "number")
        facts |= (
            {
                "choices": facts.get("choices") or kind.get("enum"),
                "smallest": facts.get("smallest") or kind.get(SMALLEST, kind.get("minimum")),
                "largest": facts.get("largest") or kind.get(LARGEST, kind.get("maximum")),
            }
            if number or "enum" in kind or SMALLEST in kind or LARGEST in kind
            else {}
        )
    return facts


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(str, value))})"
    if isinstance(value, str) and (len(value) > _LONG or not value.isprintable()):
        return repr(value[: _LONG - 3] + "..." if len(value) > _LONG else value)
    return "none" if value is None else str(value)
