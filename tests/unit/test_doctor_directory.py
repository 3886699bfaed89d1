"""The doctor's look at the shared directory from the login side."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpc_bridge.doctor.directory import Room, check_directory, judge_files, judge_room, parse_room
from hpc_bridge.doctor.findings import Status
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.settings import load_settings

GIB = 1024**3


def subject(path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", str(path))
    return Subject(load_settings())


def test_a_good_one_is_made_and_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = check_directory(subject(tmp_path / "new", monkeypatch))
    assert verdict.status in (Status.GREEN, Status.YELLOW)  # this machine's disk may be full
    assert "keeps files private" in verdict.message
    assert list((tmp_path / "new" / "runs").iterdir()) == []


@pytest.mark.parametrize("path", ["missing/new", "file"])
def test_one_that_cannot_be_made_is_red(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    verdict = check_directory(subject(tmp_path / path, monkeypatch))
    assert verdict.status is Status.RED
    assert "set HPC_BRIDGE_SHARED_DIR to a folder of yours" in verdict.advice


def test_one_that_others_can_write_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    verdict = check_directory(subject(tmp_path, monkeypatch))
    assert verdict.status is Status.RED
    assert f"chmod go-w {tmp_path}" in verdict.message


def test_a_full_one_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    verdict = check_directory(subject(tmp_path / "new", monkeypatch))
    assert verdict.status is Status.RED
    assert "is full" in verdict.message
    assert list((tmp_path / "new" / "runs").iterdir()) == []


SPACE = """\
Filesystem     1024-blocks      Used Available Capacity Mounted on
/dev/vda1         61255492  40000000  5242880      89% /
"""
INODES = """\
Filesystem      Inodes   IUsed   IFree IUse% Mounted on
/dev/vda1      3932160 1000000 2932160   26% /
"""


@pytest.mark.parametrize(
    ("answer", "room"),
    [
        (SPACE + INODES, Room(5 * GIB, 2932160)),
        (SPACE + INODES.replace(" 2932160 ", " 0 ").replace("26%", "-"), Room(5 * GIB, None)),
        (SPACE, Room(5 * GIB, None)),
        ("", None),
        ("df: /x: No such file or directory", None),
        (SPACE.replace("5242880", "-"), None),
    ],
)
def test_what_df_says_is_room(answer: str, room: Room | None) -> None:
    assert parse_room(answer) == room


@pytest.mark.parametrize(
    ("mode", "links", "status"),
    [
        (0o600, True, Status.GREEN),
        (0o777, True, Status.RED),
        (0o640, True, Status.RED),
        (0o600, False, Status.RED),
    ],
)
def test_a_file_system_must_have_permissions_and_links(
    mode: int, links: bool, status: Status
) -> None:
    assert judge_files(Path("/x"), mode, links, "set it").status is status


@pytest.mark.parametrize(
    ("room", "status"),
    [
        (Room(20 * GIB, None), Status.GREEN),
        (Room(20 * GIB, 1_000_000), Status.GREEN),
        (Room(GIB // 2, None), Status.YELLOW),
        (Room(20 * GIB, 10), Status.YELLOW),
    ],
)
def test_little_room_is_yellow(room: Room, status: Status) -> None:
    verdict = judge_room(room, "set it")
    assert verdict.status is status
    assert ("hpc-bridge clean" in verdict.advice) == (status is Status.YELLOW)


def test_the_file_systems_numbers_are_this_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: Any = SimpleNamespace(f_bavail=5, f_bfree=10**9, f_frsize=1024**2, f_files=0)
    monkeypatch.setattr(os, "statvfs", lambda _: numbers)
    assert "only 5 MiB free" in check_directory(subject(tmp_path / "new", monkeypatch)).message
