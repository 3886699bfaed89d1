"""What a published profile lets jobs execute: shown, accepted once, refused when it changes."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.acceptance import (
    accept,
    acceptance_file,
    check_accepted,
    executed_text,
    is_accepted,
)
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from tests.unit.site_folders import SiteFolders

SERVER = "http://prefect:4200/api"


@pytest.fixture(autouse=True)
def _own_folder(site_folders: SiteFolders) -> None:
    assert acceptance_file().parent == site_folders.config


def profile(**parts: Any) -> SiteProfile:
    return SiteProfile.model_validate({"name": "hpc", "scheduler": {"type": "slurm"}} | parts)


def published(prologue: str = "", server: str = SERVER, **parts: Any) -> Site:
    return Site(profile(environment={"prologue": prologue}, **parts), source=server)


def accept_all(site: Site) -> None:
    accept(site.name, site.source, executed_text(site.profile))


def refusal(site: Site) -> list[str]:
    with pytest.raises(SiteError) as caught:
        check_accepted(site)
    return str(caught.value).splitlines()


def test_the_executed_text_has_every_executed_field() -> None:
    text = executed_text(
        profile(
            scheduler={
                "type": "slurm",
                "commands": {"squeue": "w squeue", "sbatch": "/opt/sbatch"},
            },
            environment={
                "modules": ["gcc", "cuda"],
                "prologue": "ulimit -c 0\nexport A=1\n",
                "python": "/opt/py",
                "template": "#!/bin/sh\n{{ spec.name }}",
            },
            containers={"runtime": "apptainer"},
            network={"api_url": "http://prefect:4200/api"},
            login={"transport": "openssh", "host": "login.example.org"},
        )
    )
    assert text == (
        "scheduler.commands.sbatch:\n  | /opt/sbatch\n"
        "scheduler.commands.squeue:\n  | w\n  | squeue\n"
        "environment.modules:\n  | gcc\n  | cuda\n"
        "environment.prologue:\n  | ulimit -c 0\n  | export A=1\n  | \n"
        "environment.python:\n  | /opt/py\n"
        "environment.template:\n  | #!/bin/sh\n  | {{ spec.name }}\n"
        "containers.runtime:\n  | apptainer\n"
        "network.api_url:\n  | http://prefect:4200/api\n"
        "login.transport:\n  | openssh\n"
        "login.master:\n  | manage\n"
        "login.host:\n  | login.example.org\n"
    )


def test_where_nothing_is_reached_over_ssh_a_login_host_need_not_be_accepted() -> None:
    assert executed_text(profile(login={"host": "login.example.org"})) == ""


def test_how_a_login_host_is_reached_is_accepted_too() -> None:
    login = {"host": "login.example.org", "transport": "openssh"}
    ways = [login, {**login, "master": "reuse"}, {**login, "transport": "paramiko"}]
    assert len({executed_text(profile(login=way)) for way in ways}) == 3


def test_nothing_executed_needs_no_acceptance() -> None:
    site = published(partitions=[{"name": "cpu", "walltime": "1d"}], contact="me")
    assert executed_text(site.profile) == ""
    check_accepted(site)
    assert not acceptance_file().exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a\x1b[8m", "a\\x1b[8m"),
        ("a\x1b[8m", '! "a\\u001b[8m"'),
        ("a", "a\n"),
        ("a\rb", "a\nb"),
        ("a", "a\nenvironment.python:\n  | /evil"),
        ("a\u202eb", "ab"),
    ],
)
def test_different_profiles_have_different_texts(one: str, other: str) -> None:
    texts = [executed_text(profile(environment={"prologue": text})) for text in (one, other)]
    assert texts[0] != texts[1]
    assert all(line.isprintable() for text in texts for line in text.splitlines())


def test_names_of_commands_make_no_lines() -> None:
    commands = {"sbatch:\n  | x\nscheduler.commands.squeue": "y"}
    other = {"sbatch": "x", "squeue": "y"}
    texts = [
        executed_text(profile(scheduler={"type": "local", "commands": one}))
        for one in (commands, other)
    ]
    assert texts[0] != texts[1]


def test_the_first_time_all_of_it_is_shown() -> None:
    lines = refusal(published("ulimit -c 0"))
    assert lines == [
        f"site 'hpc', published on {SERVER}, would have your jobs execute this:",
        "",
        "environment.prologue:",
        "  | ulimit -c 0",
        "",
        "Read it, then run: hpc-bridge site accept hpc",
    ]


def test_what_is_accepted_stays_accepted() -> None:
    site = published("ulimit -c 0")
    accept_all(site)
    check_accepted(site)
    check_accepted(published("ulimit -c 0", contact="a change of what is not executed"))


def test_a_change_is_shown_as_a_difference() -> None:
    accept_all(published("ulimit -c 0\nexport A=1"))
    lines = refusal(published("ulimit -c 0\nexport A=2"))
    assert lines[0].endswith("has changed what jobs execute:")
    assert lines[2:-2] == [
        "--- accepted",
        "+++ now",
        "@@ -1,3 +1,3 @@",
        " environment.prologue:",
        "   | ulimit -c 0",
        "-  | export A=1",
        "+  | export A=2",
    ]


def test_taking_everything_away_needs_no_acceptance() -> None:
    accept_all(published("ulimit -c 0"))
    check_accepted(published(""))


def test_it_holds_for_one_server_and_one_site() -> None:
    site = published("ulimit -c 0")
    accept_all(site)
    text = executed_text(site.profile)
    assert not is_accepted("hpc", "http://elsewhere/api", text)
    assert not is_accepted("other", SERVER, text)


def test_a_job_may_know_the_server_by_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    accept_all(published("ulimit -c 0"))
    from_a_node = published("ulimit -c 0", server="http://10.0.0.1:4200/api")
    with pytest.raises(SiteError):
        check_accepted(from_a_node)
    monkeypatch.setenv("HPC_BRIDGE_RUN_DIR", "/shared/runs/hb1")
    check_accepted(from_a_node)
    with pytest.raises(SiteError):
        check_accepted(published("ulimit -c 1", server="http://10.0.0.1:4200/api"))


def test_it_is_kept_with_its_text_where_only_the_user_reads() -> None:
    accept_all(published("a"))
    accept_all(published("b", server="http://elsewhere/api"))
    path = acceptance_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = json.loads(path.read_text())["servers"]
    assert kept[SERVER]["hpc"]["text"] == "environment.prologue:\n  | a\n"
    assert set(kept) == {SERVER, "http://elsewhere/api"}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": 1, "servers": {"a": {"b": {}}}}', "\udcff"]
)
def test_a_damaged_file_accepts_nothing(content: str) -> None:
    acceptance_file().write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SiteError, match="is damaged; remove it"):
        check_accepted(published("a"))


def test_a_newer_file_is_not_overwritten() -> None:
    newer = '{"format": 2}'
    acceptance_file().write_text(newer)
    with pytest.raises(SiteError, match="newer hpc-bridge"):
        accept_all(published("a"))
    assert acceptance_file().read_text() == newer


def test_a_folder_that_cannot_be_written(site_folders: SiteFolders) -> None:
    acceptance_file().mkdir()
    with pytest.raises(SiteError, match="cannot be read: Is a directory"):
        accept_all(published("a"))


def test_the_folder_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HPC_BRIDGE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "new"))
    accept_all(published("a"))
    check_accepted(published("a"))
