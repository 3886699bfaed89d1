"""Which site is meant when none is named, and what its profile says as early as possible."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from hpc_bridge.errors import InvalidJobSpec, SiteError
from hpc_bridge.settings import (
    SERVED_BY,
    PoolType,
    SchedulerName,
    load_settings,
    on_compute_node,
    personal_pool,
)
from hpc_bridge.settings import pool_type as pool_type_of
from hpc_bridge.sites.files import (
    load_site,
    only_site,
    place_of,
    places,
    user_part_file,
)
from hpc_bridge.sites.limits import check_request, own_groups
from hpc_bridge.sites.login import is_this_machine, name_on_cluster
from hpc_bridge.sites.reading import read_document
from hpc_bridge.sites.resolve import resolve_site
from hpc_bridge.transports.login import LOCAL, Login, transport_to

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from hpc_bridge.sites.site import Site

_COMMAND_SECONDS = 60.0


def wanted_schedulers(asked: str | None, pool_type: PoolType | None) -> Sequence[SchedulerName]:
    """Those that a flow may go to: as asked for or set, else all of its type of pool; () is any."""
    named = asked or load_settings().scheduler
    if named is not None:
        return (cast(SchedulerName, named),)
    return SERVED_BY[pool_type] if pool_type is not None else ()


def only_site_with(schedulers: Sequence[SchedulerName]) -> str | None:
    """The one site that is known here; None when its scheduler is none of ``schedulers``."""
    name = only_site()
    if name is None or not schedulers:
        return name
    try:
        return name if load_site(name).profile.scheduler.type in schedulers else None
    except SiteError:
        return None if tuple(schedulers) == ("local",) else name


async def default_site(
    schedulers: Sequence[SchedulerName], client: PrefectClient | None
) -> Site | None:
    """As ``resolve_site`` for no name; None too for a site with none of ``schedulers``, if any.

    Raises SiteError.
    """
    try:
        site = await resolve_site(None, client)
    except SiteError:
        if tuple(schedulers) == ("local",) and load_settings().site is None:
            return None
        raise
    if site is None or not schedulers or site.profile.scheduler.type in schedulers:
        return site
    return None


def site_of_pool(pool: str) -> str | None:
    """The site, of those known here, whose personal pool has that name.

    Not a packaged one: without a profile of one's own, pools are named after the scheduler.
    """
    names = [name for name, place in places().items() if place.kind != "packaged"]
    return next((name for name in names if _is_personal(pool, name)), None)


def _is_personal(pool: str, site: str) -> bool:
    """Whose name it is there is only asked for if need be."""
    return pool.startswith(f"{site}-") and pool == personal_pool(site)


def login_name(site: str) -> str:
    """The user's on that cluster, as ``Site.login_name``, without a server or a connection.

    Of a site that is not in files only the user's own part is known.
    """
    try:
        return load_site(site).login_name
    except SiteError:
        pass
    try:
        own = read_document(user_part_file(site), empty={}).content
    except SiteError:
        own = {}
    user, host = (own.get(field) or None for field in ("user", "host"))
    if isinstance(user, str):
        return user
    if not isinstance(host, str) or own.get("transport") == "local" or is_this_machine([host]):
        return getpass.getuser()
    return name_on_cluster(Login("openssh", host))


def check_early(variables: Mapping[str, Any], pool_type: PoolType, *, asks_a_server: bool) -> None:
    """Judge a decorator's job variables by a profile that lies here; never on a compute node.

    Raises InvalidJobSpec for what the site would not take, and SiteError for ``site`` when there is
    no such profile and no server could know it. What a default site lacks is told by the call, and
    so is all of a site that the server may have, whose profile goes before a packaged one.
    """
    if on_compute_node():
        return
    named = variables.get("site")
    meant = named or load_settings().site
    if meant is not None and asks_a_server:
        place = place_of(meant)
        if place is None or place.kind == "packaged":
            return
    if named is not None:
        site: Site | None = (found := load_site(named))
        check_serves(found, pool_type)
    else:
        site = default_site_in_files(wanted_schedulers(variables.get("scheduler"), pool_type))
    if site is not None:
        asked = {**site.user_variables(), **variables}
        check_request(site, asked, whole=False, groups=groups_at(site))


def check_serves(site: Site, pool_type: PoolType) -> None:
    """Raise InvalidJobSpec for a site whose jobs go through pools of the other type."""
    kind = site.profile.scheduler.type
    if kind not in SERVED_BY[pool_type]:
        own = pool_type_of(kind)
        raise InvalidJobSpec(
            f"site {site.name!r} has {kind}, to which no job of @{pool_type} and of a pool of type"
            f" {pool_type!r} goes; decorate the flow with @{own}, or name another site"
        )


def default_site_in_files(schedulers: Sequence[SchedulerName]) -> Site | None:
    """What ``default_site`` finds without a server; None for a broken profile too."""
    name = load_settings().site or only_site_with(schedulers)
    if name is None or place_of(name) is None:
        return None
    try:
        site = load_site(name)
    except SiteError:
        return None
    return site if not schedulers or site.profile.scheduler.type in schedulers else None


def check_pool_is_of_site(pool: str, site: str) -> None:
    """Raise InvalidJobSpec for a pool whose name is that of another site's pool."""
    if on_compute_node():
        return
    for other in places():
        if other != site and (pool == other or _is_personal(pool, other)):
            raise disagreement(pool, other, site)


def disagreement(pool: str, of_pool: str, site: str) -> InvalidJobSpec:
    """That a pool and a site exclude each other."""
    return InvalidJobSpec(
        f"work pool {pool!r} is of site {of_pool!r}, but site is {site!r}; give one of them, or"
        f" the pool {personal_pool(site)!r}"
    )


def groups_at(site: Site) -> set[str] | None:
    """This account's Unix groups on the cluster; None where that would have to be asked."""
    return own_groups() if site.login == LOCAL else None


def groups_asked(site: Site) -> set[str] | None:
    """As ``groups_at``, but a cluster elsewhere is asked, once, if its profile names any.

    Raises CommandError when it cannot be reached.
    """
    if site.login == LOCAL or not any(one.groups for one in site.profile.partitions):
        return groups_at(site)
    return _groups_on(site.login)


@lru_cache(maxsize=8)
def _groups_on(login: Login) -> set[str] | None:
    # Names of groups from a directory service may hold blanks.
    done = transport_to(login).run(["id", "-Gnz"], timeout=_COMMAND_SECONDS)
    return set(done.stdout.split("\0")) - {""} if done.exit_code == 0 else None


def of_profile(site: Site) -> dict[str, Any]:
    """The admin's job variables, with the site's own name."""
    return site.admin_variables() | {"site": site.name}
