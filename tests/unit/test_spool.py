"""Bundles wait on this machine for the submission that brings them to a cluster elsewhere."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from hpc_bridge.errors import SharedDirectoryError
from hpc_bridge.storage import spool

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they wait."""
    monkeypatch.setattr(spool, "machine_folder", lambda: tmp_path)
    return tmp_path / "spool"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "packed.zip"
    path.write_bytes(b"PK")
    path.chmod(0o644)
    return path


def test_a_bundle_is_kept_until_it_is_dropped(folder: Path, archive: Path) -> None:
    spool.keep("one", b"{}", archive)
    spool.keep("two", b"[]", None)
    content = spool.content("one")
    assert {name: path.read_bytes() for name, path in content.items()} == {
        "bundle.json": b"{}",
        "files.zip": b"PK",
    }
    assert list(spool.content("two")) == ["bundle.json"]
    spool.drop("one")
    assert spool.content("one") == {}
    assert list(spool.content("two")) == ["bundle.json"]
    assert archive.exists()


def test_nobody_else_reads_what_waits(folder: Path, archive: Path) -> None:
    spool.keep("one", b"{}", archive)
    assert {path.stat().st_mode & 0o777 for path in (folder / "one").iterdir()} == {0o600}
    assert (folder / "one").stat().st_mode & 0o777 == 0o700


def test_a_disk_that_is_full_is_said_in_words_and_nothing_is_left(
    folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(SharedDirectoryError, match=r"spool.*No space left.*TMPDIR") as raised:
        spool.keep("one", b"{}", archive)
    assert str(folder) in str(raised.value)
    assert list(folder.iterdir()) == []


def test_what_never_was_here_is_empty_and_dropped_without_a_word(folder: Path) -> None:
    assert spool.content("none") == {}
    spool.drop("none")


def test_what_a_dead_process_has_left_is_forgotten_after_a_day(folder: Path) -> None:
    for key, age in (("old", 25 * HOUR), ("young", 23 * HOUR)):
        spool.keep(key, b"{}", None)
        moment = time.time() - age
        os.utime(folder / key, (moment, moment))
    spool.keep("new", b"{}", None)
    assert sorted(path.name for path in folder.iterdir()) == ["new", "young"]
