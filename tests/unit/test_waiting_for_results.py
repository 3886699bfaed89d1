"""Fetching a result from a cluster that is away for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.futures import PrefectFlowRunFuture

from hpc_bridge import futures
from hpc_bridge.errors import CommandError, LoginRefused, Unreachable
from hpc_bridge.futures import BatchFlowRunFuture


def away(error: CommandError) -> CommandError:
    """As the results' storage says it."""
    error.kept_in = "/home/anna/.hpc-bridge/results/x"
    return error


def fetched(monkeypatch: pytest.MonkeyPatch, *answers: Any, **options: Any) -> Any:
    """What ``aresult`` gives when Prefect's does so one after the other."""
    left = list(answers)

    async def aresult(_: Any, timeout: Any = None, raise_on_failure: bool = True) -> Any:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(PrefectFlowRunFuture, "aresult", aresult)
    monkeypatch.setattr(futures, "_FETCH_PAUSES", (0.01, 0.02))
    future: BatchFlowRunFuture[Any] = BatchFlowRunFuture(
        uuid4(), shared=Path("/shared"), poll_interval=1
    )
    result = asyncio.run(future.aresult(**options))
    assert left == []
    return result


def test_a_result_is_waited_for_while_its_cluster_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [away(Unreachable("no network")) for _ in range(5)]
    with caplog.at_level("WARNING", "hpc_bridge.futures"):
        assert fetched(monkeypatch, *errors, 42) == 42
    assert [record.getMessage() for record in caplog.records] == [
        "The result is waited for, and Ctrl-C leaves it: no network"
    ]


@pytest.mark.parametrize(
    "error", [Unreachable("the flow's own"), away(LoginRefused("a key that is not known"))]
)
def test_what_waiting_does_not_change_is_raised(
    monkeypatch: pytest.MonkeyPatch, error: CommandError
) -> None:
    with pytest.raises(type(error), match=str(error)):
        fetched(monkeypatch, error)


def test_nobody_waits_longer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable):
        fetched(monkeypatch, away(Unreachable("no network")), timeout=0.0)
