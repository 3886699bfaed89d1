"""A decorated flow's call, checked and packed, before its flow run exists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from prefect.flows import Flow
from typing_extensions import TypeVar

from hpc_bridge.script import load_template
from hpc_bridge.settings import load_settings
from hpc_bridge.transports.login import LOCAL
from hpc_bridge.workers.configuration import BatchJobConfiguration

R = TypeVar("R")

# The server refuses a run whose parameters are larger than 512 KiB in all.
_SHOWN_PARAMETER_BYTES = 50_000


@dataclass(frozen=True, slots=True)
class PreparedRun(Generic[R]):
    """A call that has passed every check and whose bundle is on the shared directory."""

    flow: Flow[..., R]
    parameters: dict[str, Any]
    shown_parameters: dict[str, Any]
    job_variables: dict[str, Any]
    configuration: BatchJobConfiguration
    key: str
    """Of the bundle."""


def pinned(configuration: BatchJobConfiguration) -> dict[str, Any]:
    """What the caller's own surroundings decide, for a worker that has others. It may block."""
    site = configuration.profiled_site
    own = {} if site is None else {**site.user_variables(), "site": site.name}
    surroundings: dict[str, Any] = {}
    if configuration.login == LOCAL:
        surroundings["called_from"] = str(Path.cwd())
    elif configuration.template is not None:  # a path of this machine says nothing elsewhere
        surroundings["template"] = load_template(configuration.template, "")[1] + "\n"
    return (
        own
        | load_settings().job_variables()
        | surroundings
        | {"python": configuration.interpreter, "shared_dir": str(configuration.shared)}
    )


def shown(flow: Flow[..., Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters as the dashboard shows them; the real ones travel in the bundle."""
    texts = {}
    for name, value in flow.serialize_parameters(parameters).items():
        size = len(json.dumps(value, default=str))
        kind = type(parameters[name]).__name__
        texts[name] = value if size <= _SHOWN_PARAMETER_BYTES else f"<{kind}, {size} bytes>"
    return texts


def one_line(text: str) -> str:
    """A flow run may have any name; a comment is one line."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
