"""Whether an attempt may still speak for its flow run."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect._internal import control_listener
from prefect.exceptions import Abort, TerminationSignal
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Running
from prefect.utilities import engine

from hpc_bridge.journal import new_submission_id
from hpc_bridge.node import fence as module
from hpc_bridge.node import states
from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.fence import Fence
from hpc_bridge.node.states import Gate
from hpc_bridge.node.walltime import Notice

OWN = new_submission_id(1_000_000_000)
LATER = new_submission_id(1_000_000_001)
EARLIER = new_submission_id(999_999_999)


def attempt(tmp_path: Path, number: int = 0) -> Attempt:
    made = Attempt(tmp_path / OWN, 0, number)
    made.folder.mkdir(parents=True)
    return made


def flow_run(submission: str = OWN, run_count: int = 0, state: Any = None) -> Any:
    reference = f"slurm:7:{submission}"
    return SimpleNamespace(infrastructure_pid=reference, run_count=run_count, state=state)


def test_an_attempt_holds_its_claim_until_a_later_one_is_made(tmp_path: Path) -> None:
    fence = Fence(attempt(tmp_path), uuid4())
    assert fence.holds_claim() is True
    attempt(tmp_path, 1)
    assert fence.holds_claim() is False
    assert fence.replaced(None, False) == "a later start of this job has taken over"


def test_a_shared_directory_that_cannot_be_read_decides_nothing(tmp_path: Path) -> None:
    made = attempt(tmp_path)
    made.folder.parent.rename(tmp_path / "gone")
    fence = Fence(made, uuid4())
    assert fence.holds_claim() is None
    assert fence.replaced(None, None) is None


def test_a_shared_directory_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(module, "_LISTING_TIMEOUT", 0.05)
    monkeypatch.setattr(Attempt, "is_newest", lambda _: hanging.wait())
    fence = Fence(attempt(tmp_path), uuid4())
    try:
        assert [fence.holds_claim(), fence.holds_claim()] == [None, None]
        assert sum(thread.name.endswith("(_list)") for thread in threading.enumerate()) == 1
    finally:
        hanging.set()


@pytest.mark.parametrize(
    ("submission", "gone"),
    [(OWN, False), (EARLIER, False), (LATER, True)],
    ids=["own", "earlier", "later"],
)
def test_a_later_submission_of_the_flow_run_takes_over(
    tmp_path: Path, submission: str, gone: bool
) -> None:
    reason = Fence(attempt(tmp_path), uuid4()).replaced(flow_run(submission), True)
    assert (reason is not None) is gone
    assert not gone or f"job 7 ({LATER}) has taken over" == reason


def test_another_infrastructure_says_nothing(tmp_path: Path) -> None:
    other = SimpleNamespace(infrastructure_pid=None, run_count=0)
    assert Fence(attempt(tmp_path), uuid4()).replaced(other, True) is None  # type: ignore[arg-type]


def test_the_count_of_starts_decides_when_the_claims_cannot_be_read(tmp_path: Path) -> None:
    fence = Fence(attempt(tmp_path), uuid4())
    fence.count_from(flow_run(run_count=1))
    fence.count_start()
    assert fence.replaced(flow_run(run_count=2), None) is None
    assert fence.replaced(flow_run(run_count=3), None) is not None
    assert fence.replaced(flow_run(run_count=3), True) is None  # resumed from the dashboard


# what the engine proposes


class Left(Exception):
    """In the place of the process's end."""


