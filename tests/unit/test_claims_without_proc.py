"""Which process is which, on a machine that has no /proc."""

from __future__ import annotations

import os
import socket
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from hpc_bridge.tracking import holders as module
from tests.waiting import until


@pytest.fixture(autouse=True)
def _as_on_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No /proc, a sysctl that knows when the machine started, and a ps as everywhere."""
    sysctl = tmp_path / "bin" / "sysctl"
    sysctl.parent.mkdir()
    sysctl.write_text("#!/bin/sh\necho '{ sec = 1700000000, usec = 7 } Tue Nov 14 22:13:20 2023'\n")
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sysctl.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "_PROC", tmp_path / "proc")


def test_without_proc_the_machine_and_its_start_are_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert module.place() == f"{socket.gethostname()}/{{ sec = 1700000000"
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    assert module.place() == "other/{ sec = 1700000000"


def test_without_proc_ps_tells_when_a_process_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        began = module.pid_started(process.pid)
        assert began is not None
        assert datetime.strptime(began, "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        assert module.pid_started(process.pid) == began
        process.kill()
        # It is a zombie as long as nobody asks for its end.
        until(lambda: module.pid_started(process.pid) is None, 10, "the end")
    assert module.pid_started(process.pid) is None
