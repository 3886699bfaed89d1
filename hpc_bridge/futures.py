"""The future of a flow run that is a batch job."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.futures import PrefectFlowRunFuture
from typing_extensions import TypeVar

from hpc_bridge.connections import Connection, connect
from hpc_bridge.jobs import JobSpec, JobStatus
from hpc_bridge.journal import RunDirectory
from hpc_bridge.outcome import is_settled, settle
from hpc_bridge.reference import JobReference
from hpc_bridge.watcher import WatchedJob

R = TypeVar("R")

# A flow sets its final state before its job ends; the answer may still be on its way.
_SETTLING_SECONDS = 5.0


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

    @property
    def job_id(self) -> str | None:
        """The scheduler's id of the job; None while no worker has submitted the run."""
        return str(self._reference.job_id) if self._reference else None

    async def wait_async(self, timeout: float | None = None) -> None:
        """Wait for the flow run's final state, at most ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        watched: WatchedJob | None = None
        try:
            while self._final_state is None:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                watched = watched or await self._watch()
                await self._wait_for_news(watched, remaining)
                if remaining == 0.0:
                    break
                if self._final_state is None and watched is not None and watched.done.done():
                    await self._settle(watched.done.result())
                    watched = None if self._final_state is None else watched
        finally:
            if watched is not None and not watched.done.done():
                self._connection().watcher.forget(watched)

    async def _wait_for_news(self, watched: WatchedJob | None, remaining: float | None) -> None:
        """Until the run is over, the job is over, or it is time to look again."""
        pause = self._poll_interval if watched is None else 10 * self._poll_interval
        limit = pause if remaining is None else min(pause, remaining)
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(super().wait_async(timeout=limit))
        ]
        if watched is not None:
            waiting.append(asyncio.wrap_future(watched.done))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting[0].done():
                waiting[0].result()
        finally:
            waiting[0].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting[0]

    async def _watch(self) -> WatchedJob | None:
        if self._reference is None:
            async with get_client() as client:
                flow_run = await client.read_flow_run(self.flow_run_id)
            self._reference = JobReference.parse(flow_run.infrastructure_pid)
        if self._reference is None:
            return None
        return self._connection().watcher.watch(
            self._reference.job_id, self._reference.submission_id
        )

    def _connection(self) -> Connection:
        assert_reference = self._reference
        if assert_reference is None:
            raise RuntimeError("no worker has submitted this flow run yet")
        return connect(assert_reference.scheduler, self._shared, self._poll_interval)  # type: ignore[arg-type]

    async def _settle(self, status: JobStatus) -> None:
        """The job is over: give the flow run's own last state a moment, then decide."""
        if self._reference is None:
            return
        run = RunDirectory(self._shared / "runs" / self._reference.submission_id)
        async with get_client() as client:
            give_up = time.monotonic() + _SETTLING_SECONDS
            while time.monotonic() < give_up:
                state = (await client.read_flow_run(self.flow_run_id)).state
                if state is not None and is_settled(state, status):
                    break
                await asyncio.sleep(0.5)
            state = await settle(client, self.flow_run_id, status, run, self._spec)
        if state is not None and state.is_final():
            self._final_state = state
