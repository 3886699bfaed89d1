"""What a published profile lets jobs execute is accepted by the user once, like a host key."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_bridge.errors import SiteError
from hpc_bridge.files import write_private
from hpc_bridge.machine_files import locked
from hpc_bridge.settings import on_compute_node, user_file
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site

_FORMAT = 1


def executed_text(profile: SiteProfile) -> str:
    """What the profile adds to what is executed, and the addresses that are sent credentials.

    In one form only; empty when it adds nothing.

    A character that a terminal would not show is written as its escape, in a line marked ``!``
    rather than ``|``, so that different profiles never have the same text.
    """
    environment = profile.environment
    commands = sorted(profile.scheduler.commands.items())
    values: dict[str, str | tuple[str, ...] | None] = {
        **{f"scheduler.commands.{name}": words for name, words in commands},
        "environment.modules": environment.modules,
        "environment.prologue": environment.prologue,
        "environment.python": environment.python,
        "environment.template": environment.template,
        "containers.runtime": profile.containers.runtime,
        "network.api_url": profile.network.api_url,
    }
    login = profile.login
    if login.transport != "local":  # else it leads nowhere
        values |= {
            f"login.{name}": getattr(login, name) for name in ("transport", "master", "host")
        }
    return "".join(f"{line}\n" for name, value in values.items() for line in _lines(name, value))


def accepted_text(site: str, server: str) -> str | None:
    """What was last accepted of the site; None when nothing was. Raises SiteError."""
    kept = _kept().get(server, {}).get(site)
    return None if kept is None else str(kept["text"])


def is_accepted(site: str, server: str, text: str) -> bool:
    """Whether the user has accepted just this. Raises SiteError when that cannot be read."""
    kept = _kept().get(server, {}).get(site)
    return not text or (kept is not None and kept["sha256"] == _digest(text))


def accept(site: str, server: str, text: str) -> None:
    """Keep that the user has accepted the text. Raises SiteError when it cannot be kept."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"sha256": _digest(text), "accepted": now, "text": text}
    path = acceptance_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):  # another site may be accepted now
            kept = _kept()
            kept.setdefault(server, {})[site] = entry
            content = json.dumps({"format": _FORMAT, "servers": kept}, indent=2) + "\n"
            write_private(path, content.encode())
    except OSError as error:
        raise SiteError(f"{path} cannot be written: {error.strerror}") from None


def change(site: str, server: str, text: str) -> str:
    """What there is to accept: the difference to what was accepted, else the whole text."""
    before = accepted_text(site, server)
    if before is None:
        return text
    return "".join(
        line if line.endswith("\n") else f"{line}\n"
        for line in difflib.unified_diff(
            before.splitlines(keepends=True), text.splitlines(keepends=True), "accepted", "now"
        )
    )


def check_accepted(site: Site) -> None:
    """Raise SiteError when a published site's executed text is not what was accepted.

    ``site.source`` is the server's address.
    """
    text = executed_text(site.profile)
    if is_accepted(site.name, site.source, text) or (
        # Which is where the server may be known by another address than when it was accepted.
        on_compute_node() and any(is_accepted(site.name, server, text) for server in _kept())
    ):
        return
    first = accepted_text(site.name, site.source) is None
    happened = "would have your jobs execute this" if first else "has changed what jobs execute"
    raise SiteError(
        f"site {site.name!r}, published on {site.source}, {happened}:\n\n"
        f"{change(site.name, site.source, text)}\n"
        f"Read it, then run: hpc-bridge site accept {site.name}"
    )


def acceptance_file() -> Path:
    """Where it is kept what the user has accepted."""
    return user_file().parent / "accepted-sites.json"


def _lines(name: str, value: str | tuple[str, ...] | None) -> Iterator[str]:
    if not value:
        return
    yield f"{name}:" if name.isprintable() else f"{json.dumps(name)}:"
    # Words of a command and modules have a line each; so has each line of a text.
    for line in value.split("\n") if isinstance(value, str) else value:
        shown = line.replace("\t", " ")
        yield f"  | {line}" if shown.isprintable() else f"  ! {json.dumps(line)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _kept() -> dict[str, dict[str, dict[str, Any]]]:
    path = acceptance_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise SiteError(f"{path} was written by a newer hpc-bridge; upgrade this one")
        servers: dict[str, dict[str, dict[str, Any]]] = content["servers"]
        for sites in servers.values():
            for entry in sites.values():
                _ = entry["sha256"], entry["text"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SiteError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SiteError):
            raise
        raise SiteError(
            f"{path} is damaged; remove it, and accept your sites again with"
            " 'hpc-bridge site accept'"
        ) from None
    return servers
