"""Files of this machine through a transport: what holds over SSH holds here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_bridge.errors import NoSuchFile, TransferFailed
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.local import LocalTransport

HERE = LocalTransport()
MIB = 2**20


def test_files_are_private_and_come_back(tmp_path: Path) -> None:
    folder, program = tmp_path / "new" / "er", tmp_path / "program"
    program.write_bytes(os.urandom(MIB))
    program.chmod(0o755)
    HERE.put(Files(str(folder), {"x": b"old", "sub/program": program}))
    HERE.put(Files(str(folder), {"x": b"new"}))
    paths = (folder.parent, folder, folder / "x", folder / "sub/program")
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o700, 0o700, 0o600, 0o700]
    assert HERE.get(f"{folder}/x") == b"new"
    assert (HERE.read_from(f"{folder}/x", 1, 1), HERE.read_from(f"{folder}/x", 9, 9)) == (b"e", b"")
    HERE.get_file(f"{folder}/sub/program", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == program.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["sub", "x"]


def test_trees_travel_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "x").write_bytes(os.urandom(MIB))
    (source / "link").symlink_to("sub/x")
    HERE.put_tree(source, str(tmp_path / "there"))
    HERE.get_tree(str(tmp_path / "there"), tmp_path / "back")
    assert subprocess.run(["diff", "-r", source, tmp_path / "back"]).returncode == 0
    assert (tmp_path / "back/link").is_symlink()
    with pytest.raises(TransferFailed, match="exists already"):
        HERE.put_tree(source, str(tmp_path / "there"))


def test_what_fails_leaves_what_was(tmp_path: Path) -> None:
    HERE.put(Files(str(tmp_path), {"x": b"old"}))
    with pytest.raises(TransferFailed):
        HERE.put(Files(str(tmp_path), {"x": tmp_path / "none"}))
    with pytest.raises(TransferFailed, match="is not a name below"):
        HERE.put(Files(str(tmp_path), {"../y": b""}))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_what_is_not_there_is_no_such_file(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    for read in (HERE.get, lambda path: HERE.read_from(path, 0, 1)):
        with pytest.raises(NoSuchFile, match="there is no file"):
            read(none)
    with pytest.raises(FileNotFoundError):
        HERE.get_tree(none, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_files_come_before_the_command(tmp_path: Path) -> None:
    files = Files(str(tmp_path / "run"), {"x": b"content"})
    done = HERE.run(["cat", f"{tmp_path}/run/x", "-"], stdin=b"!", timeout=20, files=files)
    assert done.stdout == "content!"


def test_input_may_be_made_while_it_is_sent() -> None:
    chunks = (bytes(MIB) for _ in range(16))
    assert HERE.run(["wc", "-c"], stdin=chunks, timeout=20).stdout == f"{16 * MIB}\n"
    many = (b"x" * MIB for _ in range(16))
    assert HERE.run(["head", "-c", "3"], stdin=many, timeout=20).stdout == "xxx"


def test_input_that_cannot_be_made_is_the_callers_error() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        HERE.run(["cat"], stdin=broken(), timeout=20)


def test_progress_is_told_of_what_is_large(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    large = Files(str(tmp_path), {"x": bytes(9 * MIB)})
    HERE.put(large, progress=lambda *figures: told.append(figures))
    assert told[-1] == (9 * MIB, 9 * MIB)
    with HERE:
        assert HERE.check() == []
