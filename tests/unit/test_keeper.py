"""Concurrency slots are kept while jobs wait."""

from __future__ import annotations

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

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
