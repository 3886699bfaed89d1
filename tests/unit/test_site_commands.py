"""``hpc-bridge site list``, ``show``, ``validate``, ``accept`` and ``schema``, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_bridge.cli.app import app
from hpc_bridge.cli.site_list import list_sites
from hpc_bridge.cli.site_show import accept_site, show_site
from hpc_bridge.cli.site_validate import validate_profile
from hpc_bridge.errors import SiteError
from hpc_bridge.sites.schema import profile_schema
from hpc_bridge.sites.yaml_text import load
from tests.unit.site_folders import SiteFolders, write

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch, site_folders: SiteFolders) -> object:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield site_folders


# list


def test_sites_are_listed_with_examples_last(capsys: Captured, site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "zebra", "description: In stripes\n")
    list_sites(as_json=False)
    out, err = capsys.readouterr()
    rows = [line.split(maxsplit=3) for line in out.splitlines()]
    assert [row[0] for row in rows] == [
        *("name", "local", "minihpc", "zebra"),
        *("example-pbs-centre", "example-slurm-gpu-centre", "example-slurm-university"),
    ]
    assert rows[3] == ["zebra", "slurm", str(path), "In stripes"]
    assert "Example: Cluster of a research centre (PBS Professional)" in out
    assert err == ""


def test_a_broken_profile_is_listed_with_its_error(
    capsys: Captured, site_folders: SiteFolders
) -> None:
    path = site_folders.write(site_folders.user, "bad", "contact: 3\n")
    list_sites(as_json=False)
    out = capsys.readouterr().out
    assert f"bad                       -          {path}" in out
    assert out.endswith(
        f'\n\n{path} cannot be used:\n  line 3: contact: 3 is not text to YAML; quote it: "3"\n'
    )


def test_the_list_for_machines(capsys: Captured, site_folders: SiteFolders) -> None:
    bad = site_folders.write(site_folders.user, "bad", "contact: 3\n")
    list_sites(as_json=True)
    lines = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert lines["bad"]["path"] == str(bad)
    assert "contact" in lines["bad"]["error"]
    assert lines["minihpc"] | {"path": ""} == {
        "name": "minihpc",
        "scheduler": "slurm",
        "from": "the package",
        "description": "Miniature Slurm cluster for tests",
        "example": False,
        "path": "",
        "error": None,
    }


def test_a_folder_that_is_missing_is_told(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITES", "/nowhere")
    list_sites(as_json=False)
    assert capsys.readouterr().err == "hpc-bridge: /nowhere does not exist\n"


def test_a_server_that_does_not_answer_is_told(capsys: Captured) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        list_sites(as_json=False)
    out, err = capsys.readouterr()
    assert "minihpc" in out
    assert err.startswith("hpc-bridge: published sites are not known: the Prefect server at")


def test_an_unknown_site_may_be_on_a_server_that_does_not_answer() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(SiteError, match=r"no file has a site profile 'hpc', and the Prefect server"),
    ):
        show_site("hpc", as_json=False)


# show


def test_a_site_is_shown_as_it_is_in_effect(capsys: Captured, site_folders: SiteFolders) -> None:
    path = site_folders.write(
        site_folders.user,
        "hpc",
        "partitions: [{name: cpu, walltime: 36h}]\nenvironment: {prologue: 'umask 077'}\n",
    )
    part = site_folders.write_own_part("hpc", "partition: cpu\n")
    show_site("hpc", as_json=False)
    profile, own = capsys.readouterr().out.split("---\n")
    before, after = profile.split("# from hpc-bridge's defaults\n")
    assert before.startswith(f"# from {path}\n")
    assert load(before).content == {
        "name": "hpc",
        "scheduler": {"type": "slurm", "accounting": True, "arrays": True},
        "partitions": [{"name": "cpu", "default": False, "walltime": "1-12:00:00"}],
        "environment": {"prologue": "umask 077"},
    }
    assert load(after).content == {
        "login": {"transport": "local", "master": "manage"},
        "paths": {"shared_dir": "~/.hpc-bridge"},
        "retention": "30d",
    }
    assert own == (
        f"# your own part, from {part}\npartition: cpu\n# from here: commands run on this machine\n"
    )


def test_what_is_shown_can_be_written_to_a_file(
    capsys: Captured, site_folders: SiteFolders
) -> None:
    show_site("example-slurm-university", as_json=False)
    text = capsys.readouterr().out.split("---\n")[0]
    write(site_folders.user / "example-slurm-university.yaml", text)
    show_site("example-slurm-university", as_json=True)
    again = json.loads(capsys.readouterr().out)
    (site_folders.user / "example-slurm-university.yaml").unlink()
    show_site("example-slurm-university", as_json=True)
    assert json.loads(capsys.readouterr().out)["profile"] == again["profile"]


def test_a_site_for_machines(capsys: Captured, site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "hpc")
    part = site_folders.write_own_part("hpc", "account: lab\n")
    show_site("hpc", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["source"] == str(path)
    assert shown["profile"]["scheduler"]["type"] == "slurm"
    assert (shown["user_file"], shown["user_part"]) == (str(part), {"account": "lab"})


def test_a_broken_site_is_not_shown(site_folders: SiteFolders) -> None:
    site_folders.write(site_folders.user, "bad", "contact: 3\n")
    with pytest.raises(SiteError, match="line 3: contact"):
        show_site("bad", as_json=False)


# validate


def test_a_right_profile(capsys: Captured, site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "hpc", "partitions: [{name: a}, {name: b}]\n")
    assert validate_profile(path) == 0
    valid = f"{path} is valid: site 'hpc', slurm, 2 partitions\n"
    assert capsys.readouterr() == (f"{valid}from here: commands run on this machine\n", "")


def test_how_a_site_is_reached_from_here_is_said(
    capsys: Captured, site_folders: SiteFolders
) -> None:
    login = "login: {transport: openssh, host: login.hpc.example, master: reuse}\n"
    path = site_folders.write(site_folders.user, "hpc", login)
    site_folders.write_own_part("hpc", "user: anna\ntransport: paramiko\n")
    validate_profile(path)
    assert "from here: over SSH as " in (said := capsys.readouterr().out)
    assert "@login.hpc.example (openssh, by the connection that you have opened)\n" in said
    show_site("hpc", as_json=False)
    reached = "over SSH as anna@login.hpc.example (paramiko"
    assert f"\n# from here: {reached}" in capsys.readouterr().out
    show_site("hpc", as_json=True)
    assert json.loads(capsys.readouterr().out)["reached"].startswith(reached)


def test_why_a_site_is_not_reached_is_said(
    capsys: Captured, site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site_folders.write(site_folders.user, "hpc")
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "openssh")
    assert validate_profile(path) == 0
    assert "from here: not reached: site hpc is to be reached by openssh" in capsys.readouterr().out


def test_a_wrong_profile(capsys: Captured, site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "hpc", "contact: 3\nlogin:\n")
    assert validate_profile(path) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n  line ")) == ("", 2)


def test_a_wrong_name(capsys: Captured, site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "hpc")
    assert validate_profile(path.rename(path.with_name("draft.yaml"))) == 1
    assert "line 1: name: 'hpc' is not the file's; rename it to hpc.yaml" in capsys.readouterr().err


def test_who_could_write_it_is_a_warning(capsys: Captured, site_folders: SiteFolders) -> None:
    template = write(site_folders.user / "own.j2", "#!/bin/sh\n")
    path = site_folders.write(site_folders.user, "hpc", "environment: {template: own.j2}\n")
    path.chmod(0o666)
    template.chmod(0o646)
    assert validate_profile(path) == 0
    out, err = capsys.readouterr()
    assert "is valid" in out
    assert [line.rpartition("run ")[2] for line in err.splitlines()] == [
        f"'chmod o-w {path}'",
        f"'chmod o-w {template}'",
    ]
    assert err.startswith("warning: not trusted for jobs as it is here: the file")


def test_a_prologue_that_bash_cannot_read(capsys: Captured, site_folders: SiteFolders) -> None:
    broken = "environment:\n  modules: [gcc]\n  prologue: |\n    echo a\n    fi\n"
    path = site_folders.write(site_folders.user, "hpc", broken)
    assert validate_profile(path) == 1
    assert capsys.readouterr().err == (
        f"{path} cannot be used:\n  line 5: environment.prologue: bash cannot read it:"
        " line 2: syntax error near unexpected token `fi'; line 2: `fi'\n"
    )


# accept and schema


def test_a_file_needs_no_acceptance(capsys: Captured, site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "hpc", "environment: {modules: [gcc]}\n")
    assert accept_site("hpc", yes=False) == 0
    assert capsys.readouterr().out == f"hpc comes from {path}; there is nothing to accept\n"


def test_the_schema_is_printed(capsys: Captured) -> None:
    app(["site", "schema"], result_action="return_value")
    assert json.loads(capsys.readouterr().out) == profile_schema()


def test_the_commands_are_there(capsys: Captured, tmp_path: Path) -> None:
    app(["site", "list"], result_action="return_value")
    app(["site", "show", "local", "--json"], result_action="return_value")
    for command in (["validate", str(tmp_path)], ["accept", "local", "--yes"]):
        with pytest.raises(SystemExit) as caught:
            app(["site", *command])
        assert caught.value.code == (1 if command[0] == "validate" else 0)
    assert "example-pbs-centre" in capsys.readouterr().out
