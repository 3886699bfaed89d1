"""All the jobs that one process looks after, and what is asked for them together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType

from hpc_bridge.connections import Connection
from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.journal import RunDirectory
from hpc_bridge.reference import JobReference
from hpc_bridge.tracking.batching import Batch
from hpc_bridge.tracking.claims import Claims, claims_of
from hpc_bridge.tracking.continuation import continuation
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.reader import Reader
from hpc_bridge.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

SERVE_SECONDS = 10.0
CLAIM_CHECK_SECONDS = 60.0
LEASE_RENEWAL_SECONDS = 60.0
LEASE_SECONDS = 300.0
_WINDOW = 0.2
_RUNS_PER_QUESTION = 200
_USAGE_MARGIN = timedelta(hours=1)


class Keeper:
    """The trackers of one process, for one Prefect server.

    However many jobs there are, one question to the server finds those that are being cancelled,
    and cancelling jobs or asking for their usage is one command for all that want it at the time.
    """

    def __init__(self, client: PrefectClient) -> None:
        self.client = client
        self.reader = Reader()
        """Reads what all of the jobs leave."""
        self._trackers: dict[tuple[str, int], Tracker] = {}
        self._cancels: dict[tuple[int, bool], Batch[JobId, bool]] = {}
        self._usages: dict[int, Batch[JobReference, JobUsage]] = {}
        self._renewed: dict[UUID, float] = {}
        self.held_leases: set[UUID] = set()
        """Concurrency slots of runs that have no job yet."""

    def find(self, flow_run_id: UUID) -> Tracker | None:
        """The tracker of a flow run, when this process looks after it."""
        for tracker in reversed(list(self._trackers.values())):  # a retried run has two
            if tracker.job.flow_run_id == flow_run_id:
                return tracker
        return None

    def keeps(self, submission_id: str) -> bool:
        """Whether this process looks after any job of a submission."""
        return submission_id in self.submissions()

    def submissions(self) -> set[str]:
        """The submissions that this process looks after."""
        trackers = list(self._trackers.items())  # other threads ask too
        return {key[0] for key, _ in trackers} | {
            tracker.job.run.submission_id for _, tracker in trackers
        }

    def unfinished(self) -> set[UUID]:
        """The flow runs whose job is not over."""
        return {
            tracker.job.flow_run_id for tracker in self._trackers.values() if not tracker.is_over
        }

    def __len__(self) -> int:
        return len(self._trackers)

    async def follow(
        self,
        job: TrackedJob,
        on_first_news: Callable[[], None] = lambda: None,
        on_over: Callable[[], None] = lambda: None,
    ) -> State[Any] | None:
        """Look after a job until its flow run is told; see ``Tracker.follow``.

        ``on_first_news`` is called when the flow run says what the scheduler said first of the job,
        ``on_over`` when the last job is over, before the end is told.
        """
        key = job.run.submission_id, job.element
        tracker = self._trackers[key] = Tracker(self, job, on_first_news, on_over)
        try:
            return await tracker.follow()
        finally:
            self._trackers.pop(key, None)

    async def serve(self) -> None:
        """Notice cancellations and keep concurrency slots, for ever."""
        checked = float("-inf")
        while True:
            try:
                await self.look_for_cancelling()
                await self._renew_leases()
                if time.monotonic() - checked >= CLAIM_CHECK_SECONDS:
                    checked = time.monotonic()
                    await self._check_claims()
            except (httpx.HTTPError, HPCBridgeError, OSError) as error:
                logger.info("Jobs cannot be looked after as a whole now: %s", error)
            except Exception:  # every job depends on this loop
                logger.exception("Looking after all jobs failed")
            await asyncio.sleep(min((SERVE_SECONDS, *self._intervals())))

    async def _check_claims(self) -> None:
        """A process that was stopped for minutes, or a laptop that slept, may have lost them."""
        trackers = list(self._trackers.values())
        places: dict[Claims, set[RunDirectory]] = {}
        for tracker in trackers:
            places.setdefault(claims_of(tracker.job.run), set()).add(tracker.job.run)
        lost: set[RunDirectory] = set()
        for claims, runs in places.items():
            lost |= runs - await asyncio.to_thread(claims.held, runs)
        for tracker in trackers:
            if tracker.job.run in lost:
                run = tracker.job.run
                logger.warning("Another process looks after %s now", run.submission_id)
                tracker.abandon()

    def _intervals(self) -> Iterable[float]:
        return (tracker.job.connection.poll_interval for tracker in self._trackers.values())

    async def look_for_cancelling(self) -> None:
        """Tell the trackers of runs that are to be cancelled.

        Some are Cancelled at once: by hand in the dashboard, or by the server's own services.
        """
        trackers = {tracker.job.flow_run_id: tracker for tracker in self._trackers.values()}
        types = FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
        for ids in _chunks(list(trackers)):
            cancelling = FlowRunFilter(
                id=FlowRunFilterId(any_=list(ids)), state=FlowRunFilterState(type=types)
            )
            for flow_run in await self.client.read_flow_runs(flow_run_filter=cancelling):
                trackers[flow_run.id].cancel()

    async def _renew_leases(self) -> None:
        """A deployment's slot is taken when its run becomes Pending, and lapses in minutes.

        A new one is renewed at once: its deployment may give it no more than one minute.
        """
        leases: dict[UUID, Tracker | None] = dict.fromkeys(self.held_leases)
        for tracker in self._trackers.values():
            if tracker.waiting.lease is not None:
                leases[tracker.waiting.lease] = tracker
        self._renewed = {lease: at for lease, at in self._renewed.items() if lease in leases}
        for lease, holder in leases.items():
            now = time.monotonic()
            if now - self._renewed.get(lease, float("-inf")) < LEASE_RENEWAL_SECONDS:
                continue
            try:
                await self.client.renew_concurrency_lease(lease, LEASE_SECONDS)
                self._renewed[lease] = now
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in (404, 410):
                    raise
                self.held_leases.discard(lease)
                if holder is not None:
                    self._lost_lease(holder)

    def _lost_lease(self, tracker: Tracker) -> None:
        if not tracker.waiting.has_started:  # else the flow has given it back
            logger.warning(
                "Flow run %s has lost its concurrency slot while its job waited",
                tracker.job.flow_run_id,
            )
        tracker.waiting.lease = None

    async def cancel_job(self, job: TrackedJob, *, only_waiting: bool) -> None:
        """Cancel at the scheduler; raises the CommandErrors."""
        key = id(job.connection), only_waiting
        if key not in self._cancels:
            call = partial(_cancel, job.connection, only_waiting)
            self._cancels[key] = Batch(call, window=_WINDOW)
        await self._cancels[key].ask(job.job_id)

    async def usage(self, job: TrackedJob) -> JobUsage | None:
        """What the scheduler has recorded of a job; raises the CommandErrors."""
        key = id(job.connection)
        if key not in self._usages:
            self._usages[key] = Batch(partial(_usage, job.connection), window=_WINDOW)
        return await self._usages[key].ask(job.reference)

    async def continuation(self, job: TrackedJob, status: JobStatus) -> TrackedJob | None:
        """The next submission of a flow that goes on after its walltime."""
        return await continuation(self.client, job, status)


def _cancel(connection: Connection, only_waiting: bool, jobs: Sequence[JobId]) -> dict[JobId, bool]:
    connection.cluster.cancel(jobs, only_waiting=only_waiting)
    return dict.fromkeys(jobs, True)


def _usage(
    connection: Connection, references: Sequence[JobReference]
) -> Mapping[JobReference, JobUsage]:
    since = min(reference.submitted for reference in references) - _USAGE_MARGIN
    found = connection.cluster.usage([reference.job_id for reference in references], since)
    return {ref: found[ref.job_id] for ref in references if ref.job_id in found}


def _chunks(ids: Sequence[UUID]) -> Iterable[list[UUID]]:
    for start in range(0, len(ids), _RUNS_PER_QUESTION):
        yield list(ids[start : start + _RUNS_PER_QUESTION])
