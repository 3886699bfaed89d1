"""One query per cluster and interval tells every waiting caller about its job."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hpc_bridge.errors import CommandNotFound, HPCBridgeError, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus

logger = logging.getLogger(__name__)

# Accounting follows the queue within seconds on an idle site and minutes on a busy one.
LOST_AFTER = timedelta(minutes=3)
_GIVEN_UP_AFTER = timedelta(minutes=15)
"""Accounting that hangs, or never hears of a job's end, must not keep its run for ever."""
_HISTORY_MARGIN = timedelta(hours=1)
_LONGEST_PAUSE = 300.0
_HURRY_DIVISOR = 10


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every job of the account at one moment (UTC).

    When it is not ``complete``, a job that is missing may be one that could not be read.
    """

    taken_at: datetime
    jobs: Mapping[JobId, JobStatus]
    complete: bool = True


@dataclass(slots=True)
class WatchedJob:
    """One job under watch. ``done`` resolves once, with a terminal status."""

    job_id: JobId
    name: str
    watched_since: datetime
    active_since: datetime
    """The job existed then: where a search of the records begins."""
    done: Future[JobStatus] = field(default_factory=Future)
    latest: JobStatus | None = None
    latest_at: datetime | None = None
    watchers: int = 0
    absent_since: datetime | None = None
    """Since when the queue has not had it: its id may be another job's by now."""

    async def over(self) -> JobStatus:
        """The terminal status; others go on waiting when this caller gives up."""
        return await asyncio.shield(asyncio.wrap_future(self.done))


