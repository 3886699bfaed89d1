"""The JSON schema of a profile, which editors complete and check with."""

from __future__ import annotations

import json
from typing import Any

from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.rules import ELSEWHERE, VARIABLES

_TEXT = {"type": "string"}
_OF_PBS = {"properties": {"scheduler": {"properties": {"type": {"const": "pbs"}}}}}


def _only(word: str, words: str) -> dict[str, Any]:
    """A schema that refuses the other scheduler's words."""
    rules = {"propertyNames": {"not": {"const": word}}}
    return {"properties": {words: False, "job_variables": rules}}


_WORDS = {
    "if": {**_OF_PBS, "required": ["scheduler"]},
    "then": _only("partition", "partitions"),
    "else": _only("queue", "queues"),
}


def profile_schema() -> dict[str, Any]:
    """The model's schema, with the short forms that its validators take too."""
    schema = SiteProfile.model_json_schema()
    parts = schema["$defs"]
    for field in ("accounts", "qos"):
        items = schema["properties"][field]
        items["items"] = {"anyOf": [_TEXT, items["items"]]}
    scheduler = parts["SchedulerPart"]["properties"]
    for field in ("skip_directives", "add_directives"):
        scheduler[field] = _with_text(scheduler[field])
    login = parts["LoginPart"]["properties"]
    login["machines"] = _with_text(login["machines"])
    schema["properties"]["retention"]["default"] = "30d"  # pydantic writes ISO 8601
    names = [name for name in VARIABLES if name not in ELSEWHERE]
    schema["properties"]["job_variables"]["propertyNames"] = {"enum": [*names, "queue"]}
    schema["properties"] = _with_queues(schema["properties"])
    schema["allOf"] = [_WORDS]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """As it is kept in ``site_configs/profile.schema.json``."""
    return json.dumps(profile_schema(), indent=2) + "\n"


def _with_text(schema: dict[str, Any]) -> dict[str, Any]:
    about = {name: schema.pop(name) for name in ("title", "description")}
    return {**about, "anyOf": [_TEXT, schema]}


def _with_queues(properties: dict[str, Any]) -> dict[str, Any]:
    """``queues`` after ``partitions``, with the same fields."""
    queues = {
        "description": "Queues of PBS to choose from, with the fields of partitions.",
        "$ref": "#/properties/partitions",
    }
    found: dict[str, Any] = {}
    for name, field in properties.items():
        found[name] = field
        if name == "partitions":
            found["queues"] = queues
    return found
