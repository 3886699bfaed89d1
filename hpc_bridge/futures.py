"""The future of a flow run that is a batch job."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFlowRunFuture, PrefectFuture
from prefect.states import Cancelling, Crashed
from prefect.utilities.asyncutils import run_coro_as_sync
from typing_extensions import TypeVar

from hpc_bridge.errors import CommandError, HPCBridgeError
from hpc_bridge.journal import RunDirectory
from hpc_bridge.reference import JobReference
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.tracking.caretaker import Care, caretaker
from hpc_bridge.tracking.job import TrackedJob, tracked_jobs
from hpc_bridge.tracking.outcome import is_unexplained
from hpc_bridge.tracking.reconnecting import reconnect

logger = logging.getLogger(__name__)

R = TypeVar("R")

_LOOK_SECONDS = 5.0
# A busy cluster is slow to say that a job was requeued, and sacct to say that it has no records.
_EXPLAINING_SECONDS = 60.0
_FETCH_PAUSES = (5.0, 15.0, 30.0, 60.0)


class BatchFlowRunFuture(PrefectFlowRunFuture[R]):
    """Prefect's future, which would wait for ever for a job that died without a word.

    While this process lives it looks after the job, unless another process does: a worker, or the
    script that submitted it.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        *,
        shared: Path,
        poll_interval: float,
        files: ClusterFiles = HERE,
        job: TrackedJob | None = None,
    ) -> None:
        super().__init__(flow_run_id)
        self._shared = shared
        self._files = files
        self._poll_interval = poll_interval
        self._reference = job.reference if job is not None else None
        self._over: JobReference | None = None
        self._care = caretaker().care(job) if job is not None else None
        self._try_again = 0.0

    @property
    def job_id(self) -> str | None:
        """The scheduler's id of the job; None while no worker has submitted the run."""
        return str(self._reference.job_id) if self._reference else None

    @property
    def run_directory(self) -> RunDirectory | None:
        """The job's files; None while no worker has submitted the run."""
        return None if self._reference is None else self._run_of(self._reference)

    def _run_of(self, reference: JobReference) -> RunDirectory:
        return RunDirectory(self._shared / "runs" / reference.submission_id, self._files)

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], None]) -> None:
        """Call ``fn`` when the run is over, also when its job dies without a word."""
        if self._final_state is not None:
            fn(self)
            return

        def wait_and_call() -> None:
            self.wait()
            fn(self)

        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(wait_and_call,), name="hpc-bridge-future", daemon=True
        ).start()

    def cancel(self) -> None:
        """Cancel the run: a waiting job leaves the queue, a flow that runs is ended with its hooks.

        Returns at once; ``wait`` waits for the end. A run that is over stays as it is.
        """
        run_coro_as_sync(self.acancel())

    async def acancel(self) -> None:
        """As ``cancel``."""
        async with get_client() as client:
            state = (await client.read_flow_run(self.flow_run_id)).state
            if state is None or not state.is_final():
                cancelling: State[Any] = Cancelling()
                await client.set_flow_run_state(self.flow_run_id, cancelling)
        if self._care is not None:
            caretaker().cancel(self._care)

    async def wait_async(self, timeout: float | None = None) -> None:
        """Wait for the flow run's final state, at most ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._final_state is None:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            await self._take_care()
            await self._wait_for_news(remaining)
            if self._final_state is not None:
                await self._explain(self._final_state, deadline)
            elif self._care is not None and self._care.end.done():
                await self._take_over(self._care.end)
            if remaining == 0.0:
                break
        if self._final_state is not None and self._care is not None:
            self._care.is_ending = True

    async def aresult(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """As Prefect's; a cluster that is away and keeps the result is waited for.

        Raises the CommandError of the last try when that takes longer than ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for pause in itertools.chain(_FETCH_PAUSES, itertools.repeat(_FETCH_PAUSES[-1])):
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                return await super().aresult(remaining, raise_on_failure)
            except CommandError as error:
                # Else it is the flow's own exception.
                if error.kept_in is None or not error.retryable:
                    raise
                if deadline is not None and time.monotonic() + pause >= deadline:
                    raise
                if pause == _FETCH_PAUSES[0]:
                    logger.warning("The result is waited for, and Ctrl-C leaves it: %s", error)
            await asyncio.sleep(pause)
        raise RuntimeError("the pauses have no end")

    async def _take_over(self, end: Future[State[Any] | None]) -> None:
        """The job is over. A run that is to be retried or resumed goes on in another one."""
        state = None if end.exception() is not None else end.result()
        if state is None:  # the run was deleted, or another process looks after the job
            self._care = None
            try:
                async with get_client() as client:
                    await client.read_flow_run(self.flow_run_id)
            except ObjectNotFound:
                self._final_state = _deleted()
        elif state.is_final():
            self._final_state = state
        else:
            self._over, self._care, self._reference = self._reference, None, None

    async def _explain(self, state: State[Any], deadline: float | None) -> None:
        """When a signal ended the flow, wait until whoever looks after the job has said why.

        The run of a job that was requeued is not over.
        """
        give_up = time.monotonic() + 2 * self._poll_interval + _EXPLAINING_SECONDS
        give_up = give_up if deadline is None else min(give_up, deadline)
        while is_unexplained(state) and time.monotonic() < give_up:
            await asyncio.sleep(min(1.0, self._poll_interval / 4))
            await self._take_care()
            async with get_client() as client:
                read = (await client.read_flow_run(self.flow_run_id)).state
            if read is not None:
                state = read
        self._final_state = state if state.is_final() else None

    async def _wait_for_news(self, remaining: float | None) -> None:
        """Until the run is over, the job is over, or it is time to look again."""
        # Prefect's waiter wakes for the usual state names only, so the run is read now and then.
        pause = min(self._poll_interval, _LOOK_SECONDS)
        limit = pause if remaining is None else min(pause, remaining)
        flow_run = asyncio.ensure_future(super().wait_async(timeout=limit))
        waiting: list[asyncio.Future[Any]] = [flow_run]
        if self._care is not None:
            waiting.append(asyncio.ensure_future(_shielded(self._care)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if flow_run.done():
                flow_run.result()
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _take_care(self) -> None:
        """Look after the job unless somebody does; asked again once an interval."""
        if self._care is not None or time.monotonic() < self._try_again:
            return
        if self._reference is None:
            async with get_client() as client:
                flow_run = await client.read_flow_run(self.flow_run_id)
            reference = JobReference.parse(flow_run.infrastructure_pid)
            self._reference = None if reference == self._over else reference
        if self._reference is None:
            return
        self._try_again = time.monotonic() + self._poll_interval
        self._care = await asyncio.to_thread(self._care_for, self._reference)

    def _care_for(self, reference: JobReference) -> Care | None:
        run = self._run_of(reference)
        try:
            connection = reconnect(run, run.read_submission(), self._poll_interval)
            for job in tracked_jobs(run, connection):
                if job.flow_run_id == self.flow_run_id:
                    return caretaker().care(job)
        except (HPCBridgeError, OSError, ValueError) as error:
            logger.info("Job %s cannot be looked after from here: %s", reference.job_id, error)
        return None


async def _shielded(care: Care) -> None:
    await asyncio.shield(asyncio.wrap_future(care.end))


def _deleted() -> State[Any]:
    return Crashed(name="FlowRunGone", message="The flow run has been deleted.")
