"""What unit tests start from: none of this machine's own settings, and what many of them share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.tracking.claims import Claims
from tests.unit.claiming import Process, Start
from tests.unit.fake_cluster import FakeCluster, connected
from tests.unit.site_folders import SiteFolders
from tests.unit.watching import Site


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("HPC_BRIDGE_", "SLURM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HPC_BRIDGE_CONFIG", os.devnull)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A shared directory with nothing in it."""
    return prepare_shared_directory(tmp_path / "shared")


@pytest.fixture
def run(shared: Path) -> RunDirectory:
    """A run directory with nothing in it."""
    return RunDirectory.create(shared, new_submission_id())


@pytest.fixture
def cluster(shared: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """What connections of the shared directory lead to."""
    return connected(shared, monkeypatch)


@pytest.fixture
def claims(shared: Path) -> Iterator[Claims]:
    """This process's."""
    claims = Claims(shared)
    yield claims
    claims.end()


@pytest.fixture
def start(shared: Path) -> Iterator[Start]:
    """Starts processes that are ready to take claims."""
    started: list[Process] = []

    def ready() -> Process:
        process = Process(shared)
        started.append(process)
        assert process.hear() == "ready"
        return process

    yield ready
    for process in started:
        process.kill()
        for stream in (process.process.stdin, process.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A scheduler under a watcher that is polled by hand: its thread sleeps."""
    site = Site()
    yield site
    site.close()


@pytest.fixture
def site_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteFolders:
    """Folders for profiles with nothing in them; beside them there are only the packaged ones."""
    folders = SiteFolders(tmp_path / "etc", tmp_path / "config")
    for folder in (folders.system, folders.user):
        folder.mkdir(parents=True)
    (folders.config / "config.toml").touch()
    monkeypatch.setenv("HPC_BRIDGE_CONFIG", str(folders.config / "config.toml"))
    monkeypatch.setattr("hpc_bridge.sites.files.SYSTEM", folders.system)
    return folders
