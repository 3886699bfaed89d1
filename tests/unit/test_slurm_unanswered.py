"""Slurm's daemons that do not answer, and commands that fail or are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hpc_bridge.errors import CommandError, CommandNotFound, HPCBridgeError, SchedulerUnavailable
from hpc_bridge.schedulers.base import Answer
from tests.unit.slurm_answers import SLURM, VERSIONS, answer, printed, queued

PARSERS: dict[str, Callable[[Answer], Any]] = {
    "status": SLURM.parse_status,
    "history": SLURM.parse_history,
    "submit": SLURM.parse_submit,
    "scancel": SLURM.parse_cancel,
    "queues": SLURM.parse_queues,
    "find": SLURM.parse_find,
    "usage": SLURM.parse_usage,
}

UNANSWERED = [
    *("status-controller-dead", "status-controller-hung"),
    *("submit-controller-dead", "submit-controller-hung"),
    *("scancel-controller-dead", "scancel-controller-hung"),
    *("queues-controller-dead", "queues-controller-hung"),
    *("history-accounting-dead", "history-accounting-hung"),
]


def test_usage_that_cannot_be_asked_for_may_be_asked_again() -> None:
    for name in ("history-accounting-dead", "history-accounting-hung"):
        with pytest.raises(SchedulerUnavailable):
            SLURM.parse_usage(answer("24.11", name))


@pytest.mark.parametrize("name", UNANSWERED)
def test_no_answer_from_a_daemon_may_be_tried_again(name: str) -> None:
    for version in VERSIONS:
        given = answer(version, name)
        with pytest.raises(SchedulerUnavailable) as caught:
            PARSERS[name.split("-")[0]](given)
        assert caught.value.retryable
        assert given.stderr.strip() in str(caught.value)


@pytest.mark.parametrize("exit_code", [-9, 137])
def test_a_command_that_was_killed_leaves_open_whether_there_is_a_job(exit_code: int) -> None:
    with pytest.raises(SchedulerUnavailable, match="killed before it answered"):
        SLURM.parse_submit(Answer(("sbatch",), exit_code, "", ""))


@pytest.mark.parametrize("kind", PARSERS)
def test_a_missing_command_says_what_to_do(kind: str) -> None:
    for version in VERSIONS:
        missing = answer(version, "submit-command-missing")
        with pytest.raises(CommandNotFound, match="HPC_BRIDGE_SCHEDULER=local") as caught:
            PARSERS[kind](missing)
        assert "a login node" in str(caught.value)
        assert (caught.value.exit_code, caught.value.retryable) == (127, False)


@pytest.mark.parametrize("kind", ["status", "history", "queues", "find", "usage"])
def test_a_failed_query_is_never_an_empty_answer(kind: str) -> None:
    failed = Answer((kind,), 1, "", "")
    with pytest.raises(CommandError, match="no message") as caught:
        PARSERS[kind](failed)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("kind", ["status", "history", "find"])
def test_what_a_failed_query_printed_is_not_used(kind: str) -> None:
    with pytest.raises(HPCBridgeError):
        PARSERS[kind](printed(queued(), exit_code=1, stderr="Invalid user"))
