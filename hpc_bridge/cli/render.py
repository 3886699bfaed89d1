"""``hpc-bridge render``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.utilities.asyncutils import run_coro_as_sync

from hpc_bridge.decorators import BatchFlow
from hpc_bridge.errors import InvalidJobSpec, WorkPoolError
from hpc_bridge.journal import new_submission_id
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.slurm import SlurmWorker
from hpc_bridge.workers.submission import job_script

_NO_SERVER = "http://127.0.0.1:9/api"


def rendered_script(entrypoint: str | None, assignments: Sequence[str], pool: str | None) -> str:
    """The script as it would be submitted. Raises InvalidJobSpec, TemplateError, WorkPoolError."""
    variables = _decorator_variables(entrypoint) | _assigned(assignments)
    configuration: BatchJobConfiguration = run_coro_as_sync(_configuration(variables, pool))
    comment = entrypoint.rpartition(":")[2] if entrypoint else "hpc-bridge render"
    return job_script(configuration, configuration.spec(new_submission_id(), comment))


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


async def _configuration(variables: dict[str, Any], pool: str | None) -> BatchJobConfiguration:
    template = SlurmWorker.get_default_base_job_template()
    # Nothing is asked of a server unless a pool is named or a value refers to a block; without an
    # address Prefect would start a whole server for this.
    url = get_current_settings().api.url
    if url is None and pool is not None:
        raise WorkPoolError("set PREFECT_API_URL to the server that has the work pool")
    async with get_client() if url else PrefectClient(_NO_SERVER) as client:
        if pool is not None:
            try:
                template = (await client.read_work_pool(pool)).base_job_template
            except ObjectNotFound:
                raise WorkPoolError(f"there is no work pool {pool!r} on the server") from None
        configuration: BatchJobConfiguration = await BatchJobConfiguration.from_template_and_values(
            base_job_template=template, values=variables, client=client
        )
        return configuration
