"""What ``hpc-bridge logs``, ``jobs``, ``clean`` and their like go by."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_bridge.cli.here import settings_here
from hpc_bridge.errors import SettingsError
from tests.unit.site_folders import SiteFolders

PROFILE = 'paths: {shared_dir: "/scratch/{user}"}\nretention: 7d\n'


@pytest.fixture
def alpha(site_folders: SiteFolders) -> SiteFolders:
    site_folders.write(site_folders.system, "alpha", PROFILE)
    site_folders.write_own_part("alpha", "user: anna\n")
    return site_folders


def test_what_nobody_has_set_is_the_sites(alpha: SiteFolders) -> None:
    settings = settings_here()
    assert (settings.shared, settings.retention) == (Path("/scratch/anna"), timedelta(days=7))
    assert settings.effective_scheduler == "slurm"


def test_the_settings_win_over_the_site(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", "/mine")
    monkeypatch.setenv("HPC_BRIDGE_RETENTION", "90d")
    settings = settings_here()
    assert (settings.shared, settings.retention) == (Path("/mine"), timedelta(days=90))


def test_another_scheduler_is_not_of_the_site(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local")
    assert settings_here().retention == timedelta(days=30)


def test_a_site_that_only_a_server_knows_is_left_out_when_it_does_not_answer(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITE", "published")
    for url in (None, "http://127.0.0.1:9/api"):
        with temporary_settings({PREFECT_API_URL: url}):
            assert settings_here().retention == timedelta(days=30)


def test_a_folder_that_cannot_be_is_told(alpha: SiteFolders) -> None:
    alpha.write(alpha.system, "alpha", 'paths: {shared_dir: "$NOT_SET_ANYWHERE/x"}\n')
    with pytest.raises(SettingsError, match=r"shared_dir: .*NOT_SET_ANYWHERE"):
        settings_here()
