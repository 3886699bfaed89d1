"""The future of a flow run that is a batch job."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFlowRunFuture, PrefectFuture
from typing_extensions import TypeVar

from hpc_bridge.connections import connect
from hpc_bridge.jobs import JobSpec, JobStatus
from hpc_bridge.journal import RunDirectory
from hpc_bridge.reference import JobReference
from hpc_bridge.tracking.outcome import is_settled, is_unexplained, settle
from hpc_bridge.watcher import WatchedJob, Watcher

R = TypeVar("R")

# A flow sets its final state before its job ends; the answer may still be on its way.
_SETTLING_SECONDS = 5.0
_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Watch:
    watcher: Watcher
    job: WatchedJob


class BatchFlowRunFuture(PrefectFlowRunFuture[R]):
    """Prefect's future, which would wait for ever for a job that died without a word.

    While it waits, one process-wide watcher asks the scheduler about all live jobs; when the job is
    over and the flow run is not, the future gives it the state that the job's records call for.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        *,
        shared: Path,
        poll_interval: float,
        reference: JobReference | None = None,
        spec: JobSpec | None = None,
    ) -> None:
        super().__init__(flow_run_id)
        self._shared = shared
        self._poll_interval = poll_interval
        self._reference = reference
        self._spec = spec
        self._over: JobReference | None = None

    @property
    def job_id(self) -> str | None:
        """The scheduler's id of the job; None while no worker has submitted the run."""
        return str(self._reference.job_id) if self._reference else None

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

    @property
    def run_directory(self) -> RunDirectory | None:
        """The job's files; None while no worker has submitted the run."""
        if self._reference is None:
            return None
        return RunDirectory(self._shared / "runs" / self._reference.submission_id)

    async def wait_async(self, timeout: float | None = None) -> None:
        """Wait for the flow run's final state, at most ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        watch: _Watch | None = None
        try:
            while self._final_state is None:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                watch = watch or await self._watch()
                await self._wait_for_news(watch, remaining)
                if watch is not None and self._final_state is not None:
                    await self._explain(watch.job, self._final_state)
                elif remaining == 0.0:
                    break
                elif watch is not None and watch.job.done.done():
                    await self._settle(watch.job.done.result())
                    # A run that is to be retried or resumed goes on in another job.
                    self._over, watch, self._reference = self._reference, None, None
        finally:
            if watch is not None:
                watch.watcher.forget(watch.job)

    async def _explain(self, job: WatchedJob, state: State[Any]) -> None:
        """When a signal ended the flow, ask the scheduler why it came.

        A job that waits again was requeued: the flow run will run again, and so is not over.
        """
        if not is_unexplained(state):
            return None
        since = datetime.now(UTC)
        give_up = time.monotonic() + 2 * self._poll_interval + _SETTLING_SECONDS
        while time.monotonic() < give_up:
            if job.done.done():
                return await self._settle(job.done.result())
            fresh = job.latest_at is not None and job.latest_at > since
            if fresh and job.latest is not None and job.latest.state.is_waiting:
                self._final_state = None
                return None
            await asyncio.sleep(self._poll_interval / 4)
        return None

    async def _wait_for_news(self, watch: _Watch | None, remaining: float | None) -> None:
        """Until the run is over, the job is over, or it is time to look again."""
        # Prefect's waiter wakes for the usual state names only, so the run is read now and then.
        pause = min(self._poll_interval, _LOOK_SECONDS)
        limit = pause if remaining is None else min(pause, remaining)
        flow_run = asyncio.ensure_future(super().wait_async(timeout=limit))
        waiting: list[asyncio.Future[Any]] = [flow_run]
        if watch is not None:
            waiting.append(asyncio.ensure_future(watch.job.over()))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if flow_run.done():
                flow_run.result()
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _watch(self) -> _Watch | None:
        if self._reference is None:
            async with get_client() as client:
                flow_run = await client.read_flow_run(self.flow_run_id)
            reference = JobReference.parse(flow_run.infrastructure_pid)
            self._reference = None if reference == self._over else reference
        if self._reference is None:
            return None
        reference = self._reference
        watcher = connect(reference.scheduler, self._shared, self._poll_interval).watcher
        job = watcher.watch(
            reference.job_id, reference.submission_id, submitted=reference.submitted
        )
        return _Watch(watcher, job)

    async def _settle(self, status: JobStatus) -> None:
        """The job is over: give the flow run's own last state a moment, then decide."""
        run = self.run_directory
        if run is None:
            return
        async with get_client() as client:
            record = await asyncio.to_thread(run.exit_record)
            ran = record is not None and record.stage == "flow"
            give_up = time.monotonic() + (_SETTLING_SECONDS if ran else 0.0)
            while time.monotonic() < give_up:
                if is_settled(await client.read_flow_run(self.flow_run_id), status):
                    break
                await asyncio.sleep(0.5)
            state = await settle(client, self.flow_run_id, status, run, self._spec)
        if state is not None and state.is_final():
            self._final_state = state
