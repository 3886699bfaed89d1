"""The shared directory: modes, owners, errors in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_bridge.errors import InvalidJobSpec, NotOwned, SharedDirectoryError
from hpc_bridge.journal import (
    RunDirectory,
    check_owner,
    prepare_shared_directory,
    shared_directory_errors,
)
from hpc_bridge.storage.cluster_files import HERE
from tests.unit.restrictions import NOBODY, as_nobody, file_mode_mask

# modes


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_everything_belongs_to_the_account_alone_whatever_the_umask(
    tmp_path: Path, mask: int
) -> None:
    with file_mode_mask(mask):
        run = RunDirectory.create(prepare_shared_directory(tmp_path / "shared"), "hbabc")
        run.write("env", b"TOKEN=secret\0")
        run.write_submission({"spec": {}})
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "shared").rglob("*.json")}
    folders = [tmp_path / "shared", *(path for path in run.path.parents if path.name == "runs")]
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in [*folders, run.path]} == {0o700}
    assert (run.path / "env").stat().st_mode & 0o777 == 0o600


def test_preparing_again_changes_nothing(shared: Path) -> None:
    (shared / "runs" / "kept").mkdir()
    assert prepare_shared_directory(shared) == shared
    assert sorted(path.name for path in shared.iterdir()) == [
        "bundles",
        "live",
        "results",
        "runs",
    ]
    assert (shared / "runs" / "kept").is_dir()


@pytest.mark.parametrize("name", ["runs", "live", "bundles", "results"])
def test_a_file_in_the_place_of_a_folder_is_said(shared: Path, name: str) -> None:
    (shared / name).rmdir()
    (shared / name).touch()
    with pytest.raises(SharedDirectoryError, match=f"is not a folder.*{name}"):
        prepare_shared_directory(shared)


# errors in words


def missing(folder: Path) -> Path:
    return folder / "no" / "such"


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "shared"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (missing, "does not exist; create it or set HPC_BRIDGE_SHARED_DIR"),
        (a_file, "is not a folder; set HPC_BRIDGE_SHARED_DIR"),
        (below_a_file, "is not a folder; set HPC_BRIDGE_SHARED_DIR"),
    ],
)
def test_a_shared_directory_that_cannot_be_is_named(
    tmp_path: Path, place: Callable[[Path], Path], words: str
) -> None:
    path = place(tmp_path)
    with pytest.raises(SharedDirectoryError, match=f"^the shared directory {path} {words}"):
        prepare_shared_directory(path)


def test_a_shared_directory_below_a_folder_of_others_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    path = tmp_path / "shared"
    with (
        as_nobody(),
        pytest.raises(SharedDirectoryError, match=f"^the shared directory {path} is not writable"),
    ):
        prepare_shared_directory(path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full; free some space there or set HPC_BRIDGE_SHARED_DIR"),
        (errno.EDQUOT, "is over quota; free some space there or set HPC_BRIDGE_SHARED_DIR"),
        (errno.EACCES, "is not writable for you; set HPC_BRIDGE_SHARED_DIR"),
        (errno.EPERM, "is not writable for you; set HPC_BRIDGE_SHARED_DIR"),
        (errno.EROFS, "is read-only; set HPC_BRIDGE_SHARED_DIR"),
        (errno.ESTALE, "cannot be used: Stale file handle"),
    ],
)
def test_every_error_of_a_shared_directory_says_what_to_do(number: int, words: str) -> None:
    original = OSError(number, os.strerror(number))
    with (
        pytest.raises(
            SharedDirectoryError, match=f"^the shared directory /shared {words}"
        ) as caught,
        shared_directory_errors(Path("/shared")),
    ):
        raise original
    assert caught.value.__cause__ is original


def test_the_system_says_full_where_it_is_full() -> None:
    with (
        pytest.raises(SharedDirectoryError, match="is full; free some space"),
        shared_directory_errors(Path("/dev")),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")


@pytest.mark.parametrize("name", ["back\\slash", "line\nbreak", "line\rbreak"])
def test_a_path_that_a_directive_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidJobSpec, match="holds a backslash or line break"):
        prepare_shared_directory(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_is_made_once(shared: Path) -> None:
    RunDirectory.create(shared, "hbabc")
    with pytest.raises(SharedDirectoryError, match="File exists"):
        RunDirectory.create(shared, "hbabc")


def test_a_run_directory_that_was_removed_is_named(run: RunDirectory) -> None:
    run.path.rmdir()
    with pytest.raises(SharedDirectoryError, match="does not exist"):
        run.write("job.sh", b"")
    with pytest.raises(SharedDirectoryError, match="does not exist"):
        run.settle(0)
    assert not run.path.exists()


# owners


def test_a_folder_of_another_account_is_refused(shared: Path) -> None:
    if os.geteuid() == 0:
        os.chown(shared, NOBODY, -1)
        words = f"belongs to user id {NOBODY}, not to you \\(0\\)"
    else:
        shared.chmod(0o777)
        words = "can be written by others"
    with pytest.raises(NotOwned, match=words):
        prepare_shared_directory(shared)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_refused_with_the_cure(shared: Path, mode: int) -> None:
    shared.chmod(mode)
    with pytest.raises(NotOwned, match=f"{shared} can be written by others; run: chmod go-w"):
        check_owner(shared, HERE.entry(shared), HERE)


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_a_folder_that_others_can_read_is_no_danger(shared: Path, mode: int) -> None:
    shared.chmod(mode)
    check_owner(shared, HERE.entry(shared), HERE)
