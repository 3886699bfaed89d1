"""``hpc-bridge render``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.utilities.asyncutils import run_coro_as_sync

from hpc_bridge.cli.explaining import explained
from hpc_bridge.decorators import BatchFlow
from hpc_bridge.errors import InvalidJobSpec, WorkPoolError
from hpc_bridge.journal import new_submission_id
from hpc_bridge.settings import PoolType, load_settings, pool_type
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.words import in_our_words
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.kinds import WORKERS
from hpc_bridge.workers.precedence import origins, requested_site
from hpc_bridge.workers.submission import job_script

if TYPE_CHECKING:
    from prefect.client.schemas.objects import WorkPool

_NO_SERVER = "http://127.0.0.1:9/api"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Job variables by where the command has them from."""

    decorator: dict[str, Any]
    assigned: dict[str, Any]
    pool: str | None
    bound_to: PoolType | None
    """The type of pool of the flow's decorator, if there is a flow."""

    @property
    def values(self) -> dict[str, Any]:
        return self.decorator | self.assigned


def rendered_script(
    entrypoint: str | None,
    assignments: Sequence[str],
    pool: str | None,
    *,
    site: str | None = None,
    explain: bool = False,
) -> str:
    """The script as it would be submitted, with ``explain`` where each of its lines comes from.

    Raises InvalidJobSpec, SiteError, TemplateError, WorkPoolError.
    """
    assigned = _assigned(assignments) | ({} if site is None else {"site": site})
    flow = None if entrypoint is None else _flow(entrypoint)
    asked = _Asked(
        {} if flow is None else dict(flow.job_variables),
        assigned,
        pool,
        None if flow is None else flow.worker_cls.job_configuration.pool_type,
    )
    found: tuple[BatchJobConfiguration, dict[str, Any]] = run_coro_as_sync(_configuration(asked))
    configuration, template = found
    configuration.check_limits()
    comment = entrypoint.rpartition(":")[2] if entrypoint else "hpc-bridge render"
    spec = configuration.spec(new_submission_id(), comment)
    if not explain:
        return job_script(configuration, spec)
    own = in_our_words(asked.assigned, configuration.pool_type)
    named = {"--set": own, "decorator": asked.decorator}
    if site is not None:
        named = {"--site": {"site": site}, **named}
    known = origins(named, load_settings(), configuration.profiled_site, template, pool)
    return explained(configuration, spec, known)


def _flow(entrypoint: str) -> BatchFlow[..., Any]:
    if ":" not in entrypoint:
        raise InvalidJobSpec(f"{entrypoint!r} names no flow; write {entrypoint}:name_of_the_flow")
    try:
        flow: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except Exception as error:  # whatever the user's file raises
        raise InvalidJobSpec(f"{entrypoint!r} cannot be loaded: {error}") from error
    if not isinstance(flow, BatchFlow):
        raise InvalidJobSpec(
            f"{entrypoint!r} is a flow without @slurm or @pbs; there is no job to render"
        )
    return flow


def _assigned(assignments: Sequence[str]) -> dict[str, Any]:
    """``name=value``; a value that is JSON stands for itself, any other is text."""
    variables: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise InvalidJobSpec(f"{assignment!r} is not of the form name=value")
        try:
            variables[name] = json.loads(value)
        except json.JSONDecodeError:
            variables[name] = value
    return variables


async def _configuration(asked: _Asked) -> tuple[BatchJobConfiguration, dict[str, Any]]:
    template: dict[str, Any] | None = None
    kind = asked.bound_to
    # Nothing is asked of a server unless a pool is named, a site is not known here, or a value
    # refers to a block; without an address Prefect would start a whole server for this.
    url = get_current_settings().api.url
    if url is None and asked.pool is not None:
        raise WorkPoolError("set PREFECT_API_URL to the server that has the work pool")
    async with get_client() if url else PrefectClient(_NO_SERVER) as client:
        if asked.pool is not None:
            try:
                pool = await client.read_work_pool(asked.pool)
            except ObjectNotFound:
                raise WorkPoolError(f"there is no work pool {asked.pool!r} on the server") from None
            template, kind = pool.base_job_template, _kind_of(pool)
        site = await _site(asked.values, template or {}, client if url else None, kind)
        if kind is None:
            scheduler = asked.values.get("scheduler") or load_settings().effective_scheduler
            kind = pool_type(scheduler if site is None else site.profile.scheduler.type)
        configure = WORKERS[kind].job_configuration
        if template is None:
            template = WORKERS[kind].get_default_base_job_template()
        assigned = configure.in_our_words(asked.assigned, only_own=True)
        values = asked.decorator | assigned
        configure.check_values(values)
        configuration = await configure.at_site(site, template, values, client)
        return configuration, template


def _kind_of(pool: WorkPool) -> PoolType:
    if pool.type not in WORKERS:
        raise WorkPoolError(f"work pool {pool.name!r} is of type {pool.type!r}, not one of ours")
    return cast(PoolType, pool.type)


async def _site(
    values: dict[str, Any],
    template: dict[str, Any],
    client: PrefectClient | None,
    kind: PoolType | None,
) -> Site | None:
    try:
        return await requested_site(values, template, client, kind)
    except httpx.TransportError as error:
        sys.stderr.write(
            f"hpc-bridge: the server does not answer ({error or type(error).__name__}): only"
            " profiles of this machine are known\n"
        )
        return await requested_site(values, template, None, kind)
