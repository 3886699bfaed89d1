"""Paths of a site that hold the login name, a home or a variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.files import expanded_path
from hpc_bridge.settings import load_settings
from hpc_bridge.storage.blocks import ClusterStorage


@pytest.fixture(autouse=True)
def _anna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WORK", str(tmp_path / "work"))


def test_login_name_home_and_variables_are_those_of_who_uses_the_path(tmp_path: Path) -> None:
    assert expanded_path("/gpfs/{user}/hpc") == "/gpfs/anna/hpc"
    assert expanded_path("~/hpc") == f"{tmp_path}/home/hpc"
    assert expanded_path("$WORK/{user}") == f"{tmp_path}/work/anna"
    assert expanded_path("$NOT_SET_HERE/x") == "$NOT_SET_HERE/x"
    assert expanded_path("~nobody-has-this-name/x") == "~nobody-has-this-name/x"


def test_the_shared_directory_may_hold_the_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", "/gpfs/{user}/hpc")
    assert load_settings().shared == Path("/gpfs/anna/hpc")


@pytest.mark.parametrize("basepath", ["$WORK/{user}/results", "~/results"])
def test_results_of_a_shared_pool_are_everybodys_own(tmp_path: Path, basepath: str) -> None:
    storage = ClusterStorage(site="slurm", basepath=basepath)
    path = storage.write_path("a/b", b"content", _sync=True)
    assert Path(path) == Path(expanded_path(basepath)) / "a" / "b"
    assert Path(path).is_relative_to(tmp_path)
    assert storage.read_path("a/b", _sync=True) == b"content"
    with pytest.raises(ValueError, match="lies outside"):
        storage.read_path("../secret", _sync=True)
