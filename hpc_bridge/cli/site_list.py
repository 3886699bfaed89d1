"""``hpc-bridge site list``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hpc_bridge.cli.server_access import ask
from hpc_bridge.errors import ServerUnreachable, SiteError
from hpc_bridge.sites.files import Found, known_sites, search_path
from hpc_bridge.sites.profile import SiteProfile

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

_PATIENCE_SECONDS = 5.0
_COLUMNS = ("name", "scheduler", "from", "description")


def list_sites(*, as_json: bool) -> None:
    """Print every site, and what is wrong with a broken one; that it is broken is no error."""
    found = known_sites()
    lines = {name: _of_file(one) for name, one in found.items()}
    published, problems = _published()
    for name, line in published.items():
        if name not in found or found[name].place.kind == "packaged":
            lines[name] = line
    ordered = sorted(lines.values(), key=lambda line: (line["example"], line["name"]))
    sys.stdout.write(json.dumps(ordered) + "\n" if as_json else _text(ordered))
    for problem in [*(place.problem for place in search_path() if place.problem), *problems]:
        sys.stderr.write(f"hpc-bridge: {problem}\n")


def _of_file(found: Found) -> dict[str, Any]:
    where = "the package" if found.place.kind == "packaged" else str(found.path)
    if found.site is None:
        return _line(found.name, where, path=str(found.path), error=found.error)
    return _of_profile(found.site.profile, where) | {"path": str(found.path)}


def _of_profile(profile: SiteProfile, where: str) -> dict[str, Any]:
    return _line(profile.name, where) | {
        "scheduler": profile.scheduler.type,
        "description": profile.description,
        "example": profile.example,
    }


def _line(
    name: str, where: str, *, path: str | None = None, error: str | None = None
) -> dict[str, Any]:
    about = {"name": name, "scheduler": None, "from": where, "description": "", "example": False}
    return {**about, "path": path, "error": error}


def _published() -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Lines of what a server has, if one is configured, and what went wrong."""
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        return {}, []
    try:
        return ask(_lines_of_server, timeout=_PATIENCE_SECONDS), []
    except (ServerUnreachable, SiteError) as error:
        return {}, [f"published sites are not known: {error}"]


async def _lines_of_server(client: PrefectClient) -> dict[str, dict[str, Any]]:
    from hpc_bridge.sites.published import published_names, read_published

    where = str(client.api_url).rstrip("/")
    lines = {}
    for name in await published_names(client):
        try:
            profile = await read_published(client, name)
        except SiteError as error:
            lines[name] = _line(name, where, error=str(error))
        else:
            if profile is not None:  # not removed in between
                lines[profile.name] = _of_profile(profile, where)
    return lines


def _text(lines: Iterable[dict[str, Any]]) -> str:
    """Columns, then the whole story of each broken profile."""
    lines = list(lines)
    rows = [_COLUMNS, *(_cells(line) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )
    return text + "".join(f"\n{line['error']}\n" for line in lines if line["error"])


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    if line["error"]:
        return line["name"], "-", line["from"], "BROKEN, see below"
    about = f"Example: {line['description']}" if line["example"] else line["description"]
    return line["name"], line["scheduler"], line["from"], about or "-"
