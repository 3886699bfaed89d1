"""Signals that the supervisor hands on to the flow."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.unit.supervised import DEADLINE, DONE, FINISH, WAIT, Node


def test_a_termination_is_forwarded_and_recorded(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{FINISH}; trap 'finish; exit 9' TERM; {WAIT}")
    assert node.run_signalled(signal.SIGTERM)[0] == 9
    assert (node.record().exit_code, node.record().terminated) == (9, True)


@pytest.mark.parametrize("name", ["INT", "HUP", "USR1", "USR2"])
def test_other_signals_are_forwarded_too(tmp_path: Path, name: str) -> None:
    node = Node(tmp_path, f"{FINISH}; trap 'finish; exit 9' {name}; {WAIT}")
    assert node.run_signalled(signal.Signals[f"SIG{name}"])[0] == 9
    assert not node.record().terminated


def test_a_flow_that_dies_of_the_termination_is_recorded_as_terminated(tmp_path: Path) -> None:
    node = Node(tmp_path, "echo ready; exec sleep 20")
    assert node.run_signalled(signal.SIGTERM)[0] == 143
    assert (node.record().signal, node.record().terminated) == (15, True)


@pytest.mark.parametrize(("name", "cause"), [("TERM", ""), ("USR1", "WalltimeExceeded")])
def test_a_signal_before_the_flow_exists_is_handed_on_once_it_does(
    tmp_path: Path, name: str, cause: str
) -> None:
    node = Node(tmp_path, "exec sleep 20", spec={"warning": "USR1@60"})
    env = node.run_dir / "env"
    env.unlink()
    os.mkfifo(env)
    with node.started() as process:
        with env.open("wb"):  # it listens for signals, and reads this before the flow starts
            process.send_signal(signal.Signals[f"SIG{name}"])
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 143
    record = node.record()
    assert (record.stage, record.signal, record.cause) == ("flow", 15, cause)
    assert record.terminated is (name == "TERM")


def ignored(status: str) -> set[int]:
    """Signals that a process ignores, from its /proc/PID/status."""
    (line,) = [line for line in status.splitlines() if line.startswith("SigIgn:")]
    mask = int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_a_flow_in_a_job_of_the_shell_is_not_deaf_to_interrupts(tmp_path: Path) -> None:
    """bash starts what it puts into the background with SIGINT ignored, and children inherit it."""
    node = Node(tmp_path, f"{DONE}; exec cat /proc/self/status")
    # as the job script does it
    code, stdout, _ = node.run("bash", "-c", '"$@" & wait "$!"', "bash")
    assert code == 0
    assert not ignored(stdout) & {signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1}
