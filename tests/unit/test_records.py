"""The exit record: whole or not at all, and what a crash leaves of it is no record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpc_bridge.node.records import ExitRecord, read_exit_record, write_exit_record

RECORD = ExitRecord(job_id="42", node="c1", exit_code=3, message="caf\u00e9")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exit.json"


def test_a_record_survives_its_file(path: Path) -> None:
    write_exit_record(path, RECORD)
    assert read_exit_record(path) == RECORD


def test_there_may_be_no_record(path: Path) -> None:
    assert read_exit_record(path) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\0" * 300, b'{"exit_code": 3', b'{"exit_code": 3}\0\0', b"\xff\xfe{}"],
)
def test_what_a_nodes_crash_leaves_is_no_record(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_exit_record(path) is None


@pytest.mark.parametrize("content", ["null", "[]", "7", '"text"', "[[1, 2]]", "true"])
def test_what_is_no_object_is_no_record(path: Path, content: str) -> None:
    path.write_text(content)
    assert read_exit_record(path) is None


def test_a_newer_versions_fields_are_left_out(path: Path) -> None:
    path.write_text(json.dumps({"exit_code": 3, "weather": "fine"}))
    assert read_exit_record(path) == ExitRecord(exit_code=3)


def test_a_record_reaches_the_disk_before_it_has_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_exit_record(path, ExitRecord(exit_code=1))
    seen: list[tuple[int | None, bool]] = []

    def fsync(descriptor: int) -> None:
        known = read_exit_record(path)
        written = Path(f"/proc/self/fd/{descriptor}").read_text()
        seen.append((known.exit_code if known else None, json.loads(written)["exit_code"] == 3))

    monkeypatch.setattr(os, "fsync", fsync)
    write_exit_record(path, RECORD)
    assert seen == [(1, True)]
    assert read_exit_record(path) == RECORD
    assert [left.name for left in path.parent.iterdir()] == ["exit.json"]


def test_a_disk_that_fails_leaves_the_earlier_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError("input/output error")

    write_exit_record(path, RECORD)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="input/output"):
        write_exit_record(path, ExitRecord())
    assert read_exit_record(path) == RECORD


def test_every_field_of_a_record_survives_its_file(tmp_path: Path) -> None:
    record = ExitRecord(
        job_id="42",
        node="c1",
        stage="flow",
        exit_code=137,
        signal=9,
        cause="WalltimeExceeded",
        message='line\n"two" ü',
        flow_state="CRASHED",
        terminated=True,
        started="2026-11-21T05:00:00+00:00",
        ended="2026-11-21T05:00:01+00:00",
    )
    path = tmp_path / "exit.json"
    write_exit_record(path, record)
    assert read_exit_record(path) == record
    assert list(tmp_path.iterdir()) == [path]


def test_fields_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "exit.json"
    path.write_text(json.dumps({"format": 2, "exit_code": 3, "peak_memory": 17}))
    assert read_exit_record(path) == ExitRecord(format=2, exit_code=3)


def test_fields_that_are_missing_have_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "exit.json"
    path.write_text("{}")
    assert read_exit_record(path) == ExitRecord()
