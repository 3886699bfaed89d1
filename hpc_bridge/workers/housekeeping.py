"""What a worker does besides submitting: it takes over what others left, and clears up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.logging import get_logger
from prefect.states import Cancelled, Scheduled
from prefect.utilities.engine import propose_state

from hpc_bridge.errors import (
    BundleError,
    CommandError,
    HPCBridgeError,
    SubmissionRefused,
    TemplateError,
)
from hpc_bridge.journal import RunDirectory, submission_time
from hpc_bridge.reference import JobReference
from hpc_bridge.settings import load_settings
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.tracking.adoption import (
    Orphan,
    find_jobs,
    index_older_runs,
    live_submissions,
    orphans,
)
from hpc_bridge.tracking.claims import claims_on
from hpc_bridge.tracking.complaint import Complaint
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.lookup import read_journals
from hpc_bridge.tracking.retention import kept_for, sweep
from hpc_bridge.tracking.unsubmitted import flow_runs_of, give_up, may_submit, refuse

if TYPE_CHECKING:
    from hpc_bridge.sites.site import Site
    from hpc_bridge.workers.base import BatchWorker

logger = get_logger("hpc_bridge")

TAKEN_BY = "hpc-bridge.taken-by"
"""Label of a flow run: the process that is about to submit it."""
_STUCK = timedelta(minutes=3)
"""A run that a script is about to submit has a run directory long before."""
_LABELLED = timedelta(seconds=10)
"""The label may still be that of an earlier process."""
_SWEEP_SECONDS = 86400.0
_WRITTEN = timedelta(minutes=2)
"""After its live marker a run directory's journal is there, or never will be."""
_LOST_SECONDS = 30.0
"""What a broken connection has left running on the login host has ended after this."""
_PAGE = 200


