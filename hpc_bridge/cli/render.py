"""``hpc-bridge render``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.site import Site
from hpc_bridge.workers.configuration import BatchJobConfiguration, check_values
from hpc_bridge.workers.precedence import origins, requested_site
from hpc_bridge.workers.slurm import SlurmWorker
from hpc_bridge.workers.submission import job_script

_NO_SERVER = "http://127.0.0.1:9/api"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Job variables by where the command has them from."""

    decorator: dict[str, Any]
    assigned: dict[str, Any]
    pool: str | None

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
    asked = _Asked(_decorator_variables(entrypoint), assigned, pool)
    found: tuple[BatchJobConfiguration, dict[str, Any]] = run_coro_as_sync(_configuration(asked))
    configuration, template = found
    configuration.check_limits()
    comment = entrypoint.rpartition(":")[2] if entrypoint else "hpc-bridge render"
    spec = configuration.spec(new_submission_id(), comment)
    if not explain:
        return job_script(configuration, spec)
    named = {"--set": asked.assigned, "decorator": asked.decorator}
    if site is not None:
        named = {"--site": {"site": site}, **named}
    known = origins(named, load_settings(), configuration.profiled_site, template, pool)
    return explained(configuration, spec, known)


def _decorator_variables(entrypoint: str | None) -> dict[str, Any]:
    if entrypoint is None:
        return {}
    if ":" not in entrypoint:
        raise InvalidJobSpec(f"{entrypoint!r} names no flow; write {entrypoint}:name_of_the_flow")
    try:
        flow: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except Exception as error:  # whatever the user's file raises
        raise InvalidJobSpec(f"{entrypoint!r} cannot be loaded: {error}") from error
    if not isinstance(flow, BatchFlow):
        raise InvalidJobSpec(f"{entrypoint!r} is a flow without @slurm; there is no job to render")
    return dict(flow.job_variables)


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
    template = SlurmWorker.get_default_base_job_template()
    # Nothing is asked of a server unless a pool is named, a site is not known here, or a value
    # refers to a block; without an address Prefect would start a whole server for this.
    url = get_current_settings().api.url
    if url is None and asked.pool is not None:
        raise WorkPoolError("set PREFECT_API_URL to the server that has the work pool")
    async with get_client() if url else PrefectClient(_NO_SERVER) as client:
        if asked.pool is not None:
            try:
                template = (await client.read_work_pool(asked.pool)).base_job_template
            except ObjectNotFound:
                raise WorkPoolError(f"there is no work pool {asked.pool!r} on the server") from None
        check_values(asked.values)
        site = await _site(asked.values, template, client if url else None)
        configuration = await BatchJobConfiguration.at_site(site, template, asked.values, client)
        return configuration, template


async def _site(
    values: dict[str, Any], template: dict[str, Any], client: PrefectClient | None
) -> Site | None:
    try:
        return await requested_site(values, template, client)
    except httpx.TransportError as error:
        sys.stderr.write(
            f"hpc-bridge: the server does not answer ({error or type(error).__name__}): only"
            " profiles of this machine are known\n"
        )
        return await requested_site(values, template, None)
