"""What never reached the scheduler: whether it still may, and what its runs are told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import states
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
)
from prefect.exceptions import ObjectNotFound

from hpc_bridge.errors import SubmissionRefused
from hpc_bridge.tracking.adoption import Orphan
from hpc_bridge.tracking.unsubmitted import flow_runs_of, give_up, may_submit, refuse
from tests.unit.orphaned_runs import a_run

LIVE = states.Pending()
ENDED = states.Failed()
CANCELLED = states.Cancelled()
CANCELLING = states.Cancelling()
DELETED = None


class Server:
    """Knows flow runs by their state; takes no new one for a run that has ended."""

    def __init__(self, orphan: Orphan, *known: State[Any] | None) -> None:
        self.states = dict(zip(flow_runs_of(orphan), known, strict=True))
        self.told: list[tuple[int, str | None, str | None]] = []

    def _known(self, flow_run_id: UUID) -> State[Any]:
        state = self.states[flow_run_id]
        if state is None:
            raise ObjectNotFound(http_exc=RuntimeError())
        return state

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        return FlowRun(id=flow_run_id, flow_id=uuid4(), state=self._known(flow_run_id))

    async def set_flow_run_state(
        self, flow_run_id: UUID, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        assert not force
        if self._known(flow_run_id).is_final():
            ended = StateAbortDetails(reason="it has ended")
            return OrchestrationResult(state=None, status=SetStateStatus.ABORT, details=ended)
        self.states[flow_run_id] = state
        self.told.append((list(self.states).index(flow_run_id), state.name, state.message))
        accepted = StateAcceptDetails()
        return OrchestrationResult(state=state, status=SetStateStatus.ACCEPT, details=accepted)


def orphan_of(shared: Path, *known: State[Any] | None, **what: Any) -> tuple[Orphan, Any]:
    run = a_run(shared, elements=len(known), **what)
    orphan = Orphan(run, run.read_submission())
    return orphan, Server(orphan, *known)


def is_live(orphan: Orphan) -> bool:
    return (orphan.run.shared / "live" / orphan.run.submission_id).exists()


@pytest.mark.parametrize(
    ("known", "may"),
    [
        ([LIVE], True),
        ([states.Running()], True),
        ([ENDED], False),
        ([CANCELLED], False),
        ([CANCELLING], False),
        ([DELETED], False),
        ([DELETED, CANCELLED, CANCELLING, ENDED], False),
        ([DELETED, CANCELLED, CANCELLING, ENDED, LIVE], True),
    ],
)
def test_it_is_submitted_while_any_of_its_runs_waits_for_a_job(
    shared: Path, known: list[State[Any] | None], may: bool
) -> None:
    orphan, server = orphan_of(shared, *known)
    assert asyncio.run(may_submit(server, orphan)) is may
    assert server.told == []


def test_what_has_a_job_needs_no_question(shared: Path) -> None:
    orphan, _ = orphan_of(shared, ENDED, job_id="7")
    nobody: Any = object()
    assert asyncio.run(may_submit(nobody, orphan))


def test_what_is_given_up_ends_only_the_runs_that_wait_for_their_cancellation(
    shared: Path,
) -> None:
    orphan, server = orphan_of(shared, DELETED, ENDED, LIVE, CANCELLED, CANCELLING, CANCELLING)
    asyncio.run(give_up(server, orphan))
    why = "Cancelled before it was submitted."
    assert server.told == [(4, "Cancelled", why), (5, "Cancelled", why)]
    assert not is_live(orphan)


def test_what_is_refused_says_so_to_every_run_that_has_not_ended(shared: Path) -> None:
    orphan, server = orphan_of(shared, DELETED, ENDED, CANCELLED, LIVE, CANCELLING)
    asyncio.run(refuse(server, orphan, SubmissionRefused("Invalid account")))
    assert [told for told in server.told if told[0] == 3] == [(3, "Refused", "Invalid account")]
    assert not {0, 1, 2} & {told[0] for told in server.told}
    assert not is_live(orphan)


@pytest.mark.parametrize("what", ["give up", "refuse"])
def test_while_the_server_is_away_it_stays_live(shared: Path, what: str) -> None:
    """Else nobody would tell its runs later."""
    orphan, server = orphan_of(shared, CANCELLING)

    async def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("no server")

    server.read_flow_run = server.set_flow_run_state = away
    refusal = SubmissionRefused("Invalid account")
    with pytest.raises(ConnectionError):
        asyncio.run(
            give_up(server, orphan) if what == "give up" else refuse(server, orphan, refusal)
        )
    assert is_live(orphan)
