"""Where the files of a storage block lie, seen from this process."""

from __future__ import annotations

from typing import get_args

from prefect.client.orchestration import get_client
from prefect.utilities.asyncutils import run_coro_as_sync

from hpc_bridge.settings import SchedulerName
from hpc_bridge.sites.acceptance import check_accepted
from hpc_bridge.sites.files import load_site, place_of
from hpc_bridge.sites.resolve import published_site
from hpc_bridge.sites.site import Site
from hpc_bridge.transports.login import LOCAL, Login


def login_of(name: str) -> Login:
    """How the cluster is reached whose site, or else whose scheduler, has that name.

    LOCAL when no profile says it. Raises SiteError for a profile that is broken or not trusted, and
    for one from the server that the user has not accepted.
    """
    place = place_of(name)
    if place is not None and place.kind != "packaged":
        return load_site(name).login
    if name in get_args(SchedulerName):  # a pool that was made without any profile
        return LOCAL
    published = run_coro_as_sync(_published(name))
    if published is not None:
        return published.login
    return LOCAL if place is None else load_site(name).login


async def _published(name: str) -> Site | None:
    async with get_client() as client:
        site = await published_site(name, client)
    if site is not None:
        check_accepted(site)
    return site
