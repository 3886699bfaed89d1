"""A profile goes to the Prefect server, and the pools of its site follow it.

What would change is found first and can be shown; then it is written in an order in which a failure
leaves what was there usable, and doing it again completes it: the profile, from which pools can be
made, then the site's own pool, then the personal ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
    WorkPoolFilterType,
)
from prefect.client.schemas.objects import StateType, WorkPool

from hpc_bridge.errors import SiteError
from hpc_bridge.settings import SERVED_BY, PoolType, pool_type
from hpc_bridge.sites.deriving import Derived, personal, record_of, without_record
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.published import (
    address,
    check_free,
    delete_published,
    is_published,
    published_names,
    read_published,
    write_published,
)
from hpc_bridge.sites.template import site_template
from hpc_bridge.sites.template_check import with_template_text
from hpc_bridge.sites.words import in_their_words
from hpc_bridge.sites.yaml_text import dump
from hpc_bridge.workers.pools import PoolChange, apply_change, find_pool, pool_change

_PAGE = 200
_ACTIVE = (
    *(StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING),
    *(StateType.PAUSED, StateType.CANCELLING),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What publishing a profile would do."""

    profile: SiteProfile
    difference: str
    """Unified diff of the profiles as YAML; empty when the published one is the same."""
    is_new: bool
    replaces_broken: bool
    worker_type: PoolType
    """Of its pools."""
    pools: tuple[PoolChange, ...]

    @property
    def is_empty(self) -> bool:
        """Whether all of it is on the server already."""
        return not (self.difference or self.replaces_broken or self.changed_pools)

    @property
    def changed_pools(self) -> list[PoolChange]:
        """Those that are not as they should be."""
        return [change for change in self.pools if not change.is_empty]


@dataclass(frozen=True, slots=True)
class Removal:
    """What unpublishing a site would do."""

    name: str
    profile: bool
    pool: WorkPool | None
    """The site's own pool, if it is one that publishing has made or taken over."""
    deployments: tuple[str, ...]
    active_runs: int
    personal_pools: tuple[str, ...]

    @property
    def adopted(self) -> bool:
        """Whether somebody had made the pool before the site was published."""
        record = record_of(self.pool.base_job_template) if self.pool else None
        return bool(record and record.get("adopted"))


def profile_text(profile: SiteProfile) -> str:
    """The profile as YAML, without what is as it is by default, and without comments."""
    content = profile.model_dump(mode="json", exclude_defaults=True)
    return dump({"format": profile.format, **in_their_words(content, profile.scheduler.type)})


async def plan_publishing(
    client: PrefectClient,
    profile: SiteProfile,
    base_job_template: Mapping[str, Any],
    name: str | None = None,
) -> Plan:
    """What publishing would change; nothing is written.

    ``name`` is the published site to compare with, the profile's own by default. Raises SiteError
    when it cannot be published here.
    """
    if name is not None and name != profile.name:
        before = await read_published(client, name)
        if before is None:
            raise SiteError(await not_published(client, name))
        return Plan(
            profile,
            _difference(before, with_template_text(profile)),
            is_new=False,
            replaces_broken=False,
            worker_type=pool_type(profile.scheduler.type),
            pools=(),
        )
    profile = with_template_text(profile)
    if profile.name.lower().startswith("prefect"):
        raise SiteError(f"Prefect keeps pools whose name begins like {profile.name!r} to itself")
    await check_free(client, profile.name)
    before = await read_published(client, profile.name, broken_ok=True)
    broken = before is None and await is_published(client, profile.name)
    worker_type = pool_type(profile.scheduler.type)
    own = await find_pool(client, profile.name)
    if own is not None:
        check_pool(own, worker_type, profile.name)
    derived = Derived(
        profile.name, site_template(profile, base_job_template), _description(profile)
    )
    change = pool_change(profile.name, own, derived, base_job_template)
    changes = [change]
    published = Derived(profile.name, change.renewed.template, change.renewed.description)
    for pool in await pools_of(client, profile.name):
        record = record_of(pool.base_job_template)
        user = record.get("user") if record else None
        if isinstance(user, str) and pool.type == worker_type:
            follower = personal(published, user, pool.name)
            changes.append(pool_change(pool.name, pool, follower, base_job_template))
    return Plan(
        profile,
        _difference(before, profile),
        before is None and not broken,
        broken,
        worker_type,
        tuple(changes),
    )


