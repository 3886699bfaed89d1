"""The worker that turns flow runs into batch jobs, whatever the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from abc import ABC
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.exceptions import Abort, InfrastructureNotFound, ObjectNotFound, Pause
from prefect.logging import get_logger
from prefect.states import Crashed, Pending
from prefect.types import KeyValueLabels
from prefect.utilities.engine import propose_state

from hpc_bridge.errors import (
    CommandError,
    HPCBridgeError,
    InvalidJobSpec,
    SettingsError,
    is_worth_waiting_for,
)
from hpc_bridge.journal import prepare_shared_directory
from hpc_bridge.reference import JobReference
from hpc_bridge.settings import load_settings
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.keeper import Keeper
from hpc_bridge.workers.bursts import Gatherer
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.housekeeping import TAKEN_BY, Housekeeping
from hpc_bridge.workers.submission import (
    JobRequest,
    connection_of,
)
from hpc_bridge.workers.submitting import (
    BatchWorkerResult,
    SubmittingWorker,
)

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import WorkerFlowRunResponse

    from hpc_bridge.storage.cluster_files import ClusterFiles

logger = get_logger("hpc_bridge")

_ADOPTION_SECONDS = 30.0
"""With more to be adopted, or a scheduler that hangs, a worker with a limit goes on meanwhile."""
_RESOLVED_AT_ONCE = 8
"""Runs that are made ready for submission: each asks the server several times."""


class BatchWorker(SubmittingWorker, ABC):
    """Runs each flow run as one batch job of the account that the worker runs as.

    1. The job outlives the worker, and every process that submitted it.
    2. Nothing is submitted before all that the job needs lies on the shared directory.
    3. Every job is looked after until its flow run has been told the end, by this worker or the
       next one.
    """

    _keeper: Keeper | None = None
    _gatherer: Gatherer
    _housekeeping: Housekeeping
    _resolving: anyio.CapacityLimiter
    _freed: list[UUID]

    async def start(self, *args: Any, **kwargs: Any) -> None:
        """Serve the pool, as ``prefect worker start`` does.

        What keeps it from serving ends the process with its words: Prefect's command would show a
        traceback.
        """
        self._serves = True
        try:
            await super().start(*args, **kwargs)
        except HPCBridgeError as error:
            raise SystemExit(f"hpc-bridge: {error}") from None

    @property
    def keeper(self) -> Keeper:
        """All the jobs that this worker looks after."""
        if self._keeper is None:
            self._keeper = Keeper(self.client)
        return self._keeper

    async def _initialize_after_sync(self) -> None:
        if not self._serves:
            return
        is_first = self._work_pool is not None and not self._has_successfully_synced
        await super()._initialize_after_sync()
        if is_first:
            await self._begin_to_serve()

    async def _begin_to_serve(self) -> None:
        """Take over what an earlier worker left, and notice what is asked from outside."""
        configuration = await self._configuration({})
        files = await asyncio.to_thread(lambda: configuration.files)
        shared = await asyncio.to_thread(
            lambda: prepare_shared_directory(configuration.shared, files)
        )
        self._freed = []
        self._resolving = anyio.CapacityLimiter(_RESOLVED_AT_ONCE)
        self._gatherer = Gatherer(load_settings().array_window, lambda: self.submitting)
        self._housekeeping = Housekeeping(
            self, shared, files, configuration.polling_seconds, configuration.profiled_site
        )
        claims = self._housekeeping.claims
        await asyncio.to_thread(claims.serve_as, self._work_pool_name, self.name)
        for work in (self.keeper.serve, self._housekeeping.serve):
            self._in_background(work)
        if self._limiter is not None:  # adopted jobs count before new runs are taken
            with anyio.move_on_after(_ADOPTION_SECONDS):
                await self._housekeeping.has_adopted.wait()

    def _in_background(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Run ``work`` until the worker ends, which does not wait for it."""

        async def run() -> None:
            with anyio.CancelScope() as scope:
                self._scheduled_task_scopes.add(scope)
                try:
                    await work()
                except Exception:  # nothing that befalls one job may end the worker
                    self._logger.exception("Something was not looked after to its end")
            self._scheduled_task_scopes.discard(scope)

        if self._runs_task_group is not None:
            self._runs_task_group.start_soon(run)

    def adopt(self, job: TrackedJob) -> None:
        """Look after a job that another process has submitted; it counts against the limit."""
        limiter, waiter = self._limiter, None
        if limiter is not None:
            try:
                with contextlib.suppress(RuntimeError):  # it has its slot
                    limiter.acquire_on_behalf_of_nowait(job.flow_run_id)
            except anyio.WouldBlock:  # the limit was higher before
                waiter = asyncio.create_task(limiter.acquire_on_behalf_of(job.flow_run_id))

        def over() -> None:
            if waiter is not None:  # else it gets a slot that nobody frees
                waiter.cancel()
            self._free_slot(job.flow_run_id)

        async def follow() -> None:
            try:
                await self.keeper.follow(job, on_over=over)
            finally:
                if waiter is not None:
                    waiter.cancel()
                self._release_limit_slot(job.flow_run_id)

        self._in_background(follow)

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        """As Prefect's; a run that is retried at once waits until its first job is over."""
        free = [entry for entry in flow_run_response if entry.flow_run.id not in self._busy()]
        return await super()._submit_scheduled_flow_runs(free)

    def _busy(self) -> set[UUID]:
        return self.keeper.unfinished()

    def _free_slot(self, flow_run_id: UUID) -> None:
        """The job is over, although telling its end may take a while."""
        super()._release_limit_slot(flow_run_id)
        self._freed.append(flow_run_id)

    def _release_limit_slot(self, flow_run_id: UUID) -> None:
        """As Prefect's, which is called again when the end is told: not for a retry's slot."""
        if flow_run_id in self._freed:
            self._freed.remove(flow_run_id)
        else:
            super()._release_limit_slot(flow_run_id)

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        """As Prefect's, for workers that listen for cancellations; running flows get theirs too."""
        tracker = self.keeper.find(flow_run_id)
        if tracker is not None:
            tracker.cancel()

    @property
    def submitting(self) -> set[UUID]:
        """Flow runs that this worker has taken and not submitted yet."""
        return self._submitting_flow_run_ids

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BatchJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> BatchWorkerResult:
        """Submit, then look after the job until its flow run has been told the end.

        A worker that ends meanwhile leaves the job to the next one.
        """
        job = await self._submit_in_the_end(flow_run, configuration)
        if task_status is not None:
            task_status.started(str(job.reference))  # which Prefect records on the flow run
        await self.keeper.follow(job, on_over=lambda: self._free_slot(flow_run.id))
        # Whatever became of it has been said; Prefect would say "crashed" for any other code.
        return BatchWorkerResult(identifier=str(job.reference), status_code=0)

    async def _submit_in_the_end(
        self, flow_run: FlowRun, configuration: BatchJobConfiguration
    ) -> TrackedJob:
        """Submit, however long the scheduler does not answer."""
        while True:
            try:
                return await self._submit_job(flow_run, configuration)
            except CommandError as error:
                if not is_worth_waiting_for(error):
                    raise
                self._logger.warning(
                    "Flow run %r waits for the scheduler: %s", flow_run.name, error
                )
                delayed: State[Any] = Pending(name="SubmissionDelayed", message=str(error))
            with contextlib.suppress(Abort, Pause, httpx.HTTPError):
                await propose_state(self.client, delayed, flow_run_id=flow_run.id)
            place = await asyncio.to_thread(_place_of, configuration)
            job = await self._housekeeping.submitted_later(flow_run.id, place)
            if job is not None:
                return job

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """As Prefect's, for a few runs at a time: each asks the server several times."""
        await self._resolving.acquire_on_behalf_of(flow_run.id)
        try:
            await self._mark(flow_run.id)  # before it is taken: should this process die then
            await super()._submit_run(flow_run)
        finally:
            self._resolved(flow_run.id)

    async def _propose_crashed_state(
        self, flow_run: FlowRun, message: str, client: PrefectClient | None = None
    ) -> None:
        """As Prefect's; a request that cannot be asked is refused like one that is submitted."""
        error = sys.exception()
        if not isinstance(error, (InvalidJobSpec, SettingsError)):
            await super()._propose_crashed_state(flow_run, message, client)
            return
        refused: State[Any] = Crashed(name="Refused", message=str(error))
        with contextlib.suppress(Abort, ObjectNotFound, httpx.HTTPError):  # it is told already
            await propose_state(client or self.client, refused, flow_run_id=flow_run.id)

    def _resolved(self, flow_run_id: UUID) -> None:
        with contextlib.suppress(RuntimeError):  # it is called again at the end
            self._resolving.release_on_behalf_of(flow_run_id)

    async def _mark(self, flow_run_id: UUID) -> None:
        taken_by: KeyValueLabels = {TAKEN_BY: self._housekeeping.claims.id}
        with contextlib.suppress(httpx.HTTPError, ObjectNotFound):
            await self.client.update_flow_run_labels(flow_run_id, taken_by)

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """As Prefect's; that a busy server does not take them is no reason to crash the run."""
        await self._mark(flow_run_id)  # again: another worker may have tried to take it
        try:
            await super()._give_worker_labels_to_flow_run(flow_run_id)
        except httpx.HTTPError as error:
            self._logger.info("Flow run %s has no labels of its worker: %s", flow_run_id, error)

    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: BatchJobConfiguration,
        grace_seconds: int = 30,  # noqa: ARG002  the scheduler's own KillWait decides
    ) -> None:
        """Cancel the job at the scheduler.

        Raises InfrastructureNotFound when the run's job is not one of this worker's scheduler.
        """
        reference = JobReference.parse(infrastructure_pid)
        connection = await asyncio.to_thread(connection_of, configuration)
        if reference is None or reference.scheduler != connection.cluster.scheduler.name:
            raise InfrastructureNotFound(
                f"{infrastructure_pid!r} is no job of {connection.cluster.scheduler.name}"
            )
        await anyio.to_thread.run_sync(connection.cluster.cancel, [reference.job_id])

    async def _hand_over(self, request: JobRequest) -> TrackedJob:
        if not self._serves:
            return await super()._hand_over(request)
        self._resolved(request.flow_run_id)
        return await self._gatherer.submit(request)


def _place_of(configuration: BatchJobConfiguration) -> tuple[Path, ClusterFiles] | None:
    """Where the run directory is; None when the cluster was never reached to say so."""
    try:
        return configuration.shared, configuration.files
    except CommandError:
        return None
