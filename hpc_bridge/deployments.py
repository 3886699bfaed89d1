"""Deployments keep what the decorator says.

A deployment's runs never import the flow on the worker's side, so the decorator's job variables are
written into the deployment when it is made: by ``flow.deploy``, ``flow.to_deployment`` with a pool,
or ``prefect deploy``, which has no hook for this: hence the one patched method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow

if TYPE_CHECKING:
    from hpc_bridge.decorators import BatchFlow


def merged(decorator: Mapping[str, Any], deployment: Mapping[str, Any] | None) -> dict[str, Any]:
    """The decorator's job variables under the deployment's own; environments are joined."""
    own = dict(deployment or {})
    result = {**decorator, **own}
    if "env" in decorator and "env" in own:
        result["env"] = {**decorator["env"], **own["env"]}
    return result


def bake_decorators_into_deployments(batch_flow: type[BatchFlow[..., Any]]) -> None:
    """From now on a deployment of such a flow on a pool begins with its decorator's variables."""
    original = RunnerDeployment._set_defaults_from_flow

    def with_decorator(self: RunnerDeployment, flow: Flow[..., Any]) -> None:
        original(self, flow)
        # Served flows have no pool, and run where they are served.
        if isinstance(flow, batch_flow) and self.work_pool_name:
            variables = getattr(flow, "job_variables", {})
            in_our_words = flow.worker_cls.job_configuration.in_our_words
            self.job_variables = merged(variables, in_our_words(self.job_variables or {}))

    RunnerDeployment._set_defaults_from_flow = with_decorator  # type: ignore[method-assign]
