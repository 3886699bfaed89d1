"""What ``hpc-bridge logs``, ``jobs``, ``clean`` and their like go by."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_bridge.cli import here
from hpc_bridge.cli.here import look_here, settings_here
from hpc_bridge.errors import SettingsError, SiteError
from hpc_bridge.storage.cluster_files import HERE
from hpc_bridge.transports.login import LOCAL, Login
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
        _ = settings_here().shared


# a cluster elsewhere


class Elsewhere:
    """Says how a path is there, and what it was asked."""

    is_here = False

    def __init__(self, login: Login) -> None:
        self.login = login

    def expanded(self, text: str) -> str:
        return text.replace("~", "/home/anna-there").replace("$WORK", "/gpfs/anna")


@pytest.fixture
def beta(alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> SiteFolders:
    monkeypatch.setattr(
        here, "files_at", lambda login: HERE if login == LOCAL else Elsewhere(login)
    )
    profile = "login: {transport: openssh, host: beta.example.org}\nretention: 9d\n"
    alpha.write(alpha.system, "beta", 'paths: {shared_dir: "$WORK/x"}\n' + profile)
    return alpha


def test_a_site_elsewhere_names_its_folder_itself(
    beta: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK", "/of/this/machine")
    found = look_here("beta")
    assert (found.login.transport, found.login.host) == ("openssh", "beta.example.org")
    assert (found.shared, found.settings.retention) == (Path("/gpfs/anna/x"), timedelta(days=9))
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", "~/mine")
    assert look_here("beta").shared == Path("/home/anna-there/mine")


def test_the_site_that_is_meant_may_be_elsewhere_too(
    beta: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITE", "beta")
    assert look_here().login.host == "beta.example.org"
    monkeypatch.setenv("HPC_BRIDGE_SITE", "alpha")
    assert (look_here().login, look_here().files) == (LOCAL, HERE)


def test_a_named_site_has_its_own_scheduler(
    beta: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local")
    assert look_here("beta").settings.effective_scheduler == "slurm"


def test_a_site_that_nobody_knows_is_told(beta: SiteFolders) -> None:
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(SiteError, match="gamma"):
        look_here("gamma")


def test_a_folder_that_cannot_be_elsewhere_is_told(beta: SiteFolders) -> None:
    beta.write(
        beta.system,
        "beta",
        'paths: {shared_dir: "$NOT/x"}\nlogin: {transport: paramiko, host: h}\n',
    )
    with pytest.raises(SettingsError, match=r"shared_dir: '\$NOT/x'"):
        look_here("beta")
