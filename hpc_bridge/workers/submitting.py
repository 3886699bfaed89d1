"""From a call of a flow to its job, in the caller's own process."""

from __future__ import annotations

import asyncio
import copy
from abc import ABC
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx
from prefect.client.schemas.objects import Flow as APIFlow
from prefect.context import FlowRunContext, TagsContext
from prefect.logging import get_logger
from prefect.results import aresolve_result_storage
from prefect.states import Crashed, Pending
from prefect.tasks import Task
from prefect.utilities.processutils import command_to_string
from prefect.utilities.urls import url_for
from prefect.workers.base import BaseWorker, BaseWorkerResult
from typing_extensions import TypeVar

from hpc_bridge.errors import (
    BundleError,
    HPCBridgeError,
    InvalidJobSpec,
    is_worth_waiting_for,
)
from hpc_bridge.futures import BatchFlowRunFuture
from hpc_bridge.journal import prepare_shared_directory
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.choosing import default_site, site_of_pool, wanted_schedulers
from hpc_bridge.sites.resolve import resolve_site
from hpc_bridge.storage.bundle import BundleStore, packed
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.workers.configuration import BatchJobConfiguration, BatchVariables
from hpc_bridge.workers.pools import ensure_work_pool
from hpc_bridge.workers.prepared import PreparedRun, one_line, pinned, shown
from hpc_bridge.workers.submission import (
    EXECUTE,
    JobRequest,
    api_url,
    bundle_key,
    is_loopback,
    job_script,
    submit,
)

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

    from hpc_bridge.sites.site import Site

logger = get_logger("hpc_bridge")

R = TypeVar("R")


class BatchWorkerResult(BaseWorkerResult):
    """``status_code`` is always 0: the flow run itself says how it ended."""


