"""The schema of a profile as a table for people, kept in ``docs/site-profile.md``."""

from __future__ import annotations

import json
from typing import Any

from hpc_bridge.sites.schema import profile_schema

_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}


def field_table() -> str:
    """Every field of a profile, in Markdown."""
    schema = profile_schema()
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        lines += _rows(name, field, schema, name in schema["required"])
    return "\n".join(lines) + "\n"


def _rows(name: str, field: dict[str, Any], schema: dict[str, Any], required: bool) -> list[str]:
    part = _part(field, schema)
    about = field.get("description", "")
    rows = [f"| `{name}` | {_value(field)} | {_default(field, required)} | {_cell(about)} |"]
    if part is None:
        return rows
    if not about:
        rows = [f"| **`{name}`** | | | {_cell(part.get('description', ''))} |"]
    inner = name
    if "items" in field:
        inner = f"{name}[]"
    elif "additionalProperties" in field:
        inner = f"{name}.*"
    needed = part.get("required", ())
    for key, value in part["properties"].items():
        rows += _rows(f"{inner}.{key}", value, schema, key in needed)
    return rows


def _part(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    """The part of the schema that a field, its items or its values refer to."""
    inside = [field, field.get("items"), field.get("additionalProperties")]
    for one in (kind for kind in inside if isinstance(kind, dict)):
        for kind in (one, *one.get("anyOf", ())):
            if str(kind.get("$ref", "")).startswith("#/$defs/"):
                part: dict[str, Any] = schema["$defs"][kind["$ref"].rpartition("/")[2]]
                return part
    return None


def _value(field: dict[str, Any]) -> str:
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    words = []
    for kind in kinds:
        if str(kind.get("$ref", "")).startswith("#/properties/"):
            words.append("list")
        elif "enum" in kind or "const" in kind:
            values = kind.get("enum", [kind.get("const")])
            words.append(", ".join(f"`{value}`" for value in values))
        elif kind.get("type") == "array":
            words.append("list")
        elif kind.get("type") == "object" or "$ref" in kind:
            words.append("mapping")
        else:
            examples = kind.get("examples") or field.get("examples")
            shown = f", e.g. `{examples[0]}`" if examples else ""
            words.append(f"{_WORDS.get(kind.get('type', ''), 'any')}{shown}")
    return " or ".join(dict.fromkeys(words))


def _default(field: dict[str, Any], required: bool) -> str:
    if required:
        return "**required**"
    value = field.get("default")
    return (
        "" if value in (None, "", [], {}) or isinstance(value, dict) else f"`{json.dumps(value)}`"
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
