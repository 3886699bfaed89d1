"""Signals that reach a job script while it runs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hpc_bridge.script import quote
from tests.unit.rendered_scripts import Job
from tests.waiting import until

WAIT = "print('ready', flush=True)\nsignal.alarm(20)\nwhile True: signal.pause()\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2"])
def test_a_signal_reaches_the_supervisor_whose_exit_code_is_the_jobs(
    tmp_path: Path, name: str
) -> None:
    # bash leaves INT ignored in what it starts in the background; the supervisor sets its own.
    waiting = f"import signal, sys\nsignal.signal(signal.SIG{name}, lambda *_: sys.exit(7))\n"
    job = Job(tmp_path, f"exec python3 -c {quote(waiting + WAIT)}")
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        process.communicate(timeout=20)
    assert process.returncode == 7
    assert job.record().exit_code == 7


def asleep(pid: int) -> bool:
    """Whether the process sleeps in a system call (proc(5), state S)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_signal_that_the_supervisor_survives_does_not_end_the_job(tmp_path: Path) -> None:
    waiting = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'again\\n'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    )
    job = Job(tmp_path, f"exec python3 -c {quote(waiting + WAIT)}")
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            # Between two calls of `wait` bash keeps a signal until the next one.
            until(lambda: asleep(process.pid), 10, "bash waits")
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.readline() == "again\n"
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_supervisor_that_dies_of_a_signal_is_128_and_the_signal(tmp_path: Path) -> None:
    job = Job(tmp_path, "kill -KILL $$")
    assert job.run()[0] == 137
    assert job.record().exit_code == 137


PREPARE = ["echo ready", "until [ -e prepared ]; do read -rt 0.05 < <(:) || :; done"]


def test_a_termination_during_setup_ends_the_job_with_a_record(tmp_path: Path) -> None:
    job = Job(tmp_path, setup=PREPARE)
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 143
    record = job.record()
    assert (record.stage, record.exit_code, record.cause) == ("setup", 143, "")


@pytest.mark.parametrize("name", ["INT", "HUP", "USR1", "USR2"])
def test_another_signal_does_not_end_the_setup_and_is_kept(tmp_path: Path, name: str) -> None:
    """In a short job it is the warning before the walltime."""
    job = Job(tmp_path, 'echo "${@:7}"', setup=[*PREPARE, "echo prepared"])
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        (job.folder / "prepared").touch()
        assert process.stdout.readline() == "prepared\n"
        assert process.stdout.readline() == f"{name}\n"
        process.communicate(timeout=20)
    assert (process.returncode, job.record().stage) == (0, "python")
