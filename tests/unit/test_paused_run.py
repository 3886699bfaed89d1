"""A flow that suspends itself, and is resumed while its process still ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import Abort, Pause
from prefect.states import Scheduled

from hpc_bridge.node import execute


@pytest.mark.parametrize(
    ("signal", "told", "code"), [(Pause(), "PAUSED", 0), (Abort(), "SCHEDULED", 1)]
)
def test_what_paused_was_paused_whatever_has_become_of_the_run(
    monkeypatch: pytest.MonkeyPatch, signal: BaseException, told: str, code: int
) -> None:
    """Its end would otherwise be taken for the end of a run that waits for its next job."""
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(execute, "report", lambda **what: reports.append(what))
    monkeypatch.setattr(execute, "_server_state", lambda _: Scheduled(name="Resuming"))

    def run_flow(*_: Any, **__: Any) -> None:
        raise signal

    flow: Any = SimpleNamespace(isgenerator=False)
    gate: Any = SimpleNamespace()
    assert execute._run_flow(run_flow, flow, gate, {"flow_run": None}) == code
    assert reports == [{"flow_state": told}]
