"""Which profile a name stands for: files first, then the server, then the packaged ones."""

from __future__ import annotations

import difflib
import json
import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from hpc_bridge.errors import SiteError
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.acceptance import check_accepted
from hpc_bridge.sites.files import load_site, load_user_part, only_site, place_of, places
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.template_check import template_file
from hpc_bridge.sites.words import in_their_words, scheduler_in

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

logger = logging.getLogger(__name__)


async def resolve_site(name: str | None, client: PrefectClient | None) -> Site | None:
    """The site of that name; for None the setting's, else the only one, else None.

    A setting that names no profile is only the first part of a pool's name, as without profiles.
    Raises SiteError for a name that is not known, a profile that is broken or not trusted, and one
    from the server that the user has not accepted.
    """
    if name is not None:
        return await _named(name, client)
    if (chosen := load_settings().site) is not None:
        return await _named(chosen, client, missing_ok=True)
    only = only_site()
    return None if only is None else load_site(only)


def local_site(name: str | None) -> Site | None:
    """As ``resolve_site``, of what is in files."""
    if name is not None:
        return load_site(name)
    chosen = load_settings().site
    if chosen is not None:
        return load_site(chosen) if place_of(chosen) is not None else None
    only = only_site()
    return None if only is None else load_site(only)


async def published_site(name: str, client: PrefectClient) -> Site | None:
    """The site as it is published, whether the user has accepted it or not; None if it is not.

    Raises SiteError.
    """
    from hpc_bridge.sites.published import read_published

    profile = await read_published(client, name)
    if profile is None:
        return None
    source = str(client.api_url).rstrip("/")
    if (file := template_file(profile)) is not None:  # who could change what it holds?
        raise SiteError(
            f"site {name!r}, published on {source}, has a job script template that is no text but"
            f" the path {file}; whoever owns it has to publish it with 'hpc-bridge site publish'"
        )
    text = as_yaml(profile.model_dump_json(exclude_defaults=True))
    return Site(profile, load_user_part(profile), source, text)


@lru_cache(maxsize=8)
def as_yaml(profile: str) -> str:
    """A profile in JSON as YAML; kept, because that is slow and asked for with every run."""
    from hpc_bridge.sites.yaml_text import dump

    content = json.loads(profile)
    return dump(in_their_words(content, scheduler_in(content)))


async def _named(
    name: str, client: PrefectClient | None, *, missing_ok: bool = False
) -> Site | None:
    place = place_of(name)
    if place is not None and place.kind != "packaged":
        return load_site(name)
    if client is not None and (published := await published_site(name, client)) is not None:
        check_accepted(published)
        return published
    if place is None and missing_ok:
        _warn_of_misspelling(name)
        return None
    try:
        return load_site(name)
    except SiteError as error:
        if client is None or place is not None:
            raise
        from hpc_bridge.sites.published import published_names

        there = ", ".join(await published_names(client)) or "none"
        server = str(client.api_url).rstrip("/")
        raise SiteError(f"{error}\nnor is one published on {server} (there: {there})") from None


@lru_cache(maxsize=8)
def _warn_of_misspelling(name: str) -> None:
    """A mistyped HPC_BRIDGE_SITE would silently do without limits and defaults."""
    known = [known for known, place in places().items() if place.kind != "packaged"]
    if known:
        near = difflib.get_close_matches(name, known, n=1) or known
        logger.warning(
            "No profile is used: there is none of site %r, which HPC_BRIDGE_SITE or the user file"
            " names; did you mean %s?",
            name,
            " or ".join(map(repr, near)),
        )