class Housekeeping:
    """One worker's; of several workers of a pool one alone clears up.

    1. Submissions of the pool that no living process looks after are adopted, once an interval.
    2. A run that was taken from the pool by a worker that died before it made a run directory goes
       back to the pool.
    3. Run directories whose retention is over are removed, once a day.
    """

    def __init__(
        self,
        worker: BatchWorker,
        shared: Path,
        files: ClusterFiles,
        interval: float,
        site: Site | None = None,
    ) -> None:
        self._worker = worker
        self._shared = shared
        self._files = files
        self.claims = claims_on(shared, files)
        self._interval = interval
        self._site = site
        self._waiting: dict[str, Orphan] = {}
        self._foreign: set[str] = set()
        self._warned: set[str] = set()
        self._expected: dict[UUID, asyncio.Future[TrackedJob]] = {}
        self._swept = float("-inf")
        self._complaint = Complaint()
        self._asking = asyncio.Lock()
        self._last_submitted: dict[tuple[Path, ClusterFiles], tuple[float, set[str] | None]] = {}
        self.has_adopted = asyncio.Event()
        """What was left when the worker began is looked after, as far as it could be read."""

    async def serve(self) -> None:
        """For ever; a round that fails is repeated."""
        is_indexed = False
        while True:
            try:
                if not is_indexed:
                    await asyncio.to_thread(index_older_runs, self._shared, self._files)
                    is_indexed = True
                await self._adopt(self._shared, self._files)
                self.has_adopted.set()
                leads = await asyncio.to_thread(self.claims.lead, self._worker.work_pool.id)
                await self._give_back(leads=leads)
                if leads:
                    await self._sweep()
                self._complaint.over()
            except (httpx.HTTPError, HPCBridgeError, OSError) as error:
                words = "What earlier workers left cannot be looked at now: %s"
                logger.log(self._complaint.level(error), words, error)
            except Exception:  # a file that nobody thought of must not end the worker
                logger.exception("Looking at what earlier workers left failed")
            await asyncio.sleep(self._interval)

    async def _adopt(self, shared: Path, files: ClusterFiles) -> None:
        known = self._worker.keeper.submissions() | self._waiting.keys() | self._foreign
        found = await asyncio.to_thread(
            lambda: list(orphans(shared, files, self._is_wanted, known=known.__contains__))
        )
        self._waiting |= {orphan.run.submission_id: orphan for orphan in found}
        # Those whose job is known need no question to a scheduler that may not answer.
        for orphan in sorted(
            self._waiting.values(), key=lambda orphan: orphan.submission.get("job_id") is None
        ):
            try:
                jobs = await asyncio.to_thread(
                    find_jobs,
                    orphan,
                    poll_interval=self._interval,
                    may_submit=await may_submit(self._worker.client, orphan),
                )
            except (SubmissionRefused, TemplateError) as refusal:
                await refuse(self._worker.client, orphan, refusal)
                for flow_run_id in flow_runs_of(orphan):
                    self._disappoint(flow_run_id, refusal)
                del self._waiting[orphan.run.submission_id]
                continue
            except (httpx.HTTPError, HPCBridgeError, OSError, ValueError, KeyError) as error:
                self._warn_once(f"{orphan.run.path} cannot be adopted yet: {error}")
                if isinstance(error, CommandError) and error.retryable:
                    break  # nor would it answer for the others
                continue
            if jobs is None:
                continue
            del self._waiting[orphan.run.submission_id]
            if not jobs:
                await give_up(self._worker.client, orphan)
                for flow_run_id in flow_runs_of(orphan):
                    self._disappoint(
                        flow_run_id, BundleError("the run ended before its submission")
                    )
            for job in jobs:
                await self._take_on(job)

    def _warn_once(self, message: str) -> None:
        """A full queue or a damaged record may be there for days."""
        level = logging.DEBUG if message in self._warned else logging.WARNING
        self._warned.add(message)
        logger.log(level, message)

    def _is_wanted(self, submission_id: str, submission: dict[str, Any]) -> bool:
        pool = self._worker.work_pool
        if submission.get("work_pool_id") is not None:
            is_ours = submission["work_pool_id"] == str(pool.id)
        else:
            is_ours = submission.get("work_pool", pool.name) == pool.name
        return (
            is_ours
            and not self._worker.keeper.keeps(submission_id)
            and not any(
                UUID(flow_run_id) in self._worker.submitting.difference(self._expected)
                for flow_run_id in submission["flow_runs"].values()
            )
        )

    def _disappoint(self, flow_run_id: UUID, error: HPCBridgeError) -> None:
        expected = self._expected.get(flow_run_id)
        if expected is not None and not expected.done():
            expected.set_exception(error)

    async def submitted_later(
        self, flow_run_id: UUID, place: tuple[Path, ClusterFiles] | None = None
    ) -> TrackedJob | None:
        """The job of a run whose submission got no answer.

        It is found by its name, or submitted once the scheduler answers. None when nothing of the
        submission has come to ``place``, shared directory and files, which answers again. Raises
        SubmissionRefused or TemplateError.
        """
        place = place or (self._shared, self._files)
        expected: asyncio.Future[TrackedJob] = asyncio.get_running_loop().create_future()
        self._expected[flow_run_id] = expected
        lease = None
        try:
            with contextlib.suppress(httpx.HTTPError, ObjectNotFound):
                state = (await self._worker.client.read_flow_run(flow_run_id)).state
                if state is not None:
                    lease = state.state_details.deployment_concurrency_lease_id
            if lease is not None:
                self._worker.keeper.held_leases.add(lease)
            while not await self._is_known(expected, place):
                with contextlib.suppress(HPCBridgeError, OSError):
                    if not await self._may_be_submitted(flow_run_id, place):
                        return None
                    if place != (self._shared, self._files):
                        await self._adopt(*place)
            return expected.result()
        finally:
            self._expected.pop(flow_run_id, None)
            if lease is not None:
                self._worker.keeper.held_leases.discard(lease)

    async def _is_known(
        self, expected: asyncio.Future[TrackedJob], place: tuple[Path, ClusterFiles]
    ) -> bool:
        """Whether it is by now; here its run directory is written before the scheduler is asked."""
        is_own = place == (self._shared, self._files)
        await asyncio.wait(
            [expected], timeout=None if is_own and self._files.is_here else _LOST_SECONDS
        )
        return expected.done()

    async def _may_be_submitted(self, flow_run_id: UUID, place: tuple[Path, ClusterFiles]) -> bool:
        """Whether there is a live run directory for it, or one that does not say for what it is.

        Asked once for all that wait.
        """
        async with self._asking:
            asked, known = self._last_submitted.get(place, (float("-inf"), None))
            if time.monotonic() - asked > _LOST_SECONDS / 3:
                known = await asyncio.to_thread(_submitted_at, *place)
                self._last_submitted[place] = time.monotonic(), known
        return known is None or str(flow_run_id) in known

    async def _take_on(self, job: TrackedJob) -> None:
        try:
            flow_run = await self._worker.client.read_flow_run(job.flow_run_id)
            other = JobReference.parse(flow_run.infrastructure_pid)
            is_later = other is not None and other.submission_id > job.run.submission_id
            if flow_run.infrastructure_pid != str(job.reference) and not is_later:
                await self._worker.client.update_flow_run(
                    flow_run.id, infrastructure_pid=str(job.reference)
                )
        except ObjectNotFound:
            logger.info("Job %s is of a flow run that this server does not have", job.job_id)
            self._disappoint(job.flow_run_id, BundleError("the flow run has been deleted"))
            if (await asyncio.to_thread(job.run.read_submission)).get("work_pool_id") is None:
                self._foreign.add(job.run.submission_id)  # format 1 does not tell servers apart
            else:
                await asyncio.to_thread(job.run.settle, job.element, flow_state=None)
            return
        except httpx.HTTPError as error:  # the job must not be left to nobody
            logger.warning("Job %s could not be noted: %s", job.job_id, error)
        expected = self._expected.get(job.flow_run_id)
        if expected is not None and not expected.done():
            expected.set_result(job)
            return
        logger.info("Adopted job %s of flow run %s", job.job_id, job.flow_run_id)
        self._worker.adopt(job)

    async def _give_back(self, *, leads: bool) -> None:
        """Runs that a worker took from the pool and died with.

        Of a worker that was started again under its name only its new process knows which those
        are: what it takes itself is among those that it submits.
        """
        submitting = set(self._worker.submitting)
        taken = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.CANCELLING])
        pending = FlowRunFilter(state=FlowRunFilterState(type=taken))
        pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[self._worker.work_pool.name]))
        homeless: list[FlowRun] = []
        for page in itertools.count():
            runs = await self._worker.client.read_flow_runs(
                flow_run_filter=pending,
                work_pool_filter=pool,
                limit=_PAGE,
                offset=page * _PAGE,
            )
            homeless += runs
            if len(runs) < _PAGE:
                break
        homeless = await asyncio.to_thread(self._homeless, homeless)
        if not homeless:
            return
        living = {holder.id for holder in await asyncio.to_thread(self.claims.living)}
        submitted = await asyncio.to_thread(_submitted_at, self._shared, self._files)
        if submitted is None:
            return  # it cannot be told whose those are that cannot be read
        for run in homeless:
            if str(run.id) in submitted or run.id in submitting:
                continue
            if self._is_stuck(run, living, leads=leads):
                await self._reschedule(run)

    def _homeless(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Without a job, or with one whose end was told before the run was taken again."""
        found = []
        references = [JobReference.parse(run.infrastructure_pid) for run in runs]
        names = [reference.submission_id for reference in references if reference]
        folders = [self._shared / "runs" / name for name in names]
        there = dict(zip(names, self._files.entries(folders), strict=True)) if names else {}
        live = set(live_submissions(self._shared, self._files)) if names else set()
        for run, reference in zip(runs, references, strict=True):
            if reference is None:
                if run.infrastructure_pid is None:
                    found.append(run)
            elif there[reference.submission_id] and reference.submission_id not in live:
                found.append(run)
        return found

    def _is_stuck(self, run: FlowRun, living: Collection[str], *, leads: bool) -> bool:
        """Whether the process that has taken the run has died, or has forgotten it."""
        state = run.state
        if state is None or run.id in self._worker.submitting:
            return False
        age = datetime.now(UTC) - state.timestamp
        taken_by = run.labels.get(TAKEN_BY)
        if taken_by == self.claims.id:
            return age > _LABELLED
        if not leads or taken_by in living:
            return False  # it gathers runs, or its server is slow
        return age > (_STUCK if taken_by is None else _LABELLED)

    async def _reschedule(self, run: FlowRun) -> None:
        message = "The process that was to submit this run ended before it did."
        state: State[Any]
        if run.state is not None and run.state.is_cancelling():
            state = Cancelled(message="Cancelled before it was submitted.")
        else:
            state = Scheduled(name="Rescheduled", message=message)
            logger.warning("Flow run %r goes back to the pool: its worker died", run.name)
        try:
            await propose_state(self._worker.client, state, flow_run_id=run.id)
        except (Abort, Pause) as refusal:
            logger.info("Flow run %r stays as it is: %s", run.name, refusal)

    async def _sweep(self) -> None:
        if time.monotonic() - self._swept < _SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        await asyncio.to_thread(self.claims.dead_workers)  # which forgets old ones
        retention = kept_for(load_settings(), self._site)
        if retention is not None:
            swept = await asyncio.to_thread(sweep, self._shared, retention, files=self._files)
            if swept.count:
                logger.info("Removed %d run directories (%d bytes)", swept.count, swept.bytes)


def _submitted_at(shared: Path, files: ClusterFiles) -> set[str] | None:
    """Flow runs that have a live run directory; None while one of these cannot be told.

    That is one that cannot be read now, or that may just be written. A damaged one stays so.
    """
    runs = [RunDirectory(shared / "runs" / name, files) for name in live_submissions(shared, files)]
    found: set[str] = set()
    for run, content in read_journals(runs):
        if content is None:
            if datetime.now(UTC) - submission_time(run.submission_id) < _WRITTEN:
                return None
        elif isinstance(content, OSError):
            return None
        else:
            with contextlib.suppress(ValueError, KeyError, AttributeError):
                found.update(run.parse_submission(content)["flow_runs"].values())
    return found