class Server:
    """What a flow run is on the server, and what was proposed for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.fence = Fence(attempt(tmp_path), uuid4())
        self.gate = Gate(self.fence)
        self.flow_run = flow_run()
        self.proposed: list[Any] = []
        self.reads = 0
        monkeypatch.setenv("HPC_BRIDGE_REPORTS", str(tmp_path / "reports"))
        monkeypatch.setattr(states, "leave", self.leave)
        monkeypatch.setattr(engine, "propose_state_sync", self.propose)
        monkeypatch.setattr(control_listener, "_intent", None)

    def read_flow_run(self, _: Any) -> Any:
        self.reads += 1
        return self.flow_run

    def propose(self, _client: Any, state: Any, *, force: bool = False, **_: Any) -> Any:
        """As the server (Prefect 3.8): an end is covered by no crash that is not forced."""
        now = self.flow_run.state
        if now is not None and now.is_final() and state.is_crashed() and not force:
            raise Abort("Run is already in a terminal state")
        if now is not None and now.is_cancelling() and not force:
            return now
        self.proposed.append(state)
        return state

    def leave(self, reason: str) -> None:
        raise Left(reason)

    def set(self, state: Any, flow_run_id: Any = None) -> Any:
        return self.gate._propose_sync(self, state, flow_run_id or self.fence.flow_run_id)  # type: ignore[arg-type]

    def crash(self) -> Any:
        """As the engine does it."""
        state: Any = Crashed(message="Execution was aborted by a termination signal.")
        return self.gate._propose_sync(self, state, self.fence.flow_run_id, force=True)  # type: ignore[arg-type]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    return Server(monkeypatch, tmp_path)


def test_a_state_costs_one_read_of_the_flow_run(server: Server) -> None:
    server.set(Running())
    server.set(Completed())
    assert [state.name for state in server.proposed] == ["Running", "Completed"]
    assert server.reads == 2


@pytest.mark.parametrize("state", [Running(), Completed(), Crashed()], ids=lambda s: s.name)
def test_a_replaced_attempt_sets_no_state(server: Server, tmp_path: Path, state: Any) -> None:
    attempt(tmp_path, 1)
    with pytest.raises(Left):
        server.set(state)
    assert not server.proposed


def test_a_subflow_of_a_replaced_attempt_sets_none_either(server: Server, tmp_path: Path) -> None:
    server.set(Running(), uuid4())
    attempt(tmp_path, 1)
    with pytest.raises(Left):
        server.set(Completed(), uuid4())
    assert (len(server.proposed), server.reads) == (1, 0)


@pytest.mark.parametrize("now", [Crashed(name="NodeFail"), Cancelled()], ids=lambda s: s.name)
def test_an_end_that_is_told_is_not_covered_by_the_crash_that_it_brings(
    server: Server, now: Any
) -> None:
    server.flow_run.state = now
    assert server.crash() is now
    assert not server.proposed


@pytest.mark.parametrize("now", [Running(), Cancelling()], ids=lambda s: s.name)
def test_a_crash_is_told_as_the_engine_wants_it_while_there_is_no_end(
    server: Server, now: Any
) -> None:
    server.flow_run.state = now
    assert server.crash().is_crashed()
    assert [state.name for state in server.proposed] == ["Crashed"]


def test_a_later_attempt_begins_after_the_end_of_the_one_before(server: Server) -> None:
    server.flow_run.state = Crashed()
    server.set(Running())
    assert [state.name for state in server.proposed] == ["Running"]


def warned(tmp_path: Path, **what: Any) -> None:
    notice: dict[str, Any] = {"message": "m", "resubmit": False, "caught": False, "end": None}
    Notice(**notice | what).write(tmp_path / "reports")


def test_a_crash_by_the_warning_is_named_after_the_walltime(server: Server, tmp_path: Path) -> None:
    warned(tmp_path)
    server.gate.terminated()
    set_ = server.set(Crashed(message="Execution was aborted by a termination signal."))
    assert (set_.name, set_.message) == ("WalltimeExceeded", "m")


def test_only_a_crash_of_the_flow_itself_is_renamed(server: Server, tmp_path: Path) -> None:
    warned(tmp_path)
    assert server.set(Completed()).name == "Completed"
    assert server.set(Crashed(), uuid4()).name == "Crashed"


def test_a_crash_by_another_signal_keeps_its_name(server: Server, tmp_path: Path) -> None:
    server.gate.terminated()
    warned(tmp_path)
    assert server.set(Crashed()).name == "Crashed"


def test_a_cancel_after_a_warning_that_the_flow_caught_is_no_walltime(
    server: Server, tmp_path: Path
) -> None:
    warned(tmp_path, caught=True, end=4_000_000_000.0, resubmit=True)
    server.gate.terminated()
    assert server.set(Crashed()).name == "Crashed"


def test_a_termination_that_is_to_be_resubmitted_leaves_no_state_to_the_engine(
    server: Server, tmp_path: Path
) -> None:
    warned(tmp_path, resubmit=True)
    server.gate.terminated()
    assert control_listener.get_intent() == "reschedule"


def test_a_cancellation_is_not_turned_into_a_resubmission(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned(tmp_path, resubmit=True)
    monkeypatch.setattr(control_listener, "_intent", "cancel")
    server.gate.terminated()
    assert control_listener.get_intent() == "cancel"


def test_a_flow_that_catches_the_warning_and_leaves_is_resubmitted(
    server: Server, tmp_path: Path
) -> None:
    warned(tmp_path, caught=True, resubmit=True)
    with pytest.raises(TerminationSignal):
        server.set(Crashed(message="Execution was aborted by Python system exit call."))
    assert not server.proposed
    assert control_listener.get_intent() == "reschedule"


def test_leaving_ends_the_process_without_its_exit_handlers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(code: int) -> None:
        raise Left(str(code))

    monkeypatch.setattr(os, "_exit", ended)
    monkeypatch.setattr(module, "_LEAVING_TIMEOUT", 3600)
    with pytest.raises(Left, match="0"):
        module.leave("a later start of this job has taken over")
    assert "a later start of this job has taken over; leaving" in capsys.readouterr().out