class SubmittingWorker(BaseWorker[BatchJobConfiguration, BatchVariables, BatchWorkerResult], ABC):
    """What a caller of a flow needs of a worker: the pool, and a job for the call."""

    job_configuration = BatchJobConfiguration
    job_configuration_variables = BatchVariables

    asked: Mapping[str, Any] = MappingProxyType({})
    """Job variables of the flow that is submitted, which may name its site."""
    _serves = False
    """Whether this is a long-lived worker, rather than a caller that submits its own flow."""

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """As Prefect's, without ``null`` as default, for which the pool's page shows no field."""
        template = super().get_default_base_job_template()
        for field in template["variables"]["properties"].values():
            if field.get("default", "") is None:
                del field["default"]
        return template

    async def sync_with_backend(self) -> None:
        """Make the pool or complete its storage; only a worker that serves it is registered."""
        if self._work_pool is None:
            pool = await ensure_work_pool(
                self.client,
                self._work_pool_name,
                worker_type=self.type,
                base_job_template=self._new_base_job_template,
                settings=load_settings(),
                site=await self._site(),
            )
            self._record_work_pool_snapshot(pool)
        if self._serves:
            await super().sync_with_backend()

    async def _site(self) -> Site | None:
        """What a new pool is made after, and the account's own pool is brought up to date with."""
        name = self.asked.get("site")
        name = name or await asyncio.to_thread(site_of_pool, self._work_pool_name)
        if name is not None:
            return await resolve_site(name, self.client)
        kind = self.job_configuration.pool_type
        return await default_site(wanted_schedulers(self.asked.get("scheduler"), kind), self.client)

    def _new_base_job_template(self) -> dict[str, Any]:
        return self._base_job_template or self.get_default_base_job_template()

    @property
    def is_ready(self) -> bool:
        """Whether the server has answered and the pool is known."""
        return self._work_pool is not None

    async def prepare(
        self,
        flow: Flow[..., R],
        parameters: dict[str, Any],
        job_variables: dict[str, Any],
    ) -> PreparedRun[R]:
        """Check and pack a call, before any flow run exists.

        Raises InvalidJobSpec, SettingsError, TemplateError, BundleError or SharedDirectoryError,
        and CommandError where the cluster is elsewhere and not reached.
        """
        if flow.should_validate_parameters:
            parameters = flow.validate_parameters(parameters)
        flow = await self._with_result_storage(flow)
        configuration = await self.checked(job_variables)
        self._check_api_url(configuration)
        await asyncio.to_thread(job_script, configuration, configuration.spec("hb", "comment"))

        def pack() -> str:
            shared = prepare_shared_directory(configuration.shared, configuration.files)
            with packed(flow, parameters) as bundle:
                return BundleStore(shared, configuration.files).save(bundle)

        key = await asyncio.to_thread(pack)
        surroundings = await asyncio.to_thread(pinned, configuration)
        launcher = (getattr(flow, "launcher", None) or {}).get("execution") or ["python"]
        command = command_to_string([*launcher, "-m", EXECUTE, "--key", key])
        return PreparedRun(
            flow=flow,
            parameters=parameters,
            shown_parameters=shown(flow, parameters),
            job_variables=surroundings | job_variables | {"command": command},
            configuration=configuration,
            key=key,
        )

    async def checked(self, job_variables: dict[str, Any]) -> BatchJobConfiguration:
        """What the job variables ask for on this pool. Raises as ``prepare``."""
        configuration = await self._configuration(job_variables)
        await asyncio.to_thread(configuration.check_limits, asks=True)
        return configuration

    async def check_deployment(self, job_variables: dict[str, Any]) -> None:
        """Raise InvalidJobSpec for what the site would not take, and SiteError.

        A value that is wrong in itself is left to the server, which refuses it by the pool's form.
        """
        try:
            configuration = await self._configuration(job_variables)
        except InvalidJobSpec:
            return
        configuration.check_limits()

    async def create_flow_run(self, prepared: PreparedRun[Any], state: Any) -> FlowRun:
        """Make the flow run; within a flow it is that flow's child."""
        flow = prepared.flow
        parent = None
        if context := FlowRunContext.get():
            task: Task[..., Any] = Task(name=flow.name, fn=flow.fn, version=flow.version)
            parent = await task.create_run(flow_run_context=context, parameters={})
        return await self.client.create_flow_run(
            flow,
            parameters=prepared.shown_parameters,
            state=state,
            job_variables=prepared.job_variables,
            work_pool_name=self.work_pool.name,
            tags=TagsContext.get().current_tags,
            parent_task_run_id=parent.id if parent else None,
        )

    async def submit(
        self,
        flow: Flow[..., R],
        parameters: dict[str, Any] | None = None,
        job_variables: dict[str, Any] | None = None,
        flow_run: FlowRun | None = None,
    ) -> BatchFlowRunFuture[R]:
        """Submit ``flow`` as a job from this process; returns when the job is in the queue.

        Raises what ``prepare`` raises before any flow run exists; a refusal by the scheduler is
        raised with its words after the flow run has been marked Crashed. With ``flow_run`` that run
        is done again, with the parameters that are kept in its bundle.
        """
        if flow_run is None:
            prepared = await self.prepare(flow, parameters or {}, job_variables or {})
            flow_run = await self.create_flow_run(prepared, Pending())
            variables = prepared.job_variables
        else:
            variables = (flow_run.job_variables or {}) | (job_variables or {})
            if bundle_key(variables.get("command")) is None:
                raise BundleError(
                    f"flow run {flow_run.name!r} was not submitted by a decorated flow, so its"
                    " parameters are not kept; call the flow again"
                )
            state: State[Any] = Pending(message="Retrying as a new job.")
            await self.client.set_flow_run_state(flow_run.id, state, force=True)
            flow_run = await self.client.read_flow_run(flow_run.id)
        configuration = await self._configuration(variables)
        configuration.prepare_for_flow_run(
            flow_run=flow_run,
            flow=APIFlow(id=flow_run.flow_id, name=flow.name, labels={}),
            work_pool=self.work_pool,
            worker_name=self.name,
            worker_id=self.backend_id,
        )
        job = await self._submit_job(flow_run, configuration)
        await self._record(flow_run, job)
        return await asyncio.to_thread(  # it claims the run directory
            BatchFlowRunFuture[R],
            flow_run.id,
            shared=configuration.shared,
            files=configuration.files,
            poll_interval=configuration.polling_seconds,
            job=job,
        )

    async def submit_to_work_pool(
        self, flow: Flow[..., R], parameters: dict[str, Any], job_variables: dict[str, Any]
    ) -> BatchFlowRunFuture[R]:
        """Leave ``flow`` for a worker of the pool; its bundle waits on the shared directory."""
        from prefect.states import Scheduled

        prepared = await self.prepare(flow, parameters, job_variables)
        configuration = prepared.configuration
        store = BundleStore(configuration.shared, configuration.files)
        await asyncio.to_thread(store.deliver, prepared.key)
        flow_run = await self.create_flow_run(prepared, Scheduled())
        return BatchFlowRunFuture(
            flow_run.id,
            shared=configuration.shared,
            files=configuration.files,
            poll_interval=configuration.polling_seconds,
        )

    async def _submit_job(
        self, flow_run: FlowRun, configuration: BatchJobConfiguration
    ) -> TrackedJob:
        await self._keep_results(configuration)
        flow = configuration._related_objects.get("flow")
        comment = " / ".join(
            part for part in (configuration.name, flow.name if flow else None) if part
        )
        request = JobRequest(
            configuration,
            flow_run.id,
            one_line(comment),
            work_pool=self.work_pool.name,
            work_pool_id=self.work_pool.id,
        )
        try:
            await asyncio.to_thread(configuration.check_limits, asks=True)
            job = await self._hand_over(request)
        except HPCBridgeError as error:
            if self._serves and is_worth_waiting_for(error):
                raise  # it is tried again
            await self._refuse(flow_run, error)
            raise
        logger.info(
            "Flow run %r is %s job %s; see %s and %s",
            flow_run.name,
            job.scheduler,
            job.job_id,
            url_for("flow-run", obj_id=flow_run.id) or "the dashboard",
            job.run.path,
        )
        return job

    async def _refuse(self, flow_run: FlowRun, error: HPCBridgeError) -> None:
        name = "SubmissionFailed" if error.retryable else "Refused"
        await self.client.set_flow_run_state(
            flow_run.id, Crashed(name=name, message=str(error)), force=True
        )

    async def _hand_over(self, request: JobRequest) -> TrackedJob:
        return (await asyncio.to_thread(submit, [request]))[0]

    async def _record(self, flow_run: FlowRun, job: TrackedJob) -> None:
        """Note the job, which is in the queue: that the server is away now is no error."""
        try:
            await self.client.update_flow_run(flow_run.id, infrastructure_pid=str(job.reference))
        except httpx.HTTPError as error:
            self._logger.warning(
                "Job %s of flow run %s could not be noted: %s", job.job_id, flow_run.id, error
            )

    async def _keep_results(self, configuration: BatchJobConfiguration) -> None:
        """Give a deployment's flow the pool's result storage; a bundled flow has it already."""
        block_id = self.work_pool.storage_configuration.default_result_storage_block_id
        if bundle_key(configuration.command) is not None or block_id is None:
            return
        block = await self.client.read_block_document(block_id)
        if block.block_type is not None:
            slug = f"{block.block_type.slug}/{block.name}"
            configuration.env.setdefault("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK", slug)

    async def _configuration(self, job_variables: dict[str, Any]) -> BatchJobConfiguration:
        return await self.job_configuration.from_template_and_values(
            base_job_template=copy.deepcopy(self.work_pool.base_job_template),
            values=job_variables,
            client=self.client,
        )

    async def _with_result_storage(self, flow: Flow[..., R]) -> Flow[..., R]:
        """The flow, keeping its result where this process can read it unless it says otherwise."""
        block_id = self.work_pool.storage_configuration.default_result_storage_block_id
        if flow.result_storage is not None or block_id is None:
            return flow
        storage = await aresolve_result_storage(block_id)
        return flow.with_options(result_storage=storage, persist_result=True)

    def _check_api_url(self, configuration: BatchJobConfiguration) -> None:
        from prefect.settings import get_current_settings

        url = api_url(configuration, get_current_settings())
        if is_loopback(url) and configuration.scheduler_name != "local":
            self._logger.warning(
                "Compute nodes will be told to find the Prefect server at %s, which only works on"
                " the server's own machine. Set HPC_BRIDGE_API_URL or the job variable api_url to"
                " an address that they reach.",
                url,
            )
