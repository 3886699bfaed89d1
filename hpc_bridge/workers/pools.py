"""Work pools: made or completed on first use, with storage on the shared directory.

A pool of a site follows the site's own pool, which ``hpc-bridge site publish`` makes, else the
profile that is known here. Concurrency limits, queues and pauses are nobody's but the owner's.
"""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    BlockDocumentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import WorkPool, WorkPoolStorageConfiguration
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_logger
from prefect.utilities.slugify import slugify

from hpc_bridge.errors import WorkPoolError
from hpc_bridge.settings import PoolType, Settings
from hpc_bridge.sites.deriving import (
    RECORD,
    Derived,
    Renewed,
    allowed,
    personal,
    record_of,
    renewed,
    with_record,
    without_record,
)
from hpc_bridge.sites.template import site_template
from hpc_bridge.storage.blocks import ClusterStorage
from hpc_bridge.storage.bundle import DEFAULT_LAUNCHER
from hpc_bridge.storage.reach import files_at
from hpc_bridge.transports.login import LOCAL

if TYPE_CHECKING:
    from hpc_bridge.sites.site import Site

logger = get_logger("hpc_bridge")

EXECUTION_STEP = {"hpc_bridge.node.execute": {"launcher": DEFAULT_LAUNCHER}}
UPLOAD_STEP = {"hpc_bridge.storage.upload": {"launcher": DEFAULT_LAUNCHER}}


async def ensure_work_pool(
    client: PrefectClient,
    name: str,
    *,
    worker_type: str,
    base_job_template: Callable[[], dict[str, Any]],
    settings: Settings,
    site: Site | None = None,
) -> WorkPool:
    """The pool, made when it does not exist and given storage when it has none.

    A new pool takes the settings of the account that makes it as its defaults. A pool of a site is
    brought up to date; where the server does not let this account do that, it stays as it is.
    Raises WorkPoolError for a pool of another type.
    """
    pool = await find_pool(client, name)
    if pool is not None:
        check_type(pool, worker_type)
    source = await _source(client, name, worker_type, base_job_template, settings, site)
    if pool is None:
        if site is not None and site.login != LOCAL:  # a pool of nobody's would stay there
            await asyncio.to_thread(files_at(site.login).account)
        if source is None:
            template, description = base_job_template(), None
        else:
            template, description = with_record(source), source.description
        pool = await _create(client, name, worker_type, template, description, settings)
        check_type(pool, worker_type)
        logger.info("Made work pool %r, which did not exist", name)
    elif source is not None and _follows(pool, source):
        pool = await _refreshed(client, pool, source, base_job_template())
    if has_storage(pool):
        return pool
    return await _complete(client, pool, settings)


async def find_pool(client: PrefectClient, name: str) -> WorkPool | None:
    """The pool of that name, if there is one."""
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        return None


def check_type(pool: WorkPool, worker_type: str) -> None:
    """Raise WorkPoolError for a pool of another type."""
    if pool.type != worker_type:
        raise WorkPoolError(
            f"work pool {pool.name!r} is of type {pool.type!r}, not {worker_type!r}; name another"
            " with work_pool= or HPC_BRIDGE_WORK_POOL"
        )


def has_storage(pool: WorkPool) -> bool:
    """Whether flows that are called directly can travel through the pool."""
    storage = pool.storage_configuration
    return bool(storage.bundle_execution_step and storage.default_result_storage_block_id)


def site_pool_of(pool: WorkPool) -> Derived | None:
    """What a site's own pool hands on; None for any other pool."""
    record = record_of(pool.base_job_template)
    if record is None or record.get("user") is not None or record["site"] != pool.name:
        return None
    template = without_record(pool.base_job_template)
    return Derived(record["site"], template, pool.description or "")


async def _source(
    client: PrefectClient,
    name: str,
    worker_type: str,
    base_job_template: Callable[[], dict[str, Any]],
    settings: Settings,
    site: Site | None,
) -> Derived | None:
    """What the account's pool is made from; None for a pool that no site stands behind."""
    of_site = settings.site if site is None else site.name
    if of_site is None or name == of_site:
        return None
    login = await asyncio.to_thread(getpass.getuser if site is None else lambda: site.login_name)
    site_pool = await find_pool(client, of_site)
    if site_pool is not None and site_pool.type == worker_type:
        published = site_pool_of(site_pool)
        if published is not None:
            return personal(published, login, name)
    if site is None:
        return None
    template = site_template(site.profile, base_job_template())
    return personal(Derived(site.name, template, ""), login, name)


def _follows(pool: WorkPool, source: Derived) -> bool:
    """Whether the pool is the site's business: made from it, or the personal one by its name."""
    record = record_of(pool.base_job_template)
    if record is None:
        return pool.name == f"{source.site}-{source.user}"
    return record["site"] == source.site and record.get("user") == source.user


