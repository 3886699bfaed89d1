"""Results seen from a machine that is not the cluster."""

from __future__ import annotations

import asyncio
import logging
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import CommandError, ConnectionLost, LoginRefused, NoSuchFile, SiteError
from hpc_bridge.sites.acceptance import accept, executed_text
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.storage import carrying, place
from hpc_bridge.storage.blocks import ClusterStorage
from hpc_bridge.storage.cluster_files import LocalFiles
from hpc_bridge.storage.progress import Lines, shown
from hpc_bridge.transports.base import Files, Progress
from hpc_bridge.transports.login import Login
from tests.unit.site_folders import SiteFolders

LOGIN = Login("openssh", "login.example.org")
REACHED = "login: {transport: openssh, host: login.example.org}\n"


class Elsewhere(LocalFiles):
    """A cluster whose home is a folder here, and which sometimes cannot be asked."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.failures: list[CommandError] = []
        self.calls = 0
        self.go_on: threading.Event | None = None

    @property
    def is_here(self) -> bool:
        return False

    def expanded(self, text: str) -> str:
        return text.replace("~", str(self.home))

    def read(self, path: Path, *, progress: Progress | None = None) -> bytes:
        self._ask()
        if not path.exists():
            raise NoSuchFile(f"there is no {path}")
        return super().read(path, progress=progress)

    def put(self, files: Files, *, progress: Progress | None = None) -> None:
        self._ask()
        super().put(files, progress=progress)

    def _ask(self) -> None:
        self.calls += 1
        if self.go_on is not None:
            assert self.go_on.wait(10)
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    files = Elsewhere(tmp_path / "there")
    (files.home / "results").mkdir(parents=True)
    reached: Callable[[Login], Elsewhere] = {LOGIN: files}.__getitem__
    monkeypatch.setattr(carrying, "files_at", reached)
    monkeypatch.setattr(carrying, "_failures", {})
    return files


@pytest.fixture
def storage(there: Elsewhere, site_folders: SiteFolders) -> ClusterStorage:
    """Of a site whose profile says how it is reached."""
    assert there
    site_folders.write(site_folders.user, "far", REACHED)
    return ClusterStorage(site="far", basepath="~/results")


def lost() -> CommandError:
    return ConnectionLost("the connection broke")


def test_results_are_read_and_written_over_the_login_of_the_profile(
    storage: ClusterStorage, there: Elsewhere
) -> None:
    path = storage.write_path("a/b", b"content", _sync=True)
    assert path == str(there.home / "results/a/b")
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert storage.read_path("a/b", _sync=True) == b"content"
    assert storage.read_path(path, _sync=True) == b"content"
    assert there.calls == 3


def test_a_compute_node_reads_its_own_file_system(
    storage: ClusterStorage, there: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "node"))
    path = storage.write_path("a", b"content", _sync=True)
    assert path == str(tmp_path / "node/results/a")
    assert storage.read_path("a", _sync=True) == b"content"
    assert there.calls == 0


@pytest.mark.parametrize("site", ["slurm", "local"])
def test_without_a_profile_results_are_of_this_machine(
    there: Elsewhere, site_folders: SiteFolders, tmp_path: Path, site: str
) -> None:
    site_folders.write(site_folders.user, "far", REACHED)
    here = ClusterStorage(site=site, basepath=str(tmp_path / "here"))
    here.write_path("a", b"content", _sync=True)
    assert (tmp_path / "here/a").read_bytes() == b"content"
    assert there.calls == 0


def published(monkeypatch: pytest.MonkeyPatch, site: Site) -> list[str]:
    """The names that the server is asked for."""
    asked: list[str] = []

    async def published_site(name: str, _: Any) -> Site | None:
        asked.append(name)
        return site if name == site.name else None

    monkeypatch.setattr(place, "published_site", published_site)
    monkeypatch.setattr(place, "_published", {})
    return asked


def test_a_published_profile_need_not_be_accepted_to_read_files_of_this_machine(
    site_folders: SiteFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site_folders
    profile = SiteProfile.model_validate(
        {
            "name": "near",
            "scheduler": {"type": "slurm"},
            "login": {"transport": "openssh", "host": socket.gethostname()},
            "environment": {"prologue": "module load python"},
        }
    )
    asked = published(monkeypatch, Site(profile, source="http://prefect.example.org/api"))
    storage = ClusterStorage(site="near", basepath=str(tmp_path / "results"))
    storage.write_path("a", b"content", _sync=True)
    assert storage.read_path("a", _sync=True) == b"content"
    assert asked == ["near"], "once for a moment"
    monkeypatch.setattr(place, "_BELIEVED_SECONDS", -1.0)
    place._published.clear()
    for _ in range(2):
        storage.read_path("a", _sync=True)
    assert asked == ["near"] * 3


def test_a_published_profile_counts_once_it_is_accepted(
    there: Elsewhere, site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site_folders
    profile = SiteProfile.model_validate(
        {
            "name": "far",
            "scheduler": {"type": "slurm"},
            "login": {"transport": "openssh", "host": "login.example.org"},
            "environment": {"prologue": "module load python"},
        }
    )
    site = Site(profile, source="http://prefect.example.org/api")
    published(monkeypatch, site)
    storage = ClusterStorage(site="far", basepath="~/results")
    with pytest.raises(SiteError, match="hpc-bridge site accept far"):
        storage.read_path("a", _sync=True)
    assert there.calls == 0
    accept("far", site.source, executed_text(profile))
    storage.write_path("a", b"content", _sync=True)
    assert storage.read_path("a", _sync=True) == b"content"
    assert there.calls == 2


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "../results-2/a"])
def test_nothing_outside_of_the_folder_is_touched(
    storage: ClusterStorage, there: Elsewhere, path: str
) -> None:
    with pytest.raises(ValueError, match=r"lies outside of ~/results on login\.example\.org"):
        storage.read_path(path, _sync=True)
    with pytest.raises(ValueError, match="lies outside"):
        storage.write_path(path, b"", _sync=True)
    assert there.calls == 0


def test_a_missing_result_names_the_host_and_is_not_asked_for_again(
    storage: ClusterStorage, there: Elsewhere
) -> None:
    with pytest.raises(ValueError, match=r"of cluster 'far' does not exist on .*: it was never"):
        storage.read_path("a", _sync=True)
    assert there.calls == 1
    (there.home / "results/a").write_bytes(b"late")
    assert storage.read_path("a", _sync=True) == b"late"
    elsewhere = ClusterStorage(site="far", basepath="~/other")
    with pytest.raises(ValueError, match="there is no folder ~/other either"):
        elsewhere.read_path("a", _sync=True)


def test_a_lost_connection_is_made_again(storage: ClusterStorage, there: Elsewhere) -> None:
    there.failures = [lost()]
    storage.write_path("a", b"content", _sync=True)
    there.failures = [lost()]
    assert storage.read_path("a", _sync=True) == b"content"
    assert there.calls == 4


def test_an_error_says_where_the_result_is_kept(storage: ClusterStorage, there: Elsewhere) -> None:
    there.failures = [lost() for _ in range(3)]
    with pytest.raises(ConnectionLost) as caught:
        storage.read_path("a", _sync=True)
    assert there.calls == 2
    said = str(caught.value)
    assert said.startswith("the connection broke\nThe flow itself has not failed")
    assert f"kept in {there.home}/results/a on login.example.org" in said


def test_who_is_refused_is_not_asked_for_a_password_again(
    storage: ClusterStorage, there: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(carrying.time, "monotonic", lambda: now)
    there.failures = [LoginRefused("wrong password")]
    for _ in range(10):  # as Prefect reads a result that may still be on its way
        with pytest.raises(LoginRefused, match="kept in"):
            storage.read_path("a", _sync=True)
        now += 0.3
    assert there.calls == 1
    (there.home / "results/a").write_bytes(b"content")
    (there.home / "results/b").write_bytes(b"other")
    assert storage.read_path("b", _sync=True) == b"other"
    now += 2
    assert storage.read_path("a", _sync=True) == b"content"
    assert there.calls == 3


def test_the_event_loop_goes_on_meanwhile(storage: ClusterStorage, there: Elsewhere) -> None:
    there.go_on = threading.Event()

    async def read() -> Any:
        await storage.awrite_path("a", b"content")
        return await storage.aread_path("a")

    async def go() -> Any:
        reading = asyncio.ensure_future(read())
        while not there.calls:
            await asyncio.sleep(0.01)
        assert there.go_on is not None
        there.go_on.set()
        return await reading

    assert asyncio.run(go()) == b"content"


# progress

MIB = 2**20


def test_a_long_transfer_tells_its_progress_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = 50.0
    lines = Lines("Result from x", lambda: now)
    with caplog.at_level(logging.INFO, "prefect.hpc_bridge"):
        for second in range(26):
            lines((second + 1) * 4 * MIB, 500 * MIB)
            now += 1
        lines(4 * MIB, 500 * MIB)  # again, after a lost connection
        now += 11
        lines(26 * MIB, None)
    assert caplog.messages == [
        "Result from x: 44 of 500 MiB, 4.0 MiB/s",
        "Result from x: 84 of 500 MiB, 4.0 MiB/s",
        "Result from x: 26 MiB, 2.0 MiB/s",
    ]


def test_a_terminal_has_one_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with shown("first") as first, shown("second") as second, shown("third"):
        first(4 * MIB, 9 * MIB)
        second(4 * MIB, 9 * MIB)
        first(9 * MIB, 9 * MIB)
    said = capsys.readouterr().err
    assert "first" in said
    assert "9.0/9.0 MiB" in said
    assert "second" not in said
    with shown("fourth") as fourth:
        fourth(9 * MIB, 9 * MIB)
    assert "fourth" in capsys.readouterr().err
