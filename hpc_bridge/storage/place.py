"""Where the files of a storage block lie, seen from this process."""

from __future__ import annotations

import time
from typing import get_args

from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings
from prefect.utilities.asyncutils import run_coro_as_sync

from hpc_bridge.settings import SchedulerName
from hpc_bridge.sites.acceptance import check_accepted
from hpc_bridge.sites.files import load_site, place_of
from hpc_bridge.sites.resolve import published_site
from hpc_bridge.transports.login import LOCAL, Login

_BELIEVED_SECONDS = 60.0
"""Every result is read on its own, and every look for a cached one too."""
_published: dict[tuple[str, str | None], tuple[float, Login | None]] = {}


def login_of(name: str) -> Login:
    """How the cluster is reached whose site, or else whose scheduler, has that name.

    LOCAL when no profile says it. Raises SiteError for a profile that is broken or not trusted, and
    for one from the server that says to log in elsewhere and that the user has not accepted.
    """
    place = place_of(name)
    if place is not None and place.kind != "packaged":
        return load_site(name).login
    if name in get_args(SchedulerName):  # a pool that was made without any profile
        return LOCAL
    if (published := _published_login(name)) is not None:
        return published
    return LOCAL if place is None else load_site(name).login


def _published_login(name: str) -> Login | None:
    """As the server has it, or had a moment ago; None when it has no such site."""
    key = name, get_current_settings().api.url
    until, login = _published.get(key, (0.0, None))
    if time.monotonic() >= until:
        login = run_coro_as_sync(_ask(name))
        _published[key] = time.monotonic() + _BELIEVED_SECONDS, login
    return login


async def _ask(name: str) -> Login | None:
    async with get_client() as client:
        site = await published_site(name, client)
    if site is None:
        return None
    if (login := site.login) != LOCAL:
        check_accepted(site)
    return login
