"""Runs that a worker took from its pool, and died with before it made a run directory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import states
from prefect.client.schemas.objects import FlowRun

from hpc_bridge.journal import prepare_shared_directory
from hpc_bridge.storage.cluster_files import HERE
from hpc_bridge.workers import housekeeping as module
from hpc_bridge.workers.housekeeping import TAKEN_BY, Housekeeping


class Worker:
    """``first`` of the pool ``pool``; its client too."""

    def __init__(self, run: FlowRun) -> None:
        self.name = "first"
        self.work_pool = SimpleNamespace(name="pool", id=uuid4())
        self.client = self
        self.submitting: set[UUID] = set()
        self.run = run
        self.given_back: list[UUID] = []
        self.states: list[str] = []

    async def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return [self.run]


def taken(by: str | None, seconds: float) -> FlowRun:
    """A run that was taken so long ago and has no job."""
    pending = states.Pending()
    pending.timestamp = datetime.now(UTC) - timedelta(seconds=seconds)
    labels: Any = {TAKEN_BY: by} if by else {}
    return FlowRun(id=uuid4(), flow_id=uuid4(), state=pending, labels=labels)


@pytest.fixture
def given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether the process ``me`` gives a run back, while others live."""
    shared = prepare_shared_directory(tmp_path / "shared")

    def ask(run: FlowRun, *living: str, leads: bool = True) -> bool:
        worker = Worker(run)

        async def propose(client: Any, state: Any, flow_run_id: UUID) -> None:
            worker.given_back.append(flow_run_id)
            worker.states.append(state.name)

        others = [SimpleNamespace(id=one) for one in ("me", *living)]
        claims = SimpleNamespace(id="me", living=lambda: others)
        monkeypatch.setattr(module, "claims_on", lambda *_: claims)
        monkeypatch.setattr(module, "propose_state", propose)
        asyncio.run(Housekeeping(worker, shared, HERE, 1.0)._give_back(leads=leads))  # type: ignore[arg-type]
        expected = "Cancelled" if run.state.is_cancelling() else "Rescheduled"
        return (worker.given_back, worker.states) == ([run.id], [expected])

    return ask


@pytest.mark.parametrize("leads", [True, False])
def test_what_this_process_has_taken_and_forgotten_is_given_back(
    given_back: Any, leads: bool
) -> None:
    assert given_back(taken("me", 15), leads=leads)


def test_what_has_just_been_taken_is_not_given_back(given_back: Any) -> None:
    assert not given_back(taken("me", 1))
    assert not given_back(taken("dead", 1))


def test_what_a_living_process_has_taken_stays_with_it(given_back: Any) -> None:
    assert not given_back(taken("second", 1000), "second")


@pytest.mark.parametrize("leads", [True, False])
def test_what_a_dead_process_had_taken_is_given_back_by_one_alone(
    given_back: Any, leads: bool
) -> None:
    assert given_back(taken("dead", 15), "second", leads=leads) is leads


def test_what_a_script_may_be_about_to_submit_is_left_for_minutes(given_back: Any) -> None:
    assert not given_back(taken(None, 100))
    assert given_back(taken(None, 200))


def test_one_that_is_being_cancelled_meanwhile_is_cancelled_instead(given_back: Any) -> None:
    run = taken("dead", 15)
    cancelling = states.Cancelling()
    cancelling.timestamp = datetime.now(UTC) - timedelta(seconds=30)
    assert given_back(run.model_copy(update={"state": cancelling}))