async def _create(
    client: PrefectClient,
    name: str,
    worker_type: str,
    template: dict[str, Any],
    description: str | None,
    settings: Settings,
) -> WorkPool:
    properties = template["variables"]["properties"]
    own = settings.job_variables()
    if record_of(template) is None:
        own |= {
            "scheduler": settings.scheduler_of(cast(PoolType, worker_type)),
            "shared_dir": str(settings.shared),
        }
    for variable, value in own.items():
        if variable in properties and allowed(variable, properties[variable], value):
            properties[variable]["default"] = value
    new = WorkPoolCreate(
        name=name,
        type=worker_type,
        description=description or f"Batch jobs of {name}, made by hpc-bridge on first use.",
        base_job_template=template,
    )
    try:
        return await client.create_work_pool(new)
    except ObjectAlreadyExists:
        return await client.read_work_pool(name)


async def _complete(client: PrefectClient, pool: WorkPool, settings: Settings) -> WorkPool:
    """Give a pool the storage that it lacks; what somebody has configured stays."""
    record = record_of(pool.base_job_template)
    named = settings.site or settings.scheduler_of(cast(PoolType, pool.type))
    return await give_storage(
        client,
        pool,
        site=record["site"] if record else named,
        shared=shared_dir_of(pool.base_job_template) or str(settings.shared),
    )


def shared_dir_of(template: Mapping[str, Any]) -> str | None:
    """The pool's own, as it is written there."""
    properties = (template.get("variables") or {}).get("properties") or {}
    value = properties.get("shared_dir", {}).get("default")
    return value if isinstance(value, str) else None


async def give_storage(
    client: PrefectClient, pool: WorkPool, *, site: str, shared: str
) -> WorkPool:
    """Steps and result storage, as far as the pool has none."""
    stored = pool.storage_configuration
    block_id = stored.default_result_storage_block_id
    if block_id is None:
        block = ClusterStorage(site=site, basepath=f"{shared}/results")
        block_id = await block.save(_results_block(pool.name), overwrite=True, client=client)
    configuration = WorkPoolStorageConfiguration(
        bundle_upload_step=stored.bundle_upload_step or UPLOAD_STEP,
        bundle_execution_step=stored.bundle_execution_step or EXECUTION_STEP,
        default_result_storage_block_id=block_id,
    )
    await client.update_work_pool(pool.name, WorkPoolUpdate(storage_configuration=configuration))
    return await client.read_work_pool(pool.name)


def _results_block(pool: str) -> str:
    return slugify(f"{pool}-results")


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What is to become of a pool of a site; ``pool`` is None for one that is to be made."""

    name: str
    pool: WorkPool | None
    renewed: Renewed
    lacks_storage: bool

    @property
    def is_empty(self) -> bool:
        """Whether all is as it should be."""
        return self.pool is not None and not self.renewed.changes and not self.lacks_storage


def pool_change(
    name: str, pool: WorkPool | None, derived: Derived, packaged: Mapping[str, Any]
) -> PoolChange:
    """What would bring the pool up to date; nothing is sent."""
    if pool is None:
        fresh = Renewed(with_record(derived), derived.description, ("is made",))
        return PoolChange(name, None, fresh, lacks_storage=True)
    update = renewed(pool.base_job_template, pool.description, derived, packaged)
    return PoolChange(name, pool, update, lacks_storage=not has_storage(pool))


async def apply_change(client: PrefectClient, change: PoolChange, worker_type: str) -> WorkPool:
    """Carry out the change. What fails half way is completed by doing it again."""
    template = change.renewed.template
    site = template["variables"][RECORD]["site"]
    pool = change.pool
    if pool is None:
        new = WorkPoolCreate(
            name=change.name,
            type=worker_type,
            description=change.renewed.description,
            base_job_template=template,
        )
        pool = await client.create_work_pool(new)
    elif change.renewed.changes:
        await _move_results(client, pool, template)
        update = WorkPoolUpdate(base_job_template=template, description=change.renewed.description)
        await client.update_work_pool(pool.name, update)
        pool = await client.read_work_pool(pool.name)
    if change.lacks_storage:
        shared = shared_dir_of(template) or "~/.hpc-bridge"
        pool = await give_storage(client, pool, site=site, shared=shared)
    return pool


async def _move_results(client: PrefectClient, pool: WorkPool, template: dict[str, Any]) -> None:
    """The pool's own result storage goes where its shared directory goes."""
    before, now = shared_dir_of(pool.base_job_template), shared_dir_of(template)
    block_id = pool.storage_configuration.default_result_storage_block_id
    if before == now or now is None or block_id is None:
        return
    document = await client.read_block_document(block_id)
    if (
        document.name == _results_block(pool.name)
        and document.data.get("basepath") == f"{before}/results"
    ):
        data = {**document.data, "basepath": f"{now}/results"}
        update = BlockDocumentUpdate(block_schema_id=document.block_schema_id, data=data)
        await client.update_block_document(document.id, update)


async def _refreshed(
    client: PrefectClient, pool: WorkPool, source: Derived, packaged: Mapping[str, Any]
) -> WorkPool:
    change = pool_change(pool.name, pool, source, packaged)
    if not change.renewed.changes:
        return pool
    for warning in change.renewed.warnings:
        logger.warning("Work pool %s: %s", pool.name, warning)
    try:
        return await apply_change(client, change, pool.type)
    except PrefectHTTPStatusError as error:
        logger.warning(
            "Work pool %s is behind site %s and could not be renewed: %s",
            pool.name,
            source.site,
            error,
        )
        return pool
