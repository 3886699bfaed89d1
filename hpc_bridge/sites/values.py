"""Kinds of values in a site profile that have a short form or a form of their own."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from hpc_bridge.jobs.spec import Text
from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.settings import parse_retention


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _words(value: object) -> object:
    """A command as one text is split as a shell would."""
    return shlex.split(value) if isinstance(value, str) else value


def _cluster_path(value: object) -> object:
    if isinstance(value, str) and value[:1] not in ("/", "~", "$"):
        raise ValueError(
            f"{value!r} is not absolute; begin it with /, ~ or an environment variable"
        )
    return value


def _written_retention(value: timedelta | None) -> str:
    if value is None:
        return "forever"
    days, rest = divmod(int(value.total_seconds()), 86400)
    return f"{days}d" if not rest else format_walltime(int(value.total_seconds()))


Words = Annotated[
    tuple[Text, ...],
    BeforeValidator(_words),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_list)]
"""Several, or one without a list."""
ClusterPath = Annotated[Text, AfterValidator(_cluster_path)]
Retention = Annotated[
    timedelta | None,
    BeforeValidator(parse_retention),
    PlainSerializer(_written_retention),
    WithJsonSchema({"type": "string", "examples": ["30d", "forever"]}),
]
