"""Work pools: made or completed on first use, with storage on the shared directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool, WorkPoolStorageConfiguration
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.slugify import slugify

from hpc_bridge.errors import WorkPoolError
from hpc_bridge.settings import Settings
from hpc_bridge.storage.blocks import ClusterStorage
from hpc_bridge.storage.bundle import DEFAULT_LAUNCHER

EXECUTION_STEP = {"hpc_bridge.node.execute": {"launcher": DEFAULT_LAUNCHER}}
UPLOAD_STEP = {"hpc_bridge.storage.upload": {"launcher": DEFAULT_LAUNCHER}}


async def ensure_work_pool(
    client: PrefectClient,
    name: str,
    *,
    worker_type: str,
    base_job_template: Callable[[], dict[str, Any]],
    settings: Settings,
) -> WorkPool:
    """The pool, made when it does not exist and given storage when it has none.

    A new pool takes the settings of the account that makes it as its defaults. Raises WorkPoolError
    for a pool of another type.
    """
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        pool = await _create(client, name, worker_type, base_job_template(), settings)
    if pool.type != worker_type:
        raise WorkPoolError(
            f"work pool {name!r} is of type {pool.type!r}, not {worker_type!r}; name another with"
            " work_pool= or HPC_BRIDGE_WORK_POOL"
        )
    storage = pool.storage_configuration
    if storage.bundle_execution_step and storage.default_result_storage_block_id:
        return pool
    return await _complete(client, pool, settings)


async def _create(
    client: PrefectClient,
    name: str,
    worker_type: str,
    base_job_template: dict[str, Any],
    settings: Settings,
) -> WorkPool:
    properties = base_job_template["variables"]["properties"]
    for variable, value in settings.job_variables().items():
        properties[variable]["default"] = value
    properties["scheduler"]["default"] = settings.effective_scheduler
    properties["shared_dir"]["default"] = str(settings.shared)
    new = WorkPoolCreate(
        name=name,
        type=worker_type,
        description=f"Batch jobs of {name}, made by hpc-bridge on first use.",
        base_job_template=base_job_template,
    )
    try:
        return await client.create_work_pool(new)
    except ObjectAlreadyExists:
        return await client.read_work_pool(name)


async def _complete(client: PrefectClient, pool: WorkPool, settings: Settings) -> WorkPool:
    """Give a pool the storage that it lacks; what somebody has configured stays."""
    stored = pool.storage_configuration
    properties = pool.base_job_template.get("variables", {}).get("properties", {})
    shared = properties.get("shared_dir", {}).get("default") or str(settings.shared)
    block_id = stored.default_result_storage_block_id
    if block_id is None:
        block = ClusterStorage(
            site=settings.site or settings.effective_scheduler, basepath=f"{shared}/results"
        )
        block_id = await block.save(slugify(f"{pool.name}-results"), overwrite=True, client=client)
    configuration = WorkPoolStorageConfiguration(
        bundle_upload_step=stored.bundle_upload_step or UPLOAD_STEP,
        bundle_execution_step=stored.bundle_execution_step or EXECUTION_STEP,
        default_result_storage_block_id=block_id,
    )
    await client.update_work_pool(pool.name, WorkPoolUpdate(storage_configuration=configuration))
    return await client.read_work_pool(pool.name)
