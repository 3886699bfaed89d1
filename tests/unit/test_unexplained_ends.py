"""A future's patience with an end of its run that only the scheduler can explain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.states import Crashed, Pending

from hpc_bridge import BatchFlowRunFuture, futures

KILLED: Any = Crashed(name="Killed", message="The process was killed by signal 9.")


class Server:
    """Its flow run changes its state after so many seconds of a clock of its own."""

    def __init__(self, later: Any, after: float) -> None:
        self.now = 0.0
        self._later, self._after = later, after

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        yield self

    async def read_flow_run(self, _: UUID) -> Any:
        state = self._later if self.now >= self._after else KILLED
        return SimpleNamespace(state=state, infrastructure_pid=None)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def explained(
    monkeypatch: pytest.MonkeyPatch, server: Server, deadline: float | None = None
) -> BatchFlowRunFuture[Any]:
    future: BatchFlowRunFuture[Any] = BatchFlowRunFuture(uuid4(), shared=Path(), poll_interval=1.0)
    monkeypatch.setattr(futures, "get_client", server.client)
    monkeypatch.setattr(futures, "time", SimpleNamespace(monotonic=lambda: server.now))
    with monkeypatch.context() as patch:
        patch.setattr(futures, "asyncio", SimpleNamespace(sleep=server.sleep))
        asyncio.run(future._explain(KILLED, deadline))
    return future


def test_a_run_whose_job_is_found_requeued_half_a_minute_later_is_not_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(Pending(name="Requeued"), after=30)
    assert explained(monkeypatch, server)._final_state is None


def test_an_end_that_is_explained_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Crashed(name="JobFailed", message="Job 1 died."), after=2)
    future = explained(monkeypatch, server)
    assert (future.state.name, round(server.now)) == ("JobFailed", 2)


def test_an_end_that_nobody_explains_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(KILLED, after=0)
    assert explained(monkeypatch, server)._final_state == KILLED
    assert 60 <= server.now < 70


def test_nobody_waits_longer_for_the_explanation_than_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(KILLED, after=0)
    explained(monkeypatch, server, deadline=3.0)
    assert 3 <= server.now < 4
