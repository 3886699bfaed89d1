"""The counters of commands and logins that all processes of one user keep together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hpc_bridge import load
from tests.unit.restrictions import no_file_longer_than


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    load.flush()  # what other tests have counted is theirs
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"hpc-bridge-{os.getuid()}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1_800_000_000.0]
    monkeypatch.setattr(load.time, "time", lambda: moment[0])
    return moment


def test_commands_are_counted_by_kind_and_place() -> None:
    for kind in ("status", "status", "submit"):
        load.count("slurm-a", kind)
    load.count("slurm-b", "status")
    assert load.recent() == {"login": 0, "status": 3, "submit": 1}
    assert load.recent(place="slurm-b") == {"login": 0, "status": 1}


def test_without_any_there_are_no_logins() -> None:
    assert load.recent() == {"login": 0}


def test_logins_are_counted_by_host() -> None:
    load.count_login("login/../1.site")
    load.count_login("login2")
    assert load.recent(place="slurm-a") == {"login": 2}


def test_only_the_last_hours_count(clock: list[float]) -> None:
    load.count("a", "status")
    clock[0] += 3000
    load.count("a", "status")
    assert load.recent()["status"] == 2
    clock[0] += 900
    assert load.recent()["status"] == 1
    assert load.recent(hours=2)["status"] == 2


def test_a_day_is_kept(clock: list[float], folder: Path) -> None:
    load.count("a", "status")
    load.flush()
    clock[0] += 24 * 3600
    load.count("a", "submit")
    assert load.recent(hours=100) == {"login": 0, "submit": 1}
    assert len(json.loads((folder / "load-a.json").read_text())["minutes"]) == 1


def test_counting_is_cheap(folder: Path) -> None:
    """The disk is touched once in a few seconds."""
    load.count("a", "status")
    path = folder / "load-a.json"
    load.flush()
    before = path.stat().st_mtime_ns
    for _ in range(1000):
        load.count("a", "status")
    assert path.stat().st_mtime_ns == before
    assert load.recent()["status"] == 1001


PROGRAM = """
import os, sys
from hpc_bridge import load
for _ in range(int(sys.argv[1])):
    load.count("a", "status")
if os.fork() == 0:
    sys.exit()
os.wait()
"""


def test_processes_add_up_and_count_at_their_end(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    commands = [[sys.executable, "-c", PROGRAM, str(n)] for n in (5, 7, 11)]
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    # Of this place: a thread that an earlier test has left may count, too.
    assert load.recent(place="a")["status"] == 23  # and none twice by a child


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'{"format": 2}', b'{"format": 1, "minutes": {"x": 1}}', b'{"format": 1}'],
)
def test_a_damaged_file_is_begun_anew(folder: Path, content: bytes) -> None:
    folder.mkdir(mode=0o700)
    (folder / "load-a.json").write_bytes(content)
    load.count("a", "status")
    assert load.recent()["status"] == 1


def test_a_full_disk_is_no_error() -> None:
    with no_file_longer_than(0):
        load.count("a", "status")
        load.flush()
    assert load.recent() == {"login": 0}


def test_a_folder_of_somebody_else_is_no_error(folder: Path) -> None:
    folder.write_text("a file")
    load.count("a", "status")
    assert load.recent() == {"login": 0}
