"""Commands of this machine: their answers, their ends, and what they may see."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpc_bridge.errors import CommandError, CommandTimeout
from hpc_bridge.transports.base import Completed
from hpc_bridge.transports.local import LocalTransport
from tests.waiting import until

TRANSPORT = LocalTransport()


def shell(script: str, timeout: float = 20.0) -> Completed:
    return TRANSPORT.run(["bash", "-c", script], timeout=timeout)


def test_a_command_leaves_its_exit_code_and_output() -> None:
    script = r"printf 'caf\xe9 '; cat; echo why >&2; exit 3"
    done = TRANSPORT.run(["bash", "-c", script], stdin="ü".encode(), timeout=20)
    assert done == Completed(3, "caf\ufffd ü", "why\n")


def test_no_shell_reads_the_words() -> None:
    assert TRANSPORT.run(["echo", "$HOME;", "*"], timeout=20).stdout == "$HOME; *\n"


def test_what_an_outer_job_leaves_behind_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_CONF", "SQUEUE_FORMAT", "OTHER"):
        monkeypatch.setenv(name, "x")
    done = TRANSPORT.run(["env"], timeout=20, unset=["SLURM_*", "SQUEUE_*"])
    seen = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert seen & {"SLURM_JOB_ID", "SLURM_CONF", "SQUEUE_FORMAT", "OTHER"} == {
        "SLURM_CONF",
        "OTHER",
    }


# what does not start


def test_a_command_that_does_not_exist_is_127() -> None:
    done = TRANSPORT.run(["no-such-command", "x"], timeout=20)
    assert done == Completed(127, "", "no-such-command: command not found")


def test_a_machine_that_cannot_start_it_now_may_be_asked_again(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch(mode=0o600)
    with pytest.raises(CommandError, match=f"^{plain} cannot be started: Permission") as caught:
        TRANSPORT.run([str(plain), "x"], timeout=20)
    assert caught.value.retryable
    assert caught.value.command == [str(plain), "x"]


# what does not end


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"echo last words >&2; sleep 60 & echo $$ $! > {pids}; wait"
    with pytest.raises(CommandTimeout, match=r"^no answer within 1 s from: bash -c") as caught:
        shell(script, timeout=1.0)
    assert (caught.value.stderr, caught.value.retryable) == ("last words\n", True)
    for pid in pids.read_text().split():
        until(lambda pid=pid: _is_gone(pid), 10, f"{pid} has ended")


def test_what_has_left_and_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    """A daemon that the command started, for instance."""
    leave = tmp_path / "leave"
    left = f"setsid bash -c 'until [ -e {leave} ]; do sleep 0.1; done' &"
    started = time.monotonic()
    with pytest.raises(CommandTimeout):
        shell(f"{left} sleep 60", timeout=1.0)
    assert time.monotonic() - started < 15
    leave.touch()


def _is_gone(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
