"""What drafts of a profile have in common, whatever the scheduler."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_bridge.jobs.units import format_memory
from hpc_bridge.sites.facts import Facts
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.surroundings import Surroundings

ON_COMMANDS = "The paths of commands are there since only login shells find them on PATH."


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


@dataclass(frozen=True, slots=True)
class Said:
    """What a person and the way to the login node add to the scheduler's answers."""

    name: str
    description: str = ""
    contact: str = ""
    shared_dir: str | None = None
    login: Mapping[str, Any] = field(default_factory=dict)
    """The profile's part, where the login node was reached over SSH."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Paths of those of the scheduler's commands that are only found with them."""


def common_content(said: Said, around: Surroundings, facts: Facts) -> dict[str, Any]:
    """The parts of a profile about which the scheduler says nothing."""
    return {
        "name": said.name,
        "description": said.description or f"{facts.scheduler} cluster {facts.cluster}",
        "contact": said.contact,
        "login": dict(said.login),
        "paths": {"shared_dir": said.shared_dir or around.shared_dir},
        "containers": {"runtime": around.container_runtime},
    }


def common_remarks(
    said: Said, around: Surroundings, facts: Facts, version: str | None
) -> dict[str, list[str]]:
    """Those on the whole, and on the parts about which the scheduler says nothing."""
    return {
        "": [
            f"Drafted by 'hpc-bridge site init' on {around.host} from the answers of"
            f" {facts.scheduler} {version or '(version not known)'}.",
            "Read it through, complete what is missing, then check it with 'hpc-bridge site"
            " validate' and 'hpc-bridge doctor'.",
        ],
        "login": _on_login(around, is_remote=bool(said.login)),
        "paths": _on_paths(around, said.shared_dir),
        "environment": _on_environment(around),
        "containers": _on_containers(around),
        "network": [
            "Whether nodes reach the Prefect server is not known: 'hpc-bridge doctor' finds out."
        ],
    }


def common_examples(around: Surroundings) -> dict[str, Any]:
    """What the same parts could hold."""
    environment = {"modules": ["python/3.12"]} if around.has_modules else {}
    return {
        "contact": "hpc-support@example.org",
        "login": {"transport": "openssh", "host": around.host, "machines": ["login*.example.org"]},
        "environment": {**environment, "python": "~/venvs/flows"},
        "containers": {"runtime": "apptainer"},
        "network": {"nodes_reach_server": True},
    }


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


def most(values: Iterable[int]) -> int | None:
    """The largest; None for nothing."""
    return max(values, default=0) or None


def smaller(value: int | None, limit: int | None) -> int | None:
    """The smaller of what is known."""
    return min(value, limit) if value and limit else value or limit


def below(value: int | None, limit: int) -> int | None:
    """None for what is no limit."""
    return value if value is not None and value < limit else None


def memory_words(mebibytes: int | None) -> str | None:
    """As people write it; None for nothing."""
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
