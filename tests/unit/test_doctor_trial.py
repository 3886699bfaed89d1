"""What the doctor makes of its test flow."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prefect.states import Completed, Crashed, Failed, Pending, Running

from hpc_bridge.doctor.findings import Status
from hpc_bridge.doctor.trial import _judge


class Future:
    job_id = "7"

    def __init__(self, result: Any) -> None:
        self._result = result

    def result(self, timeout: float) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


GONE = ValueError("this machine does not see /x")


@pytest.mark.parametrize(
    ("state", "result", "started", "status", "words"),
    [
        (Completed(), {"node": "c1"}, 2.0, Status.GREEN, "job 7 on c1: submitted after 1.0 s"),
        (Completed(), {"node": "c1"}, 2.0, Status.GREEN, "started after 2.0 s"),
        (Completed(), GONE, 2.0, Status.RED, "does not see /x"),
        (Failed(message="oh"), None, 2.0, Status.RED, "ended Failed: oh"),
        (Crashed(name="OutOfMemory"), None, 2.0, Status.RED, "hpc-bridge logs tidy-owl"),
        (Pending(name="Queued", message="Priority"), None, None, Status.YELLOW, "--wait"),
        (Running(), None, 2.0, Status.YELLOW, "hpc-bridge logs tidy-owl"),
    ],
)
def test_the_end(
    state: Any, result: Any, started: float | None, status: Status, words: str
) -> None:
    began = time.monotonic() - 3
    times = (began, began + 1, None if started is None else began + started)
    verdict = _judge(Future(result), state, "tidy-owl", times, "--queue")  # type: ignore[arg-type]
    assert verdict.status is status
    assert words in verdict.message + verdict.advice
