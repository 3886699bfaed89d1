"""``hpc-bridge site show`` and ``accept``, which look at one site without using it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from hpc_bridge.cli.confirming import confirmed
from hpc_bridge.cli.server_access import ask
from hpc_bridge.errors import ServerUnreachable, SiteError
from hpc_bridge.sites.acceptance import accept, change, executed_text, is_accepted
from hpc_bridge.sites.files import load_site, place_of, user_part_file
from hpc_bridge.sites.login import reached
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.words import in_their_words, in_word

_PATIENCE_SECONDS = 5.0
_OF_THE_FILE = ("format", "example")
"""They say nothing about the cluster."""


def show_site(name: str, *, as_json: bool) -> None:
    """Print the profile and the user's part. Raises SiteError."""
    site, published = _site(name)
    kind = site.profile.scheduler.type
    profile = in_their_words(_said(site.profile.model_dump(mode="json")), kind)
    own = in_their_words(site.user.model_dump(mode="json", exclude_none=True), kind)
    part = str(user_part_file(site.name))
    if as_json:
        about = {
            "source": site.source,
            "published": published,
            "user_file": part if own else None,
            "reached": reached(site.profile, site.user),
        }
        sys.stdout.write(json.dumps({**about, "profile": profile, "user_part": own}) + "\n")
        return
    sys.stdout.write("".join(_shown(site, profile)))
    sys.stdout.write("".join(_own_part(own, part, kind)))
    sys.stdout.write(f"# from here: {reached(site.profile, site.user)}\n")
    text = executed_text(site.profile)
    if published and not is_accepted(site.name, site.source, text):
        sys.stderr.write(
            "hpc-bridge: you have not accepted what this site would have your jobs execute; see"
            f" 'hpc-bridge site accept {site.name}'\n"
        )


def accept_site(name: str, *, yes: bool) -> int:
    """Show what is new of what will be executed, and ask; the exit code. Raises SiteError."""
    site, published = _site(name)
    if not published:
        sys.stdout.write(f"{site.name} comes from {site.source}; there is nothing to accept\n")
        return 0
    text = executed_text(site.profile)
    if is_accepted(site.name, site.source, text):
        what = "is accepted already" if text else "has your jobs execute nothing of its own"
        sys.stdout.write(f"{site.name}, published on {site.source}, {what}\n")
        return 0
    sys.stdout.write(
        f"Jobs for {site.name}, published on {site.source}, would execute this as you:\n\n"
        f"{change(site.name, site.source, text)}\n"
    )
    if not yes and not confirmed("Accept?"):
        sys.stdout.write("not accepted\n")
        return 1
    accept(site.name, site.source, text)
    sys.stdout.write(f"{site.name} is accepted\n")
    return 0


def _site(name: str) -> tuple[Site, bool]:
    """The site as a job would get it, but accepted or not, and whether it is a published one."""
    from prefect.settings import get_current_settings

    from hpc_bridge.sites.resolve import published_site

    place = place_of(name)
    url = get_current_settings().api.url
    if not url or (place is not None and place.kind != "packaged"):
        return load_site(name), False
    try:
        found = ask(lambda client: published_site(name, client), timeout=_PATIENCE_SECONDS)
    except ServerUnreachable as error:
        if place is None:
            raise SiteError(f"no file has a site profile {name!r}, and {error}") from None
        sys.stderr.write(f"hpc-bridge: {error}\n")
        found = None
    if found is not None:
        return found, True
    try:
        return load_site(name), False
    except SiteError as error:
        if place is not None:
            raise
        raise SiteError(f"{error}\nnor is one published on {url}") from None


def _shown(site: Site, profile: dict[str, Any]) -> Iterator[str]:
    """What its file says, then what follows from saying nothing."""
    from hpc_bridge.sites.yaml_text import dump, load

    content = load(site.text).content
    given = {name: value for name, value in profile.items() if name in content}
    rest = {name: value for name, value in profile.items() if name not in given}
    yield f"# from {site.source}\n{dump(given)}"
    if rest := {name: value for name, value in rest.items() if name not in _OF_THE_FILE}:
        yield f"# from hpc-bridge's defaults\n{dump(rest)}"


def _said(content: Any) -> Any:
    """Without what says nothing: what is not known, and lists and texts that are empty."""
    if isinstance(content, dict):
        said = {name: _said(value) for name, value in content.items()}
        return {name: value for name, value in said.items() if value not in (None, "", [], {})}
    return [_said(value) for value in content] if isinstance(content, list) else content


def _own_part(own: dict[str, Any], path: str, scheduler: str) -> Iterator[str]:
    from hpc_bridge.sites.user_part import UserPart
    from hpc_bridge.sites.yaml_text import dump

    yield f"---\n# your own part, from {path}\n"
    fields = [in_word(name, scheduler) for name in UserPart.model_fields]
    yield dump(own) if own else f"# empty; it may give {', '.join(fields)}\n"
