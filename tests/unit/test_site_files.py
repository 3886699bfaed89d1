"""Where profiles are looked for, which one is taken, and what a user's own part adds."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from hpc_bridge.errors import SiteError
from hpc_bridge.sites import yaml_text
from hpc_bridge.sites.choosing import site_of_pool
from hpc_bridge.sites.files import known_sites, load_site, only_site, search_path
from hpc_bridge.sites.resolve import local_site
from tests.unit.site_folders import SiteFolders

PACKAGED = {
    "local",
    "minihpc",
    "example-pbs-centre",
    "example-slurm-gpu-centre",
    "example-slurm-university",
}


def test_the_folders_in_their_order(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HPC_BRIDGE_SITES", f"~/a::{tmp_path}/b:")
    places = [(place.kind, place.folder, place.problem) for place in search_path()[:-1]]
    assert places == [
        ("system", site_folders.system, None),
        ("variable", tmp_path / "a", None),
        ("variable", tmp_path / "b", f"{tmp_path}/b does not exist"),
        ("user", site_folders.user, None),
    ]
    assert search_path()[-1].kind == "packaged"


def test_the_packaged_ones_are_always_known(site_folders: SiteFolders) -> None:
    site_folders.user.rmdir()
    site_folders.system.rmdir()
    known = known_sites()
    assert set(known) == PACKAGED
    assert {found.error for found in known.values()} == {None}


def test_the_first_file_of_a_name_wins(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(tmp_path / "named"))
    folders = [site_folders.system, tmp_path / "named", site_folders.user]
    for folder in folders:
        site_folders.write(folder, "local")
    for folder in folders:
        assert load_site("local").source == str(folder / "local.yaml")
        (folder / "local.yaml").unlink()
    assert load_site("local").profile.scheduler.type == "local"


def test_a_broken_profile_is_known_with_its_error(site_folders: SiteFolders) -> None:
    site_folders.write(site_folders.user, "good")
    path = site_folders.write(site_folders.user, "bad", "contact: 3\n")
    known = known_sites()
    assert known["good"].site is not None
    assert (known["bad"].site, known["bad"].path) == (None, path)
    assert "line 3: contact: 3 is not text" in str(known["bad"].error)


def test_a_profile_that_has_not_changed_is_not_parsed_again(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site_folders.write(site_folders.user, "hpc", "contact: one\n")
    load_site("hpc")

    parsed = []
    load = yaml_text.load
    monkeypatch.setattr(yaml_text, "load", lambda text: parsed.append(text) or load(text))
    assert load_site("hpc").profile.contact == "one"
    assert site_of_pool("hpc-nobody") is None
    assert parsed == []
    path.write_text(path.read_text().replace("one", "two"))
    assert load_site("hpc").profile.contact == "two"
    path.chmod(0o666)  # who may write is looked at each time
    with pytest.raises(SiteError, match="is not trusted"):
        load_site("hpc")


def test_other_files_are_no_profiles(site_folders: SiteFolders) -> None:
    for name in (".hpc.yaml", "hpc.yaml~", "hpc.yaml.bak", "profile.schema.json"):
        (site_folders.user / name).write_text("x")
    assert set(known_sites()) == PACKAGED


def test_a_file_with_the_other_ending_is_told(site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "hpc")
    path.rename(path.with_suffix(".yml"))
    assert "rename it to hpc.yaml" in str(known_sites()["hpc"].error)
    site_folders.write(site_folders.user, "hpc")
    assert known_sites()["hpc"].error is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [("minihcp", "did you mean 'minihpc'?"), ("zzz", "known are: local, minihpc")],
)
def test_an_unknown_name(site_folders: SiteFolders, name: str, hint: str) -> None:
    with pytest.raises(SiteError, match=f"there is no site profile '{name}'") as caught:
        load_site(name)
    assert str(caught.value).endswith(hint)


def test_a_mistyped_folder_is_told_with_an_unknown_name(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITES", "/nowhere")
    with pytest.raises(SiteError, match="/nowhere does not exist"):
        load_site("hpc")


def test_the_only_site_is_one_that_somebody_has_put_there(site_folders: SiteFolders) -> None:
    assert only_site() is None
    site_folders.write(site_folders.user, "hpc", "contact: 3\n")
    assert only_site() == "hpc"  # that it is broken is to be told, not to be passed over
    site_folders.write(site_folders.system, "hpc")
    assert only_site() == "hpc"
    site_folders.write(site_folders.system, "other")
    assert only_site() is None


def test_the_site_when_none_is_named(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_site(None) is None
    site_folders.write(site_folders.user, "hpc")
    assert getattr(local_site(None), "name", None) == "hpc"
    monkeypatch.setenv("HPC_BRIDGE_SITE", "minihpc")
    assert getattr(local_site(None), "name", None) == "minihpc"
    monkeypatch.setenv("HPC_BRIDGE_SITE", "only-a-name")
    assert local_site(None) is None
    with pytest.raises(SiteError):
        local_site("only-a-name")


# the user's own part

PARTITIONS = "partitions: [{name: cpu}, {name: gpu}]\naccounts: [lab]\n"


def test_ones_own_part_adds_variables(site_folders: SiteFolders) -> None:
    site_folders.write(site_folders.system, "hpc", PARTITIONS)
    part = "user: me2\naccount: lab\npartition: gpu\nqos: any\nhost: alias\npython: ~/env\n"
    site_folders.write_own_part("hpc", part + "shared_dir: /lustre/{user}\n")
    site = load_site("hpc")
    assert site.user_variables() == {
        "account": "lab",
        "partition": "gpu",
        "qos": "any",
        "python": "~/env",
        "shared_dir": "/lustre/me2",
    }
    assert (site.login_name, site.user.host) == ("me2", "alias")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}\n"])
def test_an_empty_part_is_none(site_folders: SiteFolders, text: str) -> None:
    site_folders.write(site_folders.system, "hpc")
    site_folders.write_own_part("hpc", text)
    assert load_site("hpc").user_variables() == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "account: lab\npartitions: []\n",
            "line 2: partitions: belongs to the admin's part of the site, which your own part"
            " cannot change",
        ),
        (
            "job_variables: {walltime: {maximum: 90d}}\n",
            "line 1: job_variables: belongs to the admin's part of the site, which your own part"
            " cannot change",
        ),
        ("acount: lab\n", "line 1: acount: there is no such key; did you mean 'account'?"),
        ("account: labb\n", "line 1: account: 'labb' is not offered by hpc; did you mean 'lab'?"),
        ("partition: x\n", "line 1: partition: 'x' is not offered by hpc; there are: cpu, gpu"),
        ("qos: low\n", "line 1: qos: 'low' is none of normal, high"),
        ("account: lab\naccount: lab\n", "line 2: 'account' is there twice, first at line 1"),
        ("python: env\n", "line 1: python: 'env' is not absolute; begin it with /, ~ or an"
         " environment variable"),
        ("user: ../../etc\n", "line 1: user: '../../etc' cannot be taken: leave out '/' and white"
         " space"),
    ],
)  # fmt: skip
def test_ones_own_part_cannot_change_what_the_admin_fixes(
    site_folders: SiteFolders, text: str, problem: str
) -> None:
    rules = "job_variables: {qos: {choices: [normal, high]}}\n"
    site_folders.write(site_folders.system, "hpc", PARTITIONS + rules)
    part = site_folders.write_own_part("hpc", text)
    with pytest.raises(SiteError) as caught:
        load_site("hpc")
    assert str(caught.value) == f"{part} cannot be used:\n  {problem}"
    assert str(caught.value) == known_sites()["hpc"].error


# job variables


def test_the_profile_gives_job_variables(site_folders: SiteFolders) -> None:
    site_folders.write(
        site_folders.user,
        "hpc",
        "paths: {shared_dir: '/lustre/{user}/flows'}\nenvironment: {python: ~/env}\n"
        "network: {api_url: 'http://prefect:4200/api'}\n"
        "job_variables: {walltime: {default: 1h, maximum: 3d}, memory: {maximum: 4G}}\n",
    )
    assert load_site("hpc").admin_variables() == {
        "scheduler": "slurm",
        "shared_dir": f"/lustre/{getpass.getuser()}/flows",
        "python": "~/env",
        "api_url": "http://prefect:4200/api",
        "walltime": "1h",
    }


def test_a_site_without_arrays_and_with_a_pace(site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "hpc")
    path.write_text(
        "name: hpc\nscheduler: {type: slurm, arrays: false, poll_interval: 60}\n"
        "job_variables: {array_throttle: {default: 5}}\n"
    )
    variables = load_site("hpc").admin_variables()
    assert (variables["arrays"], variables["poll_interval"]) == (False, 60)
    assert variables["array_throttle"] == 5
