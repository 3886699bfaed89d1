"""One job, from the queue to the told end of its flow run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.logging import get_logger

from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.tracking.complaint import Complaint
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.labels import label_flow_run
from hpc_bridge.tracking.outcome import is_other_jobs, settle
from hpc_bridge.tracking.output import OutputRelay
from hpc_bridge.tracking.reader import output_size
from hpc_bridge.tracking.resubmission import note_answer
from hpc_bridge.tracking.usage import cost_metadata, publish_usage, usage_markdown
from hpc_bridge.tracking.waiting import Waiting, say
from hpc_bridge.watcher import WatchedJob

if TYPE_CHECKING:
    from hpc_bridge.tracking.keeper import Keeper

logger = get_logger("hpc_bridge")

LOOK_SECONDS = 5.0
CANCEL_GRACE_SECONDS = 60.0
"""The node itself gives a cancelled flow 30 s, and its children and hooks come before that."""
_FIRST_ANSWER_SECONDS = 4
"""Less than a script that has submitted and ends waits for it."""
_RELAY_TRIES = 12
"""Ten minutes in all; a server that is away for longer does not get the last lines."""
# Accounting follows the end of a job within seconds, later on a busy site.
_USAGE_PAUSES = (0.0, 2.0, 5.0, 15.0, 30.0)
_USAGE_SECONDS = 15.0
"""For how long an end is not told for want of records: sacct hangs for 45 s when slurmdbd does."""


class Tracker:
    """Looks after one job of one flow run.

    1. The run becomes ``Queued`` with the scheduler's reason; later reasons go to the run's log.
    2. What the job prints goes to the run's log.
    3. A requeued job's run becomes ``Requeued``.
    4. A run that is being cancelled leaves the queue at once, and its node after a grace time.
    5. When the job is over the run has a final state, or goes on later, and a note of its usage.
    """

    def __init__(
        self,
        keeper: Keeper,
        job: TrackedJob,
        on_first_news: Callable[[], None] = lambda: None,
        on_over: Callable[[], None] = lambda: None,
    ) -> None:
        self.job = job
        self.waiting = Waiting(keeper.client, job)
        self.is_over = False
        self._on_first_news = on_first_news
        self._on_over = on_over
        self._keeper = keeper
        self._relay = self._relay_of(job)
        self._over = self._looked = False
        self._abandoned = False
        self._cancelling_since: float | None = None
        self._cancelled_at: float | None = None
        self._awake = asyncio.Event()
        self._complaint = Complaint()

    @property
    def client(self) -> PrefectClient:
        """To the server that knows the flow run."""
        return self._keeper.client

    def cancel(self) -> None:
        """The flow run is Cancelling."""
        if self._cancelling_since is None:
            self._cancelling_since = time.monotonic()
            self._awake.set()

    def abandon(self) -> None:
        """Another process looks after the job."""
        self._abandoned = True
        self._awake.set()

    async def follow(self) -> State[Any] | None:
        """Until the job is over and its flow run is told; returns the state that stands.

        None when the flow run has been deleted, or another process looks after the job. Another job
        that goes on with the run is followed next.
        """
        while True:
            status = await self._until_over()
            if status is None:
                return None
            successor = await self._successor(status)
            if successor is None:
                break
            self._begin(successor)
        self.is_over = True
        self._on_over()
        return await self._finish(status)

    def _begin(self, job: TrackedJob) -> None:
        self.job = job
        self.waiting = Waiting(self.client, job)
        self._relay = self._relay_of(job)
        self._over = self._looked = False

    def _relay_of(self, job: TrackedJob) -> OutputRelay:
        return OutputRelay(job.run, job.element, job.flow_run_id, reader=self._keeper.reader)

    async def _until_over(self) -> JobStatus | None:
        """The status at the end; None when another process has taken over."""
        job = self.job
        watcher = job.connection.watcher
        watched = watcher.watch(
            job.job_id, job.run.submission_id, submitted=job.reference.submitted
        )
        # Once a job: what waits for a concurrent future stays with it when it gives up.
        over = asyncio.ensure_future(watched.over())
        over.add_done_callback(lambda _: self._awake.set())
        try:
            if not job.run.files.is_here and job.element == 0:
                await self._safely(asyncio.to_thread(note_answer, job))
            await self._safely(self.waiting.note_lease())
            await self._safely(label_flow_run(self.client, job))
            await self._first_answer(watched)
            while not (watched.done.done() or self._abandoned):
                await self._safely(self._look(watched))
                await self._sleep(min(LOOK_SECONDS, job.connection.poll_interval))
            return None if self._abandoned else watched.done.result()
        finally:
            over.cancel()
            watcher.forget(watched)

    async def _first_answer(self, watched: WatchedJob) -> None:
        """Wait a little for what the scheduler says of the job.

        Of one that it has only just taken it does not know at once why it waits.
        """
        for _ in range(_FIRST_ANSWER_SECONDS):
            status = watched.latest
            if status is not None and not (status.state.is_waiting and status.reason is None):
                return
            if watched.done.done() or self._abandoned or self._cancelling_since is not None:
                return
            await self._sleep(1.0)
            self.job.connection.watcher.hurry()

    async def _sleep(self, seconds: float) -> None:
        """Shorter when the job is over, or somebody has news of it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awake.wait(), seconds)
        self._awake.clear()

    async def _safely(self, look: Awaitable[object]) -> None:
        """Neither the server nor the scheduler nor the file system may end the tracking."""
        try:
            await look
            self._complaint.over()
        except ObjectNotFound:
            pass  # the flow run was deleted; its job finds that out
        except (httpx.HTTPError, HPCBridgeError, OSError, Abort, Pause) as error:
            level = self._complaint.level(error, logging.INFO)
            logger.log(level, "Job %s cannot be looked after now: %s", self.job.job_id, error)

    async def _look(self, watched: WatchedJob) -> None:
        status = watched.latest
        if self._cancelling_since is not None:
            if watched.absent_since is None:
                await self._enforce_cancel(status)
        elif status is not None and watched.latest_at and status.state.is_waiting:
            await self.waiting.tell(status, watched.latest_at)
        if status is not None:
            self._on_first_news()
            if status.state.is_waiting and watched.absent_since is None and self._looked:
                return  # its files say nothing new
            self._looked = True
        job = self.job
        listing = await self._keeper.reader.listing(job.run, job.element)
        traces = job.run.traces_in(job.element, listing)
        if traces.attempt is not None:
            self.waiting.starts()
            await self._relay.relay(self.client, size=output_size(listing) or 0)
        if traces.is_over and not self._over:  # the job has said so: the scheduler knows by now
            self.job.connection.watcher.hurry()
        self._over = traces.is_over
        unstarted = traces.attempt is None and self._cancelling_since is not None
        if (traces.is_over or unstarted) and not job.connection.cluster.has_accounting:
            job.connection.watcher.conclude(watched)

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
                await say(
                    self.client,
                    self.job,
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
        usage = state = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_USAGE_SECONDS):
                usage = await self._usage(status, _USAGE_PAUSES[:2])
        for pause in _pauses():
            try:
                state = await self._settle(status, usage)
                break
            except ObjectNotFound:
                break  # deleted meanwhile
            except (httpx.HTTPError, HPCBridgeError, OSError, ValueError) as error:
                logger.warning(
                    "The end of flow run %s cannot be told yet: %s", self.job.flow_run_id, error
                )
                await asyncio.sleep(pause)
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
            scheduler=self.job.scheduler,
        )

    async def _usage(self, status: JobStatus, pauses: tuple[float, ...]) -> JobUsage | None:
        """What the scheduler has recorded; None while it has not."""
        if not self.job.connection.cluster.has_accounting:
            return None
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
        spec, costs = self.job.spec, self.job.costs
        text = usage_markdown(usage, status, spec, costs)
        cost = cost_metadata(usage, spec, costs)
        await publish_usage(self.client, self.job.flow_run_id, text, usage, cost)

    async def _note(self, status: JobStatus, state: State[Any] | None) -> None:
        what = {
            "job_id": str(status.job_id),
            "job_state": status.state.value,
            "flow_state": state.name if state is not None else None,
        }
        try:
            await asyncio.to_thread(self.job.run.settle, self.job.element, **what)
        except (HPCBridgeError, OSError, ValueError) as error:
            logger.warning("The end of job %s could not be noted: %s", status.job_id, error)


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
