"""Looks after the jobs that a script has submitted, in a thread, while the script lives."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import threading
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings

from hpc_bridge.tracking.claims import claims_of
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.keeper import Keeper

logger = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
"""How long an interpreter that ends waits for what is nearly told."""


class Care:
    """One job that is looked after by this process."""

    def __init__(self, job: TrackedJob) -> None:
        self.job = job
        self.end: Future[State[Any] | None] = Future()
        """The state that stands when the job is over; None for a deleted flow run."""
        self.first_news: Future[None] = Future()
        """Done when the flow run says that it is queued, and why."""
        self.is_ending = False
        """The flow run has its final state; what is left takes moments."""

    def has_news(self) -> None:
        """The scheduler has said something of the job."""
        if not self.first_news.done():
            self.first_news.set_result(None)


class Caretaker:
    """A thread with a keeper of its own.

    The process may end at any time: another one adopts what is left.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._keepers: dict[str, Keeper] = {}
        self._cares: dict[tuple[str, int], Care] = {}
        self._serving: list[asyncio.Task[None]] = []
        self._lock = threading.Lock()
        self._entering = asyncio.Lock()
        threading.Thread(
            target=self._loop.run_forever, name="hpc-bridge-caretaker", daemon=True
        ).start()
        # Before the threads of pools end, which tracking uses; atexit would be too late.
        threading._register_atexit(self._linger)  # type: ignore[attr-defined]

    def care(self, job: TrackedJob) -> Care | None:
        """Look after a job from now on; None when another process that lives does.

        Blocks for moments. A job that is in care already stays so.
        """
        key = job.run.submission_id, job.element
        with self._lock:
            known = self._cares.get(key)
        # Outside of the lock, which the loop takes too: a claim elsewhere is a remote command.
        if known is None and not claims_of(job.run).take(job.run):
            return None
        with self._lock:
            known = known or self._cares.get(key)
            if known is not None:
                return known
            care = self._cares[key] = Care(job)
        context = contextvars.copy_context()
        self._loop.call_soon_threadsafe(
            lambda: self._loop.create_task(self._follow(care), context=context), context=context
        )
        return care

    def cancel(self, care: Care) -> None:
        """The flow run is Cancelling; its job is told without waiting for the next look."""
        self._loop.call_soon_threadsafe(self._cancel, care)

    def _cancel(self, care: Care) -> None:
        for keeper in self._keepers.values():
            tracker = keeper.find(care.job.flow_run_id)
            if tracker is not None:
                tracker.cancel()

    async def _follow(self, care: Care) -> None:
        try:
            keeper = await self._keeper()
            care.end.set_result(await keeper.follow(care.job, care.has_news))
        except Exception as error:
            logger.exception("Job %s is not looked after any more", care.job.job_id)
            with contextlib.suppress(RuntimeError):  # the interpreter ends, and all claims with it
                release = claims_of(care.job.run).release  # to a worker
                await asyncio.to_thread(release, care.job.run)
            care.end.set_exception(error)
        finally:
            care.has_news()
            with self._lock:
                self._cares.pop((care.job.run.submission_id, care.job.element), None)

    async def _keeper(self) -> Keeper:
        url = str(get_current_settings().api.url)
        async with self._entering:
            if url not in self._keepers:
                client = await get_client().__aenter__()
                self._keepers[url] = Keeper(client)
                self._serving.append(self._loop.create_task(self._keepers[url].serve()))
            return self._keepers[url]

    def _linger(self) -> None:
        with self._lock:
            cares = list(self._cares.values())
        waiting: list[Future[Any]] = [
            care.end if care.is_ending else care.first_news for care in cares
        ]
        wait_for(waiting, timeout=LINGER_SECONDS)


_caretakers: dict[int, Caretaker] = {}
_making = threading.Lock()


def caretaker() -> Caretaker:
    """This process's caretaker; a forked child has its own."""
    with _making:
        if os.getpid() not in _caretakers:
            _caretakers[os.getpid()] = Caretaker()
        return _caretakers[os.getpid()]
