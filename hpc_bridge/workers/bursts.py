"""Like flow runs that are ready together leave as one job array."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import anyio
from prefect.logging import get_logger

from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.workers.submission import (
    JobRequest,
    connection_of,
    likeness,
    may_be_array,
    submit,
)

logger = get_logger("hpc_bridge")

T = TypeVar("T")

_LOOK_SECONDS = 0.1
_THREADS = 4


@dataclass(slots=True)
class _Group:
    """Requests that are alike, and what becomes of them, in the same order."""

    leaves_by: float
    """On the event loop's clock."""
    submitted: asyncio.Future[list[TrackedJob]]
    requests: list[JobRequest] = field(default_factory=list)


class Gatherer:
    """Submits the flow runs of one worker, on one event loop.

    ``taken`` are the ids of the flow runs that the worker has been handed and whose job is not
    recorded yet. A worker is handed up to 200 at a time and resolves each with several requests to
    the server, so that those of a burst come here one after the other over seconds.

    1. Like runs wait for each other until all that were taken have come, at most ``longest_wait``
       seconds, or until the scheduler takes no larger array. One run is a plain job.
    2. Where there are no arrays every run leaves at once.
    3. A refusal, or another error, is that of every run of the group and of no other.
    4. A run that has come is submitted although its caller is cancelled (a worker that shuts down):
       the server would hand it to nobody else. The caller ends after that.
    5. The event loop never blocks: what blocks runs in at most four threads.
    """

    def __init__(self, longest_wait: float, taken: Callable[[], Collection[UUID]]) -> None:
        self.runs = 0
        self.submissions = 0
        self._longest_wait = longest_wait
        self._taken = taken
        self._come: set[UUID] = set()
        self._gathering: dict[str, _Group] = {}
        self._timer: asyncio.Handle | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="hpc-bridge-submit")

    async def submit(self, request: JobRequest) -> TrackedJob:
        """Submit one flow run, alone or with others; returns when it is in the queue.

        Raises what ``submission.submit`` raises.
        """
        try:
            kind, limit = await self._in_thread(_kind, request)
        finally:
            self._come = {request.flow_run_id, *self._come.intersection(self._taken())}
        group, position = self._join(kind, limit, request)
        try:
            return (await asyncio.shield(group.submitted))[position]
        except asyncio.CancelledError:
            self._leave(kind, group)
            with anyio.CancelScope(shield=True):
                await asyncio.wait([group.submitted])
            if (error := group.submitted.exception()) is not None:
                logger.warning("Flow run %s was not submitted: %s", request.flow_run_id, error)
            raise

    def _join(self, kind: str, limit: int, request: JobRequest) -> tuple[_Group, int]:
        loop = asyncio.get_running_loop()
        group = self._gathering.get(kind)
        if group is None:
            group = _Group(loop.time() + self._longest_wait, loop.create_future())
            self._gathering[kind] = group
        group.requests.append(request)
        position = len(group.requests) - 1
        if len(group.requests) >= limit:
            self._leave(kind, group)
        elif self._timer is None:
            self._timer = loop.call_soon(self._look)
        return group, position

    def _look(self) -> None:
        """Let those groups go that wait for nobody, or have waited for long enough."""
        loop = asyncio.get_running_loop()
        all_have_come = self._come.issuperset(self._taken())
        for kind, group in list(self._gathering.items()):
            if all_have_come or loop.time() >= group.leaves_by:
                self._leave(kind, group)
        self._timer = loop.call_later(_LOOK_SECONDS, self._look) if self._gathering else None

    def _leave(self, kind: str, group: _Group) -> None:
        if self._gathering.get(kind) is not group:
            return  # it has left
        del self._gathering[kind]
        # No task: when the event loop is closed all tasks are cancelled, but not what is under way.
        sent = self._in_thread(submit, group.requests)
        sent.add_done_callback(lambda done: self._tell(group, done))

    def _tell(self, group: _Group, sent: asyncio.Future[list[TrackedJob]]) -> None:
        if (error := sent.exception()) is not None:
            group.submitted.set_exception(error)
            return
        jobs = sent.result()
        self.runs += len(jobs)
        self.submissions += 1
        if len(jobs) > 1:
            logger.info(
                "%d flow runs went out as one job array, %s (so far %d runs by %d submissions)",
                len(jobs),
                jobs[0].run.path,
                self.runs,
                self.submissions,
            )
        group.submitted.set_result(jobs)

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        context = contextvars.copy_context()  # Prefect keeps its settings there
        return asyncio.wrap_future(self._threads.submit(context.run, function, *arguments))


def _kind(request: JobRequest) -> tuple[str, int]:
    """Equal for requests that go together, and how many of them. Blocks."""
    cluster = connection_of(request.configuration).cluster
    limit = cluster.array_limit()
    if limit == 1 or not may_be_array(request.configuration, cluster.scheduler):
        return str(request.flow_run_id), 1
    return likeness(request), limit
