"""Bundles for a cluster elsewhere: here first, then there, and seldom read from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc_bridge.errors import BundleError, NotOwned, SharedDirectoryError, Unreachable
from hpc_bridge.storage import spool
from hpc_bridge.storage.bundle import BundleStore, Packed
from tests.unit.counted_files import CountedFiles, Seen

MIB = 2**20


def content(*, flow: str = "x", python: str = "3.12") -> bytes:
    about = {"format": 1, "python": python, "prefect": "3.8.0", "cloudpickle": "3.1.2"}
    return json.dumps({"function": flow, "hpc_bridge": about}).encode()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedFiles:
    machine = tmp_path / "machine"
    machine.mkdir()
    monkeypatch.setattr(spool, "machine_folder", lambda: machine)
    return CountedFiles()


@pytest.fixture
def store(shared: Path, files: CountedFiles) -> BundleStore:
    return BundleStore(shared, files)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "packed.zip"
    path.write_bytes(b"PK")
    return path


def test_a_bundle_waits_here_and_nothing_is_asked_there(
    shared: Path, files: CountedFiles, store: BundleStore, archive: Path
) -> None:
    key = store.save(Packed(content(), archive))
    store.check(key)
    assert store.python_of(key) == "3.12"
    assert store.has_files(key)
    assert files.commands == 0
    assert list((shared / "bundles").iterdir()) == []
    assert {name: path.read_bytes() for name, path in store.content(key).items()} == {
        f"bundles/{key}/bundle.json": content(),
        f"bundles/{key}/files.zip": b"PK",
    }
    assert store.links(key, "runs/hb/0") == {
        "runs/hb/0/bundle.json": f"bundles/{key}/bundle.json",
        "runs/hb/0/files.zip": f"bundles/{key}/files.zip",
    }
    assert files.commands == 0


def test_for_another_process_it_is_brought_there_by_one_command(
    shared: Path, files: CountedFiles, store: BundleStore, archive: Path
) -> None:
    key = store.save(Packed(content(), archive))
    links = store.links(key, "runs/hb/0")
    store.deliver(key)
    assert files.commands == 1
    folder = shared / "bundles" / key
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "bundle.json": content(),
        "files.zip": b"PK",
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert store.content(key) == {}  # it does not travel again
    assert store.links(key, "runs/hb/0") == links
    store.check(key)
    assert store.has_files(key)
    before = files.commands
    store.deliver(key)
    assert files.commands == before


def test_whoever_waits_sees_how_far_a_large_bundle_is(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    monkeypatch.setattr("hpc_bridge.storage.bundle.shown", seen.shown)
    store.deliver(store.save(Packed(content(flow="x" * 9 * MIB), None)))
    (what,) = seen.figures
    assert what.startswith("Flow to ")
    done, total = seen.figures[what][-1]
    assert done == total
    assert done > 9 * MIB


def test_a_bundle_without_files_says_so_there_too(store: BundleStore) -> None:
    key = store.save(Packed(content(), None))
    assert not store.has_files(key)
    store.deliver(key)
    assert not store.has_files(key)


def test_a_connection_that_breaks_leaves_the_bundle_here(
    files: CountedFiles, store: BundleStore
) -> None:
    key = store.save(Packed(content(), None))
    files.transport.is_away = True
    with pytest.raises(Unreachable):
        store.deliver(key)
    assert list(store.content(key))


def test_a_shared_directory_that_cannot_take_it_is_named(shared: Path, store: BundleStore) -> None:
    key = store.save(Packed(content(), None))
    (shared / "bundles").rmdir()
    (shared / "bundles").write_text("")
    with pytest.raises(SharedDirectoryError, match="is not a folder"):
        store.deliver(key)
    assert list(store.content(key))


def test_of_a_large_bundle_only_the_end_is_read(files: CountedFiles, store: BundleStore) -> None:
    key = store.save(Packed(content(flow="x" * MIB, python="3.13"), None))
    store.deliver(key)
    commands, read = files.commands, files.transport.bytes
    assert store.python_of(key) == "3.13"
    assert files.commands == commands + 1
    assert files.transport.bytes - read < 2048


@pytest.mark.parametrize("waits", [True, False])
def test_a_bundle_with_more_at_its_end_is_read_whole(store: BundleStore, waits: bool) -> None:
    stored = json.loads(content(python="3.14")) | {"later": "x" * 4096}
    key = store.save(Packed(json.dumps(stored).encode(), None))
    if not waits:
        store.deliver(key)
    assert store.python_of(key) == "3.14"


def test_what_is_gone_there_is_said(store: BundleStore) -> None:
    with pytest.raises(BundleError, match=r"the run's bundle is gone: .*submit the flow again"):
        store.check("5f9c9c7e-0000-0000-0000-000000000000")


@pytest.mark.parametrize("path", [".", "bundles", "bundles/{key}", "bundles/{key}/bundle.json"])
def test_what_others_can_write_there_is_refused(
    shared: Path, store: BundleStore, path: str
) -> None:
    key = store.save(Packed(content(), None))
    store.deliver(key)
    (shared / path.format(key=key)).chmod(0o722)
    with pytest.raises(NotOwned, match="can be written by others"):
        store.check(key)
