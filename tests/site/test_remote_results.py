"""Results on the cluster, read and written from outside over both SSH transports."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.results import ResultStore
from prefect.states import Completed, exception_to_failed_state

from hpc_bridge.errors import ConnectionLost
from hpc_bridge.storage import carrying, reach
from hpc_bridge.storage.blocks import ClusterStorage
from hpc_bridge.transports import login as logins
from hpc_bridge.transports.base import Progress
from hpc_bridge.transports.login import Login
from tests.site.conftest import Site
from tests.site.sshd import MIB, Client, Sshd
from tests.waiting import until


@dataclass(frozen=True)
class Laptop:
    """This machine, with a profile of the site."""

    storage: ClusterStorage
    server: Sshd
    folder: Path
    """Of the results, as this machine sees it."""

    def names(self) -> list[str]:
        """All that lies in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    @contextmanager
    def cuts(self, monkeypatch: pytest.MonkeyPatch, most: int) -> Iterator[None]:
        """Kill the connection in the middle of so many transfers."""
        left = most

        @contextmanager
        def cutting(_: str) -> Iterator[Progress]:
            def on_progress(done: int, total: int | None) -> None:
                nonlocal left
                if left and total and total / 2 <= done < total:
                    left -= 1
                    self.server.kill_sessions()

            yield on_progress

        with monkeypatch.context() as patch:
            patch.setattr(carrying, "shown", cutting)
            yield
        assert left == 0


@pytest.fixture
def laptop(
    client: Client,
    kind: str,
    servers: Callable[..., Sshd],
    site: Site,
    home: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Laptop:
    server = servers()
    name = client.knows(server)
    profile = tmp_path / "sites" / "far.yaml"
    profile.parent.mkdir()
    profile.write_text(
        f"name: far\nscheduler: {{type: slurm}}\nlogin: {{transport: {kind}, host: {name}}}\n"
    )
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(profile.parent))
    # The process's own one, but for the SSH configuration that it reads.
    there = client.connect(kind, name)
    monkeypatch.setitem(logins._transports, Login(kind, name), there)
    monkeypatch.setattr(reach, "_files", {})
    monkeypatch.setattr(carrying, "_failures", {})
    folder = home.rpartition("/")[2]
    storage = ClusterStorage(site="far", basepath=f"~/{folder}/results")
    return Laptop(storage, server, site.home() / folder / "results")


def stored(laptop: Laptop) -> ResultStore:
    laptop.storage.save("far-results", overwrite=True)
    return ResultStore(result_storage=laptop.storage, cache_result_in_memory=False)


def kept(store: ResultStore, key: str, result: Any) -> State[Any]:
    """A state as the server has it: it only says where the result is."""
    record = store.create_result_record(result, key=key)
    store.persist_result_record(record)
    return Completed(data=record.metadata)


def test_what_a_flow_returned_or_raised_comes_back(laptop: Laptop) -> None:
    store = stored(laptop)
    content = os.urandom(8 * MIB)
    state = kept(store, "a/result", content)
    assert stat.S_IMODE((laptop.folder / "a/result").stat().st_mode) == 0o600
    assert state.result() == content
    assert asyncio.run(state.aresult()) == content
    failed = asyncio.run(
        exception_to_failed_state(LookupError("its own"), result_store=store, write_result=True)
    )
    failed.data = failed.data.metadata
    with pytest.raises(LookupError, match="its own"):
        failed.result()
    with pytest.raises(LookupError, match="its own"):
        asyncio.run(failed.aresult())
    (laptop.folder / "a/result").unlink()
    with pytest.raises(ValueError, match=r"/results/a/result of cluster 'far' does not exist on "):
        state.result(retry_result_failure=False)
    assert laptop.server.logins == 1


def test_a_transfer_that_is_cut_is_done_again(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(32 * MIB)
    with laptop.cuts(monkeypatch, 1):
        laptop.storage.write_path("result", content, _sync=True)
    until(lambda: laptop.names() == ["result"], 10, "what was cut has left nothing")
    with laptop.cuts(monkeypatch, 1):
        assert laptop.storage.read_path("result", _sync=True) == content
    assert laptop.server.logins == 3


def test_a_connection_that_never_holds_is_no_failure_of_the_flow(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = kept(stored(laptop), "result", os.urandom(8 * MIB))
    with laptop.cuts(monkeypatch, 4), pytest.raises(ConnectionLost) as caught:
        state.result()
    assert "The flow itself has not failed" in str(caught.value)
    assert "kept in /home/researcher/" in str(caught.value)
    # Although Prefect asks ten times.
    assert laptop.server.logins == 4
    assert laptop.names() == ["result"]


@pytest.mark.parametrize("kind", ["paramiko"])
def test_half_a_gigabyte_goes_there_and_comes_back(laptop: Laptop) -> None:
    content = os.urandom(MIB) * 500
    digest = hashlib.sha256(content).digest()
    with peak() as used:
        laptop.storage.write_path("result", content, _sync=True)
    assert used[0] < 100
    del content
    with peak() as used:
        content = laptop.storage.read_path("result", _sync=True)
    assert used[0] < 600, "one copy, which is Prefect's to have"
    assert hashlib.sha256(content).digest() == digest
    assert laptop.names() == ["result"]


@contextmanager
def peak() -> Iterator[list[int]]:
    """How much more memory was resident at most, in MiB; known at the end."""
    Path("/proc/self/clear_refs").write_text("5")
    used = [0]
    before = _resident("VmRSS")
    yield used
    used[0] = _resident("VmHWM") - before


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) // 1024
