"""The warning before the walltime: when it is handed on, and what becomes of the flow."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from hpc_bridge.node.records import WARNED
from tests.unit.supervised import DONE, FINISH, POISON, WAIT, Node, given, say


def test_the_warning_reaches_a_flow_that_catches_it(tmp_path: Path) -> None:
    command = f"{FINISH}; trap 'echo warned; finish; exit 5' USR1; {WAIT}"
    node = Node(tmp_path, command, spec={"warning": "USR1@60"})
    assert node.run_signalled(signal.SIGUSR1)[:2] == (5, "warned\n")
    assert not node.record().terminated


# bash may keep a signal that comes just before its `wait`; Python does not.
_ENDING = """
import os, signal, sys, time
from hpc_bridge.node.reports import report
def end(*_):
    os.write(1, b"ended\\n")
    report(flow_state="CRASHED")
    sys.exit(6)
signal.signal(signal.SIGTERM, end)
os.write(1, b"ready\\n")
time.sleep(20)
"""
ENDING = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(_ENDING)}"
HOUR = {"warning": "USR1@60", "walltime": "01:00:00"}


def test_the_warning_ends_a_flow_that_does_not_catch_it(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec={"warning": "USR1@60"})
    assert node.run_signalled(signal.SIGUSR1)[:2] == (6, "ended\n")
    assert node.record().cause == "WalltimeExceeded"
    assert "warning signal" in node.record().message  # whose end nobody has told it


def test_a_warning_at_its_time_says_what_was_asked_for(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 60)
    code, _, stderr = node.run_signalled(signal.SIGUSR1)
    record = node.record()
    assert (code, record.cause, record.resubmit) == (6, "WalltimeExceeded", False)
    assert "s before the end of the walltime of 01:00:00. Ask for a longer" in record.message
    assert given(stderr).message == record.message
    assert f"hpc-bridge: {record.message}" in stderr


def test_a_warning_that_comes_too_early_is_kept_until_its_time(tmp_path: Path) -> None:
    """Slurm sends it up to a minute before it is due."""
    end = int(time.time()) + 63
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(end)
    assert node.run_signalled(signal.SIGUSR1)[0] == 6
    assert time.time() >= end - 60


def test_a_flow_that_is_done_before_a_kept_warning_is_due_never_gets_it(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{DONE}; echo ready; read -t 0.5 < <(sleep 1); exit 0", spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 120)
    assert node.run_signalled(signal.SIGUSR1)[0] == 0
    assert (node.record().cause, node.record().signal) == ("", None)


def test_a_warning_whose_end_was_moved_forward_is_handed_on_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 3600)
    started = time.monotonic()
    assert node.run_signalled(signal.SIGUSR1)[0] == 6
    assert time.monotonic() - started < 10
    assert node.record().message == WARNED  # it may also be a preemption


def test_a_termination_is_not_kept_with_the_warning(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 120)
    assert node.run_signalled(signal.SIGUSR1, signal.SIGTERM)[0] == 6
    assert (node.record().cause, node.record().terminated) == ("", True)


def test_a_flow_that_does_not_end_when_warned_is_killed_in_time_to_say_so(tmp_path: Path) -> None:
    node = Node(tmp_path, f"trap '' TERM; {WAIT}", spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 4)
    code, _, stderr = node.run_signalled(signal.SIGUSR1)
    assert time.time() < int(node.job["SLURM_JOB_END_TIME"])
    assert (code, node.record().signal, node.record().cause) == (137, 9, "WalltimeExceeded")
    assert "of its warning before the walltime; killing it" in stderr
    assert given(stderr) == node.record()


def resubmitting(tmp_path: Path, command: str, done: int = 0) -> Node:
    spec = HOUR | {"on_walltime": "resubmit", "max_resubmissions": 3}
    return Node(tmp_path, command, spec=spec, resubmissions=done)


def test_a_flow_that_dies_of_the_warning_is_to_go_on_in_a_new_job(tmp_path: Path) -> None:
    node = resubmitting(tmp_path, "echo ready; exec sleep 20", done=2)
    _, _, stderr = node.run_signalled(signal.SIGUSR1)
    record = node.record()
    assert (record.cause, record.resubmit) == ("WalltimeExceeded", True)
    assert record.message.startswith("Resubmission 3 of at most 3: the walltime of 01:00:00")
    assert given(stderr).resubmit  # for the process that reports it


def test_the_last_resubmission_ends_by_its_walltime(tmp_path: Path) -> None:
    node = resubmitting(tmp_path, "echo ready; exec sleep 20", done=3)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 60)
    node.run_signalled(signal.SIGUSR1)
    record = node.record()
    assert (record.cause, record.resubmit) == ("WalltimeExceeded", False)
    assert "resubmitted as often as max_resubmissions=3 allows" in record.message


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
def test_a_flow_that_ended_by_itself_does_not_go_on(tmp_path: Path, state: str) -> None:
    end = f"end() {{ {say(flow_state=state)}; }}"
    node = resubmitting(tmp_path, f"{end}; trap 'end; exit 1' USR1; {WAIT}")
    _, _, stderr = node.run_signalled(signal.SIGUSR1)
    assert (node.record().cause, node.record().resubmit) == ("", False)
    assert POISON not in stderr


def test_a_flow_that_is_cancelled_after_its_warning_does_not_go_on(tmp_path: Path) -> None:
    node = resubmitting(tmp_path, "trap '' TERM; echo ready; exec sleep 20")
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 9)
    node.run_signalled(signal.SIGUSR1, signal.SIGTERM)
    record = node.record()
    assert (record.signal, record.terminated, record.resubmit) == (9, True, False)


@pytest.mark.parametrize(("left", "cause"), [(30, "WalltimeExceeded"), (600, ""), (-5, "")])
def test_a_termination_that_was_asked_for_as_the_warning_is_one_at_its_time(
    tmp_path: Path, left: int, cause: str
) -> None:
    node = Node(tmp_path, "echo ready; exec sleep 20", spec=HOUR | {"warning": "TERM@30"})
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + left)
    assert node.run_signalled(signal.SIGTERM)[0] == 143
    record = node.record()
    assert (record.cause, record.terminated) == (cause, True)
    assert ("before the end of the walltime of 01:00:00" in record.message) == bool(cause)


def test_a_warning_that_came_before_the_supervisor_is_taken(tmp_path: Path) -> None:
    node = Node(tmp_path, "exec sleep 20", spec={"warning": "USR1@60"})
    node.arguments = ["HUP", "USR1"]
    assert node.run()[0] in (128 + signal.SIGHUP, 128 + signal.SIGTERM)
    assert node.record().cause == "WalltimeExceeded"


def test_a_flow_that_finishes_after_its_warning_has_no_cause_of_failure(tmp_path: Path) -> None:
    command = f"{FINISH}; trap 'finish; exit 0' USR1; {WAIT}"
    node = Node(tmp_path, command, spec={"warning": "USR1@60"})
    code, _, stderr = node.run_signalled(signal.SIGUSR1)
    assert (code, node.record().flow_state, node.record().cause) == (0, "COMPLETED", "")
    assert POISON not in stderr


def test_a_signal_that_is_not_the_warning_explains_nothing(tmp_path: Path) -> None:
    command = f"{FINISH}; trap 'finish; exit 5' USR2; {WAIT}"
    node = Node(tmp_path, command, spec={"warning": "USR1@60"})
    assert node.run_signalled(signal.SIGUSR2)[0] == 5
    assert node.record().cause == ""


def test_a_termination_is_never_taken_for_the_warning(tmp_path: Path) -> None:
    """It may be a cancellation or a preemption."""
    node = Node(
        tmp_path, f"{FINISH}; trap 'finish; exit 5' TERM; {WAIT}", spec={"warning": "TERM@60"}
    )
    assert node.run_signalled(signal.SIGTERM)[0] == 5
    assert (node.record().cause, node.record().terminated) == ("", True)
