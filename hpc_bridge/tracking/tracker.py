"""One job, from the queue to the told end of its flow run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.logging import get_logger
from prefect.states import Pending
from prefect.utilities.engine import propose_state

from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.jobs.reasons import Clears
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.labels import label_flow_run
from hpc_bridge.tracking.outcome import is_other_jobs, is_unexplained, settle
from hpc_bridge.tracking.output import OutputRelay
from hpc_bridge.tracking.usage import publish_usage, usage_markdown
from hpc_bridge.watcher import WatchedJob

if TYPE_CHECKING:
    from hpc_bridge.tracking.keeper import Keeper

logger = get_logger("hpc_bridge")

LOGGER_NAME = "hpc_bridge"
LOOK_SECONDS = 5.0
CANCEL_GRACE_SECONDS = 60.0
"""The node itself gives a cancelled flow 30 s, and its children and hooks come before that."""
_FIRST_REASON_SECONDS = 1.0
_RELAY_TRIES = 12
"""Ten minutes in all; a server that is away for longer does not get the last lines."""
# Accounting follows the end of a job within seconds, later on a busy site.
_USAGE_PAUSES = (0.0, 2.0, 5.0, 15.0, 30.0)


class Tracker:
    """Looks after one job of one flow run.

    1. The run becomes ``Queued`` with the scheduler's reason; later reasons go to the run's log.
    2. What the job prints goes to the run's log.
    3. A requeued job's run becomes ``Requeued``.
    4. A run that is being cancelled leaves the queue at once, and its node after a grace time.
    5. When the job is over the run has a final state, or goes on later, and a note of its usage.
    """

    def __init__(
        self, keeper: Keeper, job: TrackedJob, on_first_news: Callable[[], None] = lambda: None
    ) -> None:
        self.job = job
        self._on_first_news = on_first_news
        self.lease: Any = None
        """Id of the deployment's concurrency slot, to be kept while the job waits."""
        self.has_started = False
        self._keeper = keeper
        self._relay = OutputRelay(job.run, job.element, job.flow_run_id)
        self._reason: str | None = None
        self._announced = False
        self._over = False
        self._cancelling_since: float | None = None
        self._cancelled_at: float | None = None
        self._awake = asyncio.Event()
        self._told = asyncio.Event()

    @property
    def client(self) -> PrefectClient:
        """To the server that knows the flow run."""
        return self._keeper.client

    def cancel(self) -> None:
        """The flow run is Cancelling."""
        if self._cancelling_since is None:
            self._cancelling_since = time.monotonic()
            self._awake.set()

    async def told(self) -> None:
        """Wait until the flow run has its state after the job's end."""
        await self._told.wait()

    async def follow(self) -> State[Any] | None:
        """Until the job is over and its flow run is told; returns the state that stands.

        None when the flow run has been deleted. A job that another one takes on from is followed by
        that one.
        """
        while True:
            status = await self._until_over()
            successor = await self._successor(status)
            if successor is None:
                break
            self._begin(successor)
        state = await self._finish(status)
        self._told.set()
        return state

    def _begin(self, job: TrackedJob) -> None:
        self.job = job
        self.has_started = self._over = self._announced = False
        self._reason = None
        self._relay = OutputRelay(job.run, job.element, job.flow_run_id)

    async def _until_over(self) -> JobStatus:
        job = self.job
        watcher = job.connection.watcher
        watched = watcher.watch(
            job.job_id, job.run.submission_id, submitted=job.reference.submitted
        )
        try:
            await self._safely(label_flow_run(self.client, job))
            if not watched.latest:
                await self._sleep(watched, _FIRST_REASON_SECONDS)
                watcher.hurry()
            while not watched.done.done():
                await self._safely(self._look(watched))
                await self._sleep(watched, min(LOOK_SECONDS, job.connection.poll_interval))
            return watched.done.result()
        finally:
            watcher.forget(watched)

    async def _sleep(self, watched: WatchedJob, seconds: float) -> None:
        over = asyncio.ensure_future(watched.over())
        awake = asyncio.ensure_future(self._awake.wait())
        try:
            await asyncio.wait({over, awake}, timeout=seconds, return_when="FIRST_COMPLETED")
        finally:
            over.cancel()
            awake.cancel()
            self._awake.clear()
            await asyncio.gather(over, awake, return_exceptions=True)

    async def _safely(self, look: Awaitable[object]) -> None:
        """Neither the server nor the scheduler nor the file system may end the tracking."""
        try:
            await look
        except ObjectNotFound:
            pass  # the flow run was deleted; its job finds that out
        except (httpx.HTTPError, HPCBridgeError, OSError, Abort, Pause) as error:
            logger.info("Job %s cannot be looked after now: %s", self.job.job_id, error)

    async def _look(self, watched: WatchedJob) -> None:
        status = watched.latest
        if self._cancelling_since is not None:
            await self._enforce_cancel(status)
        if status is not None and status.state.is_waiting:
            await self._waits(status)
            self._on_first_news()
            return
        if status is not None:
            self._on_first_news()
        over, started = await asyncio.to_thread(self._traces)
        self.has_started |= started
        if over and not self._over:
            self._over = True  # the job has said so itself: the scheduler will know by now
            self.job.connection.watcher.hurry()
        if started or status is not None:
            await self._relay.relay(self.client)

    def _traces(self) -> tuple[bool, bool]:
        """(whether the newest attempt has left its exit record, whether there is one)."""
        attempt = self.job.run.newest_attempt(self.job.element)
        return attempt is not None and (attempt / "exit.json").exists(), attempt is not None

    # while it waits

    async def _waits(self, status: JobStatus) -> None:
        if self._cancelling_since is not None:
            return
        if not self._announced:
            self._announced = True
            await self._announce(status)
        elif status.reason != self._reason:
            await self._log_reason(status)
        self._reason = status.reason
        if self.has_started or self._over:
            self.has_started = self._over = False
            await self._relay.relay(self.client)
            await self._requeued(status)

    async def _announce(self, status: JobStatus) -> None:
        """``Queued``, once: a run that was announced by its caller only gets the reason logged."""
        flow_run = await self.client.read_flow_run(self.job.flow_run_id)
        state = flow_run.state
        if state is None or not state.is_pending():
            self._announced = state is not None and state.is_final()
            attempts = await asyncio.to_thread(self._traces)
            self.has_started = attempts[1]
            return
        self.lease = state.state_details.deployment_concurrency_lease_id
        attempt = await asyncio.to_thread(self.job.run.newest_attempt, self.job.element)
        if state.name in ("Queued", "Requeued"):
            if self._explained(status) not in (state.message or ""):
                await self._log_reason(status)
        elif attempt is not None:
            await self._requeued(status)
        else:
            await self._propose(queued(self.job, self._explained(status)))
            await self._shout(status)

    def _explained(self, status: JobStatus) -> str:
        reason = self.job.connection.cluster.scheduler.explain_reason(status)
        parts = []
        if reason is not None:
            parts.append(f"{reason.word}: {reason.meaning}")
        if status.estimated_start is not None:
            parts.append(f"Expected to start at {status.estimated_start:%Y-%m-%d %H:%M} UTC.")
        return " ".join(parts)

    async def _log_reason(self, status: JobStatus) -> None:
        if text := self._explained(status):
            await self._say(logging.INFO, f"Job {self.job.job_id} waits: {text}")
            await self._shout(status)

    async def _shout(self, status: JobStatus) -> None:
        """A reason that does not go away by itself must not be overlooked."""
        reason = self.job.connection.cluster.scheduler.explain_reason(status)
        if reason is None:
            return
        text = f"{reason.word}: {reason.meaning}"
        if reason.clears is Clears.NEVER:
            advice = "Cancel the run and submit it with other options."
            await self._say(
                logging.ERROR, f"Job {self.job.job_id} can never start. {text} {advice}"
            )
        elif reason.clears is Clears.BY_SOMEBODY:
            await self._say(
                logging.WARNING, f"Job {self.job.job_id} waits for somebody to act. {text}"
            )

    async def _requeued(self, status: JobStatus) -> None:
        """The same flow run will run again; the next attempt can only say so once it runs."""
        flow_run = await self.client.read_flow_run(self.job.flow_run_id)
        state = flow_run.state
        if state is None or not (state.is_running() or is_unexplained(state)):
            return
        why = f" ({status.reason})" if status.reason else ""
        message = f"Job {self.job.job_id} was requeued and waits again{why}."
        requeued: State[Any] = Pending(name="Requeued", message=message)
        requeued.state_details.deployment_concurrency_lease_id = (
            state.state_details.deployment_concurrency_lease_id
        )
        self.lease = state.state_details.deployment_concurrency_lease_id
        await self.client.set_flow_run_state(self.job.flow_run_id, requeued, force=True)
        self._announced = True

    async def _propose(self, state: State[Any]) -> None:
        """For a run that has moved on meanwhile its own state stands."""
        with contextlib.suppress(Abort, Pause):
            await propose_state(self.client, state, flow_run_id=self.job.flow_run_id)

    # while it is being cancelled

    async def _enforce_cancel(self, status: JobStatus | None) -> None:
        """Out of the queue at once; a flow that runs has its hooks first."""
        now = time.monotonic()
        since = self._cancelling_since
        if since is None:
            return
        if now - since >= CANCEL_GRACE_SECONDS:
            if self._cancelled_at is None or now - self._cancelled_at >= CANCEL_GRACE_SECONDS:
                self._cancelled_at = now
                await self._say(
                    logging.WARNING,
                    f"Job {self.job.job_id} still runs {now - since:.0f} s after its run was"
                    " cancelled; cancelling the job.",
                )
                await self._keeper.cancel_job(self.job, only_waiting=False)
        elif status is None or status.state.is_waiting:
            await self._keeper.cancel_job(self.job, only_waiting=True)
            self.job.connection.watcher.hurry()

    # when it is over

    async def _successor(self, status: JobStatus) -> TrackedJob | None:
        """Another job that has the flow run now; None when this one's end is the run's."""
        for pause in _pauses():
            try:
                twin = await asyncio.to_thread(twin_of, self.job, status)
                if twin is not None:
                    return twin
                return await self._keeper.continuation(self.job, status)
            except ObjectNotFound:
                break  # deleted meanwhile
            except (httpx.HTTPError, HPCBridgeError, OSError, ValueError) as error:
                logger.warning("Job %s cannot be gone on from yet: %s", self.job.job_id, error)
                await asyncio.sleep(pause)
        return None

    async def _finish(self, status: JobStatus) -> State[Any] | None:
        usage = await self._usage(status, _USAGE_PAUSES[:2])
        state = None
        for pause in _pauses():
            try:
                state = await self._settle(status, usage)
                break
            except ObjectNotFound:
                break  # deleted meanwhile
            except (httpx.HTTPError, OSError, ValueError) as error:
                logger.warning(
                    "The end of flow run %s cannot be told yet: %s", self.job.flow_run_id, error
                )
                await asyncio.sleep(pause)
        self._told.set()
        for pause in itertools.islice(_pauses(), _RELAY_TRIES):
            if await self._relay.relay(self.client, final=True):
                break
            await asyncio.sleep(pause)
        if state is not None:
            usage = usage or await self._usage(status, _USAGE_PAUSES[2:])
            await self._safely(self._publish(status, usage))
        await self._note(status, state)
        return state

    async def _settle(self, status: JobStatus, usage: JobUsage | None) -> State[Any] | None:
        return await settle(
            self.client,
            self.job.flow_run_id,
            status,
            self.job.run,
            self.job.spec,
            element=self.job.element,
            usage=usage,
        )

    async def _usage(self, status: JobStatus, pauses: tuple[float, ...]) -> JobUsage | None:
        """What the scheduler has recorded; None while it has not."""
        for pause in pauses:
            await asyncio.sleep(pause)
            try:
                usage = await self._keeper.usage(self.job)
            except HPCBridgeError as error:
                logger.info("The usage of job %s is not known: %s", status.job_id, error)
                continue
            if usage is not None and usage.ended is not None:
                return usage
        return None

    async def _publish(self, status: JobStatus, usage: JobUsage | None) -> None:
        if usage is None:
            usage = JobUsage(submitted=status.submitted, started=status.started, ended=status.ended)
        text = usage_markdown(usage, status, self.job.spec)
        await publish_usage(self.client, self.job.flow_run_id, text, usage)

    async def _note(self, status: JobStatus, state: State[Any] | None) -> None:
        what = {
            "job_id": str(status.job_id),
            "job_state": status.state.value,
            "flow_state": state.name if state is not None else None,
        }
        try:
            await asyncio.to_thread(self.job.run.settle, self.job.element, **what)
        except (HPCBridgeError, OSError) as error:
            logger.warning("The end of job %s could not be noted: %s", status.job_id, error)

    async def _say(self, level: int, message: str) -> None:
        """To the flow run's log, at once, and to this process's own.

        Prefect's handler would send it from a thread that may have ended before the interpreter.
        """
        logger.log(level, "%s (flow run %s)", message, self.job.flow_run_id)
        record = LogCreate(
            name=LOGGER_NAME,
            level=level,
            message=message,
            timestamp=datetime.now(UTC),
            flow_run_id=self.job.flow_run_id,
        )
        await self.client.create_logs([record])


def queued(job: TrackedJob, explained: str = "") -> State[Any]:
    """``Queued``, with what the scheduler says about the wait."""
    lines = [f"{job.scheduler.capitalize()} job {job.job_id} is in the queue.", explained]
    return Pending(name="Queued", message=" ".join(line for line in lines if line))


def _pauses() -> Iterator[int]:
    """Until server and shared directory answer: nobody else looks after the run."""
    return itertools.chain((1, 5, 15), itertools.repeat(60))


def twin_of(job: TrackedJob, status: JobStatus) -> TrackedJob | None:
    """The job that has the claim which this one, over now, did not get.

    A submission may have two jobs when the scheduler started a lost one after all.
    """
    record = job.run.exit_record(job.element)
    claimant = job.run.claimant(job.element)
    if claimant in (None, str(status.job_id)) and not is_other_jobs(record, status):
        return None
    other = JobId(claimant or (record.job_id if record is not None else ""))
    logger.warning("Job %s left its flow run to job %s", status.job_id, other)
    return replace(job, job_id=other)
