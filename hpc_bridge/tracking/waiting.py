"""What a flow run is told while its job waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, Pause
from prefect.logging import get_logger
from prefect.states import Pending
from prefect.utilities.engine import propose_state

from hpc_bridge.jobs import JobStatus
from hpc_bridge.jobs.reasons import Clears
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.outcome import is_unexplained

logger = get_logger("hpc_bridge")

LOGGER_NAME = "hpc_bridge"


class Waiting:
    """The wait of one job.

    1. The run becomes ``Queued``, once, with the scheduler's reason.
    2. Later reasons go to the run's log; one that does not clear by itself goes there loudly.
    3. A job that waits although it had started was requeued, and so is its run.
    """

    def __init__(self, client: PrefectClient, job: TrackedJob) -> None:
        self.lease: Any = None
        """Id of the deployment's concurrency slot, to be kept while the job waits."""
        self._client = client
        self._job = job
        self._reason: str | None = None
        self._announced = False
        self._started: datetime | None = None

    @property
    def has_started(self) -> bool:
        """Whether the job has been seen to have started, and not to wait since."""
        return self._started is not None

    def starts(self) -> None:
        """The job has been seen to have started."""
        self._started = self._started or datetime.now(UTC)

    async def note_lease(self) -> None:
        """Also of a job that is never seen to wait: its flow may be long in starting."""
        state = (await self._client.read_flow_run(self._job.flow_run_id)).state
        if state is not None:
            self.lease = state.state_details.deployment_concurrency_lease_id

    async def tell(self, status: JobStatus, at: datetime) -> None:
        """The scheduler said at that moment that the job waits."""
        # An answer from before the start, which is only read after it, says nothing.
        if self._started is not None and at > self._started:
            await self._requeue(status)
            self._started = None
        elif not self._announced:
            await self._announce(status)
        elif status.reason != self._reason:
            await self._log_reason(status)
        self._reason = status.reason

    async def _announce(self, status: JobStatus) -> None:
        """A run that has been announced already only gets what is new."""
        state = (await self._client.read_flow_run(self._job.flow_run_id)).state
        if state is None or not state.is_pending():
            return
        self.lease = state.state_details.deployment_concurrency_lease_id
        explained = self._explained(status)
        if state.name in ("Queued", "Requeued"):
            if explained not in (state.message or ""):
                await self._log_reason(status)
        else:
            with contextlib.suppress(Abort, Pause):  # it has moved on
                await propose_state(
                    self._client, queued(self._job, explained), flow_run_id=self._job.flow_run_id
                )
            await self._shout(status)
        self._announced = True

    async def _requeue(self, status: JobStatus) -> None:
        """The same flow run will run again; the next attempt can only say so once it runs."""
        state = (await self._client.read_flow_run(self._job.flow_run_id)).state
        if state is None or not (state.is_running() or is_unexplained(state)):
            return
        why = f" ({status.reason})" if status.reason else ""
        requeued: State[Any] = Pending(
            name="Requeued", message=f"Job {self._job.job_id} was requeued and waits again{why}."
        )
        if state.is_running():  # a crash has given the slot back
            self.lease = state.state_details.deployment_concurrency_lease_id
            requeued.state_details.deployment_concurrency_lease_id = self.lease
        await self._client.set_flow_run_state(self._job.flow_run_id, requeued, force=True)
        self._announced = True

    def _explained(self, status: JobStatus) -> str:
        reason = self._job.connection.cluster.scheduler.explain_reason(status)
        parts = []
        if reason is not None:
            parts.append(f"{reason.word}: {reason.meaning}")
        if status.estimated_start is not None:
            parts.append(f"Expected to start at {status.estimated_start:%Y-%m-%d %H:%M} UTC.")
        return " ".join(parts)

    async def _log_reason(self, status: JobStatus) -> None:
        if text := self._explained(status):
            await say(
                self._client, self._job, logging.INFO, f"Job {self._job.job_id} waits: {text}"
            )
            await self._shout(status)

    async def _shout(self, status: JobStatus) -> None:
        """A reason that does not go away by itself must not be overlooked."""
        reason = self._job.connection.cluster.scheduler.explain_reason(status)
        if reason is None:
            return
        text = f"{reason.word}: {reason.meaning}"
        if reason.clears is Clears.NEVER:
            advice = "Cancel the run and submit it with other options."
            sentence = f"Job {self._job.job_id} can never start. {text} {advice}"
            await say(self._client, self._job, logging.ERROR, sentence)
        elif reason.clears is Clears.BY_SOMEBODY:
            sentence = f"Job {self._job.job_id} waits for somebody to act. {text}"
            await say(self._client, self._job, logging.WARNING, sentence)


def queued(job: TrackedJob, explained: str = "") -> State[Any]:
    """``Queued``, with what the scheduler says about the wait."""
    scheduler = "PBS" if job.scheduler == "pbs" else job.scheduler.capitalize()
    lines = [f"{scheduler} job {job.job_id} is in the queue.", explained]
    return Pending(name="Queued", message=" ".join(line for line in lines if line))


async def say(client: PrefectClient, job: TrackedJob, level: int, message: str) -> None:
    """To the flow run's log, at once, and to this process's own.

    Prefect's handler would send it from a thread that may have ended before the interpreter.
    """
    logger.log(level, "%s (flow run %s)", message, job.flow_run_id)
    record = LogCreate(
        name=LOGGER_NAME,
        level=level,
        message=message,
        timestamp=datetime.now(UTC),
        flow_run_id=job.flow_run_id,
    )
    await asyncio.shield(client.create_logs([record]))
