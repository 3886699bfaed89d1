"""Concurrency slots are kept while jobs wait, and all the jobs of a process are known."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking import keeper as module
from hpc_bridge.tracking.keeper import LEASE_SECONDS, Keeper


class Server:
    """Takes renewals; leases that it has given to others are gone."""

    def __init__(self, *gone: uuid.UUID) -> None:
        self.renewed: list[uuid.UUID] = []
        self._gone = gone

    async def renew_concurrency_lease(self, lease: uuid.UUID, seconds: float) -> None:
        assert seconds == LEASE_SECONDS
        if lease in self._gone:
            request = httpx.Request("POST", "http://server/renew")
            raise httpx.HTTPStatusError(
                "gone", request=request, response=httpx.Response(410, request=request)
            )
        self.renewed.append(lease)


def waiting(lease: uuid.UUID | None, *, has_started: bool = False) -> Any:
    return SimpleNamespace(
        waiting=SimpleNamespace(lease=lease, has_started=has_started),
        job=SimpleNamespace(flow_run_id=uuid.uuid4()),
    )


def keeper_of(server: Server, *trackers: Any) -> Keeper:
    keeper = Keeper(server)  # type: ignore[arg-type]
    keeper._trackers = {("hb", n): tracker for n, tracker in enumerate(trackers)}
    return keeper


def test_a_new_slot_is_renewed_at_once_and_then_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    server, first, second = Server(), uuid.uuid4(), uuid.uuid4()
    keeper = keeper_of(server, waiting(first))
    for clock.now, expected in ((1000.0, [first]), (1030.0, [first]), (1060.0, [first, first])):
        asyncio.run(keeper._renew_leases())
        assert server.renewed == expected
    clock.now = 1065.0
    keeper._trackers["hb", 7] = waiting(second)
    asyncio.run(keeper._renew_leases())
    assert server.renewed == [first, first, second]


def test_the_slot_of_a_flow_that_is_long_in_starting_is_renewed_too() -> None:
    lease = uuid.uuid4()
    server = Server()
    keeper = keeper_of(server, waiting(None), waiting(lease, has_started=True))
    asyncio.run(keeper._renew_leases())
    assert server.renewed == [lease]


def test_a_slot_that_a_flow_has_given_back_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    gone = uuid.uuid4()
    keeper = keeper_of(Server(gone), waiting(gone, has_started=True))
    asyncio.run(keeper._renew_leases())
    assert "has lost" not in caplog.text


def test_a_slot_that_is_gone_is_told_and_keeps_no_other_from_its_renewal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone, kept = uuid.uuid4(), uuid.uuid4()
    server, lost = Server(gone), waiting(gone)
    keeper = keeper_of(server, lost, waiting(kept))
    asyncio.run(keeper._renew_leases())
    assert server.renewed == [kept]
    assert lost.waiting.lease is None
    assert "has lost its concurrency slot" in caplog.text


def test_the_slot_of_a_run_that_has_no_job_yet_is_renewed_like_the_others() -> None:
    held, shared_with_a_job = uuid.uuid4(), uuid.uuid4()
    server = Server()
    keeper = keeper_of(server, waiting(shared_with_a_job))
    keeper.held_leases |= {held, shared_with_a_job}
    for _ in range(2):
        asyncio.run(keeper._renew_leases())
    assert sorted(server.renewed) == sorted([held, shared_with_a_job])


def test_a_held_slot_that_is_gone_is_not_asked_for_again() -> None:
    gone, kept = uuid.uuid4(), uuid.uuid4()
    server = Server(gone)
    keeper = keeper_of(server)
    keeper.held_leases |= {gone, kept}
    asyncio.run(keeper._renew_leases())
    assert keeper.held_leases == {kept}
    assert server.renewed == [kept]


# which jobs there are


def tracking(run: Any, flow_run_id: uuid.UUID | None = None, *, is_over: bool = False) -> Any:
    abandoned: list[bool] = []
    return SimpleNamespace(
        job=SimpleNamespace(run=run, flow_run_id=flow_run_id or uuid.uuid4()),
        is_over=is_over,
        abandoned=abandoned,
        abandon=lambda: abandoned.append(True),
    )


def run_named(submission_id: str) -> RunDirectory:
    return RunDirectory(Path("/shared/runs") / submission_id)


def test_of_the_two_jobs_of_a_retried_run_the_newer_one_is_found() -> None:
    retried, other = uuid.uuid4(), uuid.uuid4()
    old, new = tracking(None, retried, is_over=True), tracking(None, retried)
    keeper = keeper_of(Server(), old, new, tracking(None, other))
    assert keeper.find(retried) is new
    assert keeper.find(uuid.uuid4()) is None


def test_a_run_is_unfinished_while_any_of_its_jobs_is_not_over() -> None:
    first, second, third = (uuid.uuid4() for _ in range(3))
    keeper = keeper_of(
        Server(),
        tracking(None, first),
        tracking(None, second, is_over=True),
        tracking(None, third, is_over=True),
        tracking(None, third),
    )
    assert keeper.unfinished() == {first, third}


def test_claims_are_checked_once_a_run_directory_and_given_up_with_all_its_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    class Claims:
        def held(self, runs: set[RunDirectory]) -> set[RunDirectory]:
            asked.extend(run.submission_id for run in runs)
            return {run for run in runs if run.submission_id != "hblost"}

    claims = Claims()
    monkeypatch.setattr(module, "claims_of", lambda _: claims)
    kept = [tracking(run_named("hbkept")) for _ in range(50)]
    lost = [tracking(run_named("hblost")) for _ in range(50)]
    asyncio.run(keeper_of(Server(), *kept, *lost)._check_claims())
    assert sorted(asked) == ["hbkept", "hblost"]
    assert [tracker.abandoned for tracker in kept] == [[]] * 50
    assert [tracker.abandoned for tracker in lost] == [[True]] * 50
