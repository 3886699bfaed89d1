"""Whose files are taken for text that will be executed."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.files import known_sites, load_site
from hpc_bridge.sites.trust import distrust
from tests.unit.restrictions import NOBODY
from tests.unit.site_folders import SiteFolders, write

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def path(site_folders: SiteFolders) -> Path:
    return site_folders.write(site_folders.user, "hpc")


def refusal(name: str = "hpc") -> str:
    with pytest.raises(SiteError, match="is not trusted") as caught:
        load_site(name)
    return str(caught.value)


def test_ones_own_file_is_trusted(path: Path) -> None:
    assert distrust(path) == []
    assert load_site("hpc").source == str(path)


def test_a_file_that_everybody_can_write(path: Path) -> None:
    path.chmod(0o666)
    assert f"the file {path} can be written by everybody: run 'chmod o-w {path}'" in refusal()


def test_a_folder_that_everybody_can_write(path: Path) -> None:
    path.parent.chmod(0o1777)
    assert f"run 'chmod o-w {path.parent}'" in refusal()


@only_root
def test_a_file_of_root_that_a_group_can_write(path: Path) -> None:
    path.chmod(0o664)
    assert f"run 'chmod g-w {path}'" in refusal()


@only_root
def test_only_its_owner_is_told_to_change_a_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert distrust(path) == [
        f"the file {path} can be written by everybody: ask its owner (root) to run"
        f" 'chmod o-w {path}'"
    ]


@only_root
@pytest.mark.parametrize("what", ["file", "folder"])
def test_somebody_elses(path: Path, what: str) -> None:
    theirs = path if what == "file" else path.parent
    os.chown(theirs, NOBODY, -1)
    owner = pwd.getpwuid(NOBODY).pw_name
    assert refusal().splitlines() == [
        f"{path} is not trusted:",
        f"  the {what} {theirs} belongs to {owner}, and must be root's or yours: copy the profile,"
        f" or run 'sudo chown root {theirs}'",
    ]


@only_root
def test_an_owner_without_a_name(path: Path) -> None:
    os.chown(path, 54321, -1)
    assert "belongs to user 54321" in refusal()


@only_root
@pytest.mark.parametrize(
    ("members", "trusted"), [((), True), (("me",), True), (("me", "colleague"), False)]
)
def test_a_group_of_ones_own_may_write(
    path: Path, monkeypatch: pytest.MonkeyPatch, members: tuple[str, ...], trusted: bool
) -> None:
    person = pwd.struct_passwd(("me", "x", 4321, 4321, "", "/", "/bin/sh"))
    group = grp.struct_group(("me", "x", 4321, list(members)))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: person)
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    for one in (path, path.parent):
        os.chown(one, 4321, 4321)
        one.chmod(one.stat().st_mode | 0o020)
    assert (distrust(path) == []) is trusted


def test_a_link_is_as_good_as_what_it_leads_to(site_folders: SiteFolders, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    real = site_folders.write(open_to_all, "hpc")
    open_to_all.chmod(0o777)
    (site_folders.user / "hpc.yaml").symlink_to(real)
    assert f"run 'chmod o-w {open_to_all}'" in refusal()


def test_a_template_is_executed_too(site_folders: SiteFolders, tmp_path: Path) -> None:
    template = write(tmp_path / "own.j2", "#!/bin/sh\n")
    site_folders.write(site_folders.user, "hpc", f"environment: {{template: {template}}}\n")
    assert load_site("hpc").profile.environment.template == str(template)
    template.chmod(0o666)
    assert f"run 'chmod o-w {template}'" in refusal()


def test_a_template_that_is_not_trusted_is_not_even_tried(
    site_folders: SiteFolders, tmp_path: Path
) -> None:
    template = write(tmp_path / "own.j2", "{% if %}\n")
    site_folders.write(site_folders.user, "hpc", f"environment: {{template: {template}}}\n")
    template.chmod(0o666)
    assert f"run 'chmod o-w {template}'" in refusal()


def test_so_is_the_python_of_ones_own_part(site_folders: SiteFolders, path: Path) -> None:
    assert path.exists()
    part = site_folders.write_own_part("hpc", "python: /opt/python\n")
    assert load_site("hpc").user.python == "/opt/python"
    part.chmod(0o666)
    assert f"run 'chmod o-w {part}'" in refusal()


def test_an_untrusted_profile_hides_those_behind_it(site_folders: SiteFolders, path: Path) -> None:
    first = site_folders.write(site_folders.system, "hpc")
    first.chmod(0o666)
    assert "is not trusted" in str(known_sites()["hpc"].error)
    assert str(path) not in refusal()
