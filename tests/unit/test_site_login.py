"""How a site's login side is reached from this machine, and who the user is there."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_bridge.errors import CommandError, SettingsError, SiteError
from hpc_bridge.settings import load_settings, personal_pool
from hpc_bridge.sites import login
from hpc_bridge.sites.choosing import login_name
from hpc_bridge.sites.login import is_this_machine
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.user_part import UserPart
from hpc_bridge.transports import openssh
from hpc_bridge.transports.login import LOCAL, Login
from tests.unit.site_folders import SiteFolders

REMOTE = {"transport": "openssh", "host": "login.hpc.example"}


@pytest.fixture(autouse=True)
def _a_laptop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    on_machine("laptop", monkeypatch)
    login._read.cache_clear()
    yield
    login._read.cache_clear()


def on_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)


def site(login: dict[str, object] | None = None, scheduler: str = "slurm", **user: str) -> Site:
    profile = SiteProfile.model_validate(
        {"name": "hpc", "scheduler": {"type": scheduler}, "login": login or {}}
    )
    return Site(profile, UserPart.model_validate(user))


def test_a_site_is_reached_as_its_profile_says() -> None:
    assert site().login == LOCAL
    assert site(REMOTE).login == Login("openssh", "login.hpc.example")
    assert site({**REMOTE, "master": "reuse"}).login.master == "reuse"


def test_the_users_part_goes_before_the_profile() -> None:
    own = site(REMOTE, host="mine", user="anna", transport="paramiko", master="reuse")
    assert own.login == Login("paramiko", "mine", "anna", "reuse")
    assert site(REMOTE, transport="local").login == LOCAL
    assert site({}, transport="openssh", host="mine").login == Login("openssh", "mine")


def test_a_host_of_ones_own_changes_nothing_where_the_site_is_local() -> None:
    assert site({}, host="mine").login == LOCAL


def test_within_a_job_the_site_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_RUN_DIR", "/somewhere")
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "openssh")
    assert site(REMOTE).login == LOCAL


@pytest.mark.parametrize("name", ["login.hpc.example", "Login.HPC.example", "login", "login03"])
def test_on_a_login_node_the_site_is_this_machine(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    on_machine(name, monkeypatch)
    assert site({**REMOTE, "machines": ["login[0-9]*.hpc.example"]}).login == LOCAL


@pytest.mark.parametrize(
    ("here", "pattern", "is_one"),
    [
        ("login1", "login1", True),
        ("login1", "login*", True),
        ("login1.hpc.example", "login1", True),
        ("login1.hpc.example", "*.hpc.example", True),
        ("login1.hpc.example", "login1.other.example", False),
        ("node7.hpc.example", "login*", False),
        # The last part of a short name is not known.
        ("laptop", "*.hpc.example", False),
    ],
)
def test_names_of_machines_are_compared_in_their_long_and_short_forms(
    monkeypatch: pytest.MonkeyPatch, here: str, pattern: str, is_one: bool
) -> None:
    on_machine(here, monkeypatch)
    assert is_this_machine([pattern]) is is_one


def test_one_machine_may_be_given_without_a_list() -> None:
    assert site({**REMOTE, "machines": "login*"}).profile.login.machines == ("login*",)


def test_the_setting_goes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "local")
    assert site(REMOTE, transport="paramiko").login == LOCAL
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "paramiko")
    on_machine("login.hpc.example", monkeypatch)
    assert site(REMOTE).login == Login("paramiko", "login.hpc.example")


def test_the_setting_is_no_job_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "paramiko")
    assert load_settings().job_variables() == {}
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "telnet")
    with pytest.raises(SettingsError, match=r"transport: .*'local', 'openssh' or 'paramiko'"):
        load_settings()


@pytest.mark.parametrize("where", ["setting", "user's part"])
def test_ssh_without_a_host_says_what_to_set(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "openssh" if where == "setting" else "")
    some = site({}) if where == "setting" else site({}, transport="openssh")
    with pytest.raises(SiteError, match=r"site hpc is .* openssh, .* set 'host' in your part"):
        _ = some.login


def test_the_embedded_scheduler_is_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "openssh")
    assert site({}, scheduler="local").login == LOCAL


# Who the user is there


def ssh_config(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOME", str(home))
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(text)


def test_the_name_there_is_that_of_the_users_part() -> None:
    assert site(REMOTE, user="anna").login_name == "anna"
    assert site({}, user="anna").login_name == "anna"
    assert site({}).login_name == getpass.getuser()


def test_paramiko_takes_the_name_of_the_ssh_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh_config(tmp_path, monkeypatch, "Host mine\n User anna\n")
    assert site(REMOTE, transport="paramiko", host="mine").login_name == "anna"
    assert site(REMOTE, transport="paramiko").login_name == getpass.getuser()


def test_openssh_is_asked_for_the_name_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh(
        tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/asked\necho user anna; echo hostname h'
    )
    assert site(REMOTE).login_name == "anna"
    assert site(REMOTE).path("/work/{user}") == "/work/anna"
    assert (tmp_path / "asked").read_text() == "-G -- login.hpc.example\n"


def fake_ssh(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_without_a_readable_ssh_configuration_the_name_is_as_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh(tmp_path, monkeypatch, "exit 255")
    assert site(REMOTE).login_name == getpass.getuser()


def test_the_personal_pool_has_the_name_on_the_cluster(
    site_folders: SiteFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh_config(tmp_path, monkeypatch, "Host login.hpc.example\n User anna\n")
    site_folders.write(
        site_folders.user, "hpc", "login: {transport: paramiko, host: login.hpc.example}\n"
    )
    assert personal_pool("hpc") == "hpc-anna"
    site_folders.write_own_part("hpc", "user: bert\n")
    assert personal_pool("hpc") == "hpc-bert"


def test_of_a_published_site_the_users_part_tells_the_name(
    site_folders: SiteFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh(tmp_path, monkeypatch, "echo user anna; echo hostname h")
    assert login_name("published") == getpass.getuser()
    site_folders.write_own_part("published", "host: mine\n")
    assert login_name("published") == "anna"
    site_folders.write_own_part("published", "host: mine\nuser: bert\n")
    assert login_name("published") == "bert"


def test_an_ssh_configuration_that_is_slow_once_is_read_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(_: str) -> dict[str, str]:
        raise CommandError("ssh does not read its configuration in time", retryable=True)

    there = Login("openssh", "alpha")
    monkeypatch.setattr(openssh, "configured", slow)
    assert login.name_on_cluster(there) == getpass.getuser()
    said = {"user": "anna", "hostname": "login1.hpc.example"}
    monkeypatch.setattr(openssh, "configured", lambda _: said)
    assert login.name_on_cluster(there) == "anna"
    monkeypatch.setattr(openssh, "configured", slow)
    assert login.host_of(there) == "login1.hpc.example"