class Watcher:
    """Watches any number of jobs of one cluster.

    1. One status query per interval, whatever the number of jobs; none while no job is live.
    2. Jobs that left the queue are looked up together in the scheduler's records, one more query.
    3. A failed query changes nothing; repeated failures lengthen the pause, up to five minutes.
    4. A job that neither the queue nor the records know is LOST after ``lost_after``, not before;
       one that left the queue and whose records say no end, or nothing, after 15 minutes.
    5. A job is told by id *and* name, because ids wrap.
    6. Terminal states are sticky.
    7. Who knows that something has happened may hurry it; then it asks at most ten times as often.
    8. Records that hang (sacct does, for 45 s) do not delay the queue's news.
    """

    def __init__(
        self,
        ask: Callable[[datetime | None], Snapshot],
        history: Callable[[Collection[JobId], datetime], Mapping[JobId, JobStatus]],
        *,
        interval: float,
        lost_after: timedelta = LOST_AFTER,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ask = ask
        self._history = history
        self._interval = interval
        self._lost_after = lost_after
        self._now = now
        self._jobs: dict[tuple[JobId, str], WatchedJob] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._unclear: list[WatchedJob] = []
        self._looking_up = False
        self._hurried: datetime | None = None

    def watch(self, job_id: JobId, name: str, *, submitted: datetime | None = None) -> WatchedJob:
        """Start watching, or join those who watch already.

        ``submitted`` is when the job was submitted, now unless it is given.
        """
        with self._changed:
            watched = self._jobs.get((job_id, name))
            if watched is None:
                now = self._now()
                watched = WatchedJob(job_id, name, now, submitted or now)
                self._jobs[job_id, name] = watched
            watched.watchers += 1
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._loop, name="hpc-bridge-watcher", daemon=True
                )
                self._thread.start()
            return watched

    def forget(self, watched: WatchedJob) -> None:
        """Give back one ``watch``; a job that nobody waits for any more is not asked about."""
        with self._changed:
            watched.watchers -= 1
            key = watched.job_id, watched.name
            if watched.watchers <= 0 and self._jobs.get(key) is watched:
                del self._jobs[key]
                self._changed.notify_all()

    def conclude(self, watched: WatchedJob) -> None:
        """It left a record, or never started: where nobody else keeps any, its absence ends it."""
        if watched.absent_since is not None:
            self._tell(watched, _lost(watched, "not in the queue"), self._now())

    def hurry(self) -> None:
        """Ask before the interval is over, for an answer that is newer than now."""
        with self._changed:
            self._hurried = self._now()
            self._changed.notify_all()

    def _loop(self) -> None:
        failures = 0
        asked = float("-inf")
        due = time.monotonic() + self._interval
        while True:
            with self._changed:
                while self._jobs and (pause := self._pause(asked, due, failures)) > 0:
                    self._changed.wait(pause)
                if not self._jobs:
                    self._thread = None
                    return
                newer_than, self._hurried = self._hurried, None
            asked = time.monotonic()
            failures = 0 if self._poll_safely(newer_than) else failures + 1
            factor = 2 ** min(failures, 10)
            pause = min(self._interval * factor, max(_LONGEST_PAUSE, self._interval))
            due = time.monotonic() + pause

    def _pause(self, asked: float, due: float, failures: int) -> float:
        """Seconds until the next question; a scheduler that does not answer is not hurried."""
        if self._hurried is not None and not failures:
            due = min(due, asked + self._interval / _HURRY_DIVISOR)
        return due - time.monotonic()

    def _poll_safely(self, newer_than: datetime | None) -> bool:
        """Others wait for this thread: nothing that a file system does may end it."""
        try:
            unclear = self._ask_queue(newer_than)
        except Exception:
            logger.exception("Asking for job states failed")
            return False
        if unclear:
            self._look_up_aside(unclear)
        return unclear is not None

    def poll(self) -> bool:
        """Ask once and tell everybody; False when the scheduler gave no usable answer."""
        unclear = self._ask_queue(None)
        if unclear is None:
            return False
        self._look_up(unclear)
        return True

    def _ask_queue(self, newer_than: datetime | None) -> list[WatchedJob] | None:
        """The jobs of which the queue does not say all; None without a usable answer."""
        try:
            answer = self._ask(newer_than)
        except HPCBridgeError as error:
            logger.warning("Job states are not known at the moment: %s", error)
            return None
        with self._changed:
            jobs = list(self._jobs.values())
        return [job for job in jobs if not self._told_by_queue(job, answer)]

    def _look_up_aside(self, unclear: list[WatchedJob]) -> None:
        """In one thread of its own, which goes on with what became unclear meanwhile."""
        with self._changed:
            self._unclear = unclear
            if self._looking_up:
                return
            self._looking_up = True
        threading.Thread(target=self._look_up_all, name="hpc-bridge-records", daemon=True).start()

    def _look_up_all(self) -> None:
        while True:
            with self._changed:
                unclear = [job for job in self._unclear if not job.done.done()]
                self._unclear = []
                if not unclear:
                    self._looking_up = False
                    return
            try:
                self._look_up(unclear)
            except Exception:  # as for the queue: others wait for this thread
                logger.exception("Looking up job records failed")

    def _told_by_queue(self, job: WatchedJob, answer: Snapshot) -> bool:
        """Whether the answer says all that is wanted of the job."""
        status = answer.jobs.get(job.job_id)
        if status is not None and status.name == job.name:
            job.absent_since = None
            job.latest, job.latest_at = status, answer.taken_at
            if status.state is JobState.CANCELLED and status.cancelled_by is None:
                return False  # by whom is in the records only
            self._tell(job, status, answer.taken_at)
            return True
        if not answer.complete:
            job.absent_since = None  # it may be the one that could not be read
        elif answer.taken_at > job.watched_since and job.absent_since is None:
            job.absent_since = answer.taken_at
        return job.absent_since is None

    def _look_up(self, unclear: Collection[WatchedJob]) -> None:
        if not unclear:
            return
        since = min(job.active_since for job in unclear) - _HISTORY_MARGIN
        read = True
        records: Mapping[JobId, JobStatus] = {}
        try:
            records = self._history([job.job_id for job in unclear], since)
        except UnexpectedOutput as error:
            logger.warning("Some job records could not be read: %s", error)
            records, read = error.readable, False
        except CommandNotFound as error:
            logger.info("There are no job records here: %s", error)
        except HPCBridgeError as error:
            logger.warning("The scheduler's job records cannot be read: %s", error)
            read = False
        for job in unclear:
            self._told_by_records(job, records.get(job.job_id), read=read)

    def _told_by_records(self, job: WatchedJob, record: JobStatus | None, *, read: bool) -> None:
        if record is not None and record.name != job.name:
            record = None  # ids come again
        absent_since = job.absent_since  # which the queue's next answer may change
        if record is not None and record.state.is_terminal:
            self._tell(job, record, self._now())
        elif absent_since is None:
            if job.latest is not None:  # the queue knows its end, and the records nothing better
                self._tell(job, job.latest, self._now())
        elif record is None and read and self._now() - absent_since >= self._lost_after:
            self._tell(job, _lost(job, "neither in the queue nor in its records"), self._now())
        elif self._now() - absent_since >= _GIVEN_UP_AFTER:
            why = f"say {record.scheduler_state}" if record is not None else "cannot be read"
            self._tell(job, _lost(job, f"not in the queue, and its records {why}"), self._now())

    def _tell(self, job: WatchedJob, status: JobStatus, at: datetime) -> None:
        job.latest, job.latest_at = status, at
        if not status.state.is_terminal:
            return
        with self._changed:
            self._jobs.pop((job.job_id, job.name), None)
            if not job.done.done():
                job.done.set_result(status)


def _lost(job: WatchedJob, reason: str) -> JobStatus:
    return JobStatus(
        job_id=job.job_id,
        name=job.name,
        state=JobState.LOST,
        scheduler_state="",
        reason=reason,
    )