def check_pool(pool: WorkPool, worker_type: str, site: str) -> None:
    """Raise SiteError when the site's pool is of another type or another site's."""
    if pool.type != worker_type:
        raise SiteError(
            f"the server has a work pool {pool.name!r} of type {pool.type!r}; that of the site must"
            f" be of type {worker_type!r}: delete or rename that pool, or rename the site"
        )
    record = record_of(pool.base_job_template)
    if record is not None and (record["site"] != site or record.get("user") is not None):
        raise SiteError(
            f"work pool {pool.name!r} is a pool of {record.get('user')} at site {record['site']!r};"
            " rename the site"
        )


async def publish(client: PrefectClient, plan: Plan) -> None:
    """Write what the plan says. Raises the client's errors; what is left then: see the module.

    Raises SiteError, and writes nothing, when a pool is not as it was when the plan was made.
    """
    for change in plan.changed_pools:
        await _check_unchanged(client, change)
    if plan.difference or plan.replaces_broken:
        await write_published(client, plan.profile)
    for change in plan.changed_pools:
        await apply_change(client, change, plan.worker_type)


async def _check_unchanged(client: PrefectClient, change: PoolChange) -> None:
    """Somebody may have changed it on its page while the plan was read and agreed to."""
    before, now = change.pool, await find_pool(client, change.name)
    if (before and before.base_job_template) != (now and now.base_job_template):
        raise SiteError(
            f"work pool {change.name!r} was changed by somebody meanwhile; nothing was published,"
            " try again"
        )


async def plan_removal(client: PrefectClient, name: str) -> Removal:
    """What unpublishing would do; nothing is written. Raises SiteError for what is not there."""
    profile = await is_published(client, name)
    pool, personal_pools = None, []
    for one in await pools_of(client, name):
        record = record_of(one.base_job_template) or {}
        if record.get("user") is not None:
            personal_pools.append(one.name)
        elif one.name == name:
            pool = one
    if not profile and pool is None:
        raise SiteError(await not_published(client, name))
    deployments: list[str] = []
    active = 0
    if pool is not None:
        of_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[name]))
        found = await client.read_deployments(work_pool_filter=of_pool, limit=_PAGE)
        deployments = [deployment.name for deployment in found]
        live = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*_ACTIVE])))
        runs = await client.read_flow_runs(
            work_pool_filter=of_pool, flow_run_filter=live, limit=_PAGE
        )
        active = len(runs)
    return Removal(name, profile, pool, tuple(deployments), active, tuple(personal_pools))


async def unpublish(client: PrefectClient, removal: Removal) -> None:
    """Remove the profile and the site's own pool; what was somebody else's before is given back.

    The profile goes last: as long as it is there, doing it again completes it.
    """
    pool = removal.pool
    if pool is not None and removal.adopted:
        template = without_record(pool.base_job_template)
        await client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
    elif pool is not None:
        await client.delete_work_pool(pool.name)
    await delete_published(client, removal.name)


async def pools_of(client: PrefectClient, site: str) -> list[WorkPool]:
    """All pools that were made from the site, its own among them."""
    found: list[WorkPool] = []
    ours = WorkPoolFilter(type=WorkPoolFilterType(any_=list(SERVED_BY)))
    offset = 0
    while True:
        page = await client.read_work_pools(limit=_PAGE, offset=offset, work_pool_filter=ours)
        for pool in page:
            record = record_of(pool.base_job_template)
            if record is not None and record["site"] == site:
                found.append(pool)
        offset += len(page)
        if len(page) < _PAGE:
            return found


async def not_published(client: PrefectClient, name: str) -> str:
    """A sentence about a name that the server does not know."""
    names = await published_names(client)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"published are: {', '.join(names) or 'none'}"
    return f"no site {name!r} is published on {address(client)}; {hint}"


def _difference(before: SiteProfile | None, after: SiteProfile) -> str:
    old = "" if before is None else profile_text(before)
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        profile_text(after).splitlines(keepends=True),
        "/dev/null" if before is None else f"published {before.name}",
        after.name,
    )
    return "".join(lines)


def _description(profile: SiteProfile) -> str:
    """Of the site's own pool."""
    told = profile.description.strip().rstrip(".")
    parts = [
        f"{told}." if told else "",
        f"Contact: {profile.contact.strip().rstrip('.')}." if profile.contact.strip() else "",
        f"Made by 'hpc-bridge site publish'; pools of people at {profile.name} follow it.",
    ]
    return " ".join(part for part in parts if part)
