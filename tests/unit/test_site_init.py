"""The command that drafts a profile, with commands that print what real ones printed."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from hpc_bridge.cli import site_init
from hpc_bridge.cli.site_init import init_site
from hpc_bridge.errors import SchedulerUnavailable, SiteError
from hpc_bridge.sites import login_node
from hpc_bridge.sites.files import read_profile
from hpc_bridge.sites.login_node import LoginNode
from hpc_bridge.sites.profile import LoginPart
from hpc_bridge.sites.surroundings import Folder, Surroundings
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import Login
from tests.unit import pbs_answers
from tests.unit.slurm_answers import answer


def make_command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with Slurm's commands, for a user who is somewhere else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("env", "cat", "bash"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, kinds in (
        ("scontrol", {"config": "config", "partition": "partitions", "node": "nodes"}),
        ("sacctmgr", {"account": "accounts", "qos": "qos"}),
    ):
        cases = []
        for word, kind in kinds.items():
            (folder / kind).write_text(answer("24.11", f"site-{kind}").stdout)
            cases.append(f"*' {word}'*) cat {folder / kind};;")
        make_command(folder, name, f'case "$*" in {" ".join(cases)} esac')
    monkeypatch.setenv("PATH", str(folder))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder


def init(name: str | None = None, output: Path | None = None, *, force: bool = False) -> str:
    """What the command says."""
    said = io.StringIO()
    init_site(name, output, yes=True, force=force, console=Console(file=said, width=200))
    return said.getvalue()


@pytest.mark.usefixtures("commands")
def test_the_file_is_named_after_the_cluster_and_valid() -> None:
    said = init()
    profile = read_profile(Path("mini.yaml"))
    assert (profile.name, len(profile.partitions)) == ("mini", 4)
    assert Path("mini.yaml").stat().st_mode & 0o777 == 0o644
    assert "hpc-bridge site validate mini.yaml" in said


@pytest.mark.usefixtures("commands")
def test_a_name_and_a_folder_can_be_given() -> None:
    Path("profiles").mkdir()
    init("other", Path("profiles"))
    assert read_profile(Path("profiles/other.yaml")).name == "other"


@pytest.mark.usefixtures("commands")
def test_a_file_is_replaced_only_when_asked_for() -> None:
    Path("mini.yaml").write_text("mine " * 10000)
    with pytest.raises(SiteError, match=r"mini\.yaml exists.*--force"):
        init()
    assert Path("mini.yaml").read_text().startswith("mine")
    init(force=True)
    assert read_profile(Path("mini.yaml")).name == "mini"


@pytest.mark.usefixtures("commands")
def test_it_can_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    init(output=Path("-"))
    assert "\nname: mini\n" in capsys.readouterr().out
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("commands")
def test_a_file_gives_the_name_where_nothing_else_does() -> None:
    assert "must be called" not in init(output=Path("mycluster.yaml"))
    assert read_profile(Path("mycluster.yaml")).name == "mycluster"
    assert "must be called mini.yaml" in init(output=Path("my cluster.yaml"))


@pytest.mark.usefixtures("commands")
def test_a_file_that_would_not_be_found_as_a_profile_is_remarked_on() -> None:
    assert "must be called a.yaml" in init("a", Path("b.yaml"))
    assert "must be called" not in init("a")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person at a terminal types."""
    given: list[str] = []

    def typed(_: str = "") -> str:
        if not given:
            raise EOFError
        return given.pop(0)

    monkeypatch.setattr("builtins.input", typed)
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    return given


def ask_init(name: str | None = None) -> str:
    said = io.StringIO()
    init_site(name, None, yes=False, force=False, console=Console(file=said, width=200))
    return said.getvalue()


@pytest.mark.usefixtures("commands")
def test_a_person_is_asked_again_until_it_makes_sense(answers: list[str]) -> None:
    answers += ["bad name", "ours", "Our cluster", "help@example.org", "x", "/shared/{user}"]
    assert "cannot name a site" in ask_init()
    profile = read_profile(Path("ours.yaml"))
    assert (profile.description, profile.contact) == ("Our cluster", "help@example.org")
    assert profile.paths.shared_dir == "/shared/{user}"


@pytest.mark.usefixtures("commands")
def test_enter_takes_what_is_suggested_and_a_file_is_kept(answers: list[str]) -> None:
    answers += ["", "", "", ""]
    ask_init()
    assert read_profile(Path("mini.yaml")).description == "Slurm cluster mini"
    Path("mini.yaml").write_text("mine")
    answers += ["", "", "", "", "n"]
    with pytest.raises(SiteError, match="--force"):
        ask_init()
    assert Path("mini.yaml").read_text() == "mine"
    answers += ["", "", "", "y"]
    ask_init("mini")
    assert read_profile(Path("mini.yaml")).name == "mini"


@pytest.mark.usefixtures("commands", "answers")
def test_the_end_of_input_writes_nothing() -> None:
    with pytest.raises(SiteError, match="--yes asks nothing"):
        ask_init()
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("name", ["../x", "", "a b", "-x"])
def test_what_cannot_name_a_site_is_refused(name: str) -> None:
    with pytest.raises(SiteError, match="cannot name a site"):
        init(name)


@pytest.mark.usefixtures("commands")
def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(SiteError, match=r"/does/not/exist/x\.yaml cannot be written: No such file"):
        init("x", Path("/does/not/exist/x.yaml"))


def test_without_a_scheduler_it_says_where_to_run(commands: Path) -> None:
    (commands / "scontrol").unlink()
    with pytest.raises(SiteError, match="Run this on a login node"):
        init()


@pytest.fixture
def pbs_commands(commands: Path) -> Path:
    """The same with PBS's commands instead."""
    (commands / "scontrol").unlink()
    (commands / "sacctmgr").unlink()
    for name in ("qstat_B_f_json", "qstat_Q_f_json"):
        (commands / name).write_text(pbs_answers.answer("qstat", name).stdout)
    (commands / "nodes").write_text(pbs_answers.answer("pbsnodes", "pbsnodes_av_json").stdout)
    folder = commands
    cases = f"*-B*) cat {folder}/qstat_B_f_json;; *-Q*) cat {folder}/qstat_Q_f_json;;"
    make_command(commands, "qstat", f'case "$*" in {cases} esac')
    make_command(commands, "pbsnodes", f"cat {folder}/nodes")
    return commands


@pytest.mark.usefixtures("pbs_commands")
def test_a_pbs_cluster_is_drafted_from_its_own_answers() -> None:
    assert "hpc-bridge site validate pbshost.yaml" in init()
    profile = read_profile(Path("pbshost.yaml"))
    assert (profile.name, profile.scheduler.type) == ("pbshost", "pbs")
    assert [one.name for one in profile.partitions] == ["workq"]
    assert profile.description == "PBS cluster pbshost"


@pytest.mark.usefixtures("pbs_commands")
def test_a_person_at_a_pbs_cluster_is_asked(answers: list[str]) -> None:
    answers += ["", "", "help@example.org", "/gpfs/{user}"]
    ask_init()
    profile = read_profile(Path("pbshost.yaml"))
    assert (profile.description, profile.contact) == ("PBS cluster pbshost", "help@example.org")


def test_slurms_wrappers_in_the_names_of_pbs_are_slurm(commands: Path) -> None:
    make_command(commands, "qstat", "exit 1")
    init()
    assert read_profile(Path("mini.yaml")).scheduler.type == "slurm"


def test_a_server_that_is_down_leaves_no_file(pbs_commands: Path) -> None:
    dead = pbs_answers.answer("qstat", "down.qstat_B").stderr.strip()
    make_command(pbs_commands, "qstat", f"echo '{dead}' >&2; exit 255")
    with pytest.raises(SchedulerUnavailable, match="PBS does not answer"):
        init()
    assert not list(Path.cwd().iterdir())


def test_without_pbsnodes_the_nodes_are_not_known(pbs_commands: Path) -> None:
    (pbs_commands / "pbsnodes").unlink()
    assert "not known: nodes" in init()
    assert read_profile(Path("pbshost.yaml")).partitions[0].nodes is None


def test_a_controller_that_is_away_leaves_no_file(commands: Path) -> None:
    dead = answer("24.11", "site-config-controller-dead")
    make_command(commands, "scontrol", f"echo '{dead.stderr.strip()}' >&2; exit 1")
    with pytest.raises(SchedulerUnavailable, match="Unable to contact slurm controller"):
        init()
    assert not list(Path.cwd().iterdir())


def test_what_sacctmgr_refuses_is_said_in_the_file(commands: Path) -> None:
    make_command(commands, "sacctmgr", "echo 'sacctmgr: error: Access denied' >&2; exit 1")
    said = init()
    assert "not known: accounts (Access denied)" in said
    assert "# Not known: Access denied\n# qos:\n" in Path("mini.yaml").read_text()
    assert read_profile(Path("mini.yaml")).qos == ()


def test_sacctmgr_may_be_missing(commands: Path) -> None:
    (commands / "sacctmgr").unlink()
    assert "sacctmgr is not on PATH" in init()


# over SSH


def there(
    monkeypatch: pytest.MonkeyPatch, programs: Mapping[str, str], only: Mapping[str, str] = {}
) -> Login:
    """A login host that runs the commands of this machine."""
    login = Login("openssh", "mini", "anna", "reuse")
    around = Surroundings("login3", Folder("~", "nfs4"))
    node = LoginNode(login, around, programs, only)
    monkeypatch.setattr(site_init, "login_node", lambda _: node)
    monkeypatch.setattr(site_init, "host_of", lambda _: "login.hpc.example")
    monkeypatch.setattr(login_node, "transport_to", lambda _: LocalTransport())
    return login


def init_over_ssh(login: Login) -> str:
    said = io.StringIO()
    console = Console(file=said, width=200)
    init_site(None, None, yes=True, force=False, console=console, login=login)
    return said.getvalue()


@pytest.mark.usefixtures("commands")
def test_a_login_host_is_asked_and_the_profile_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    said = init_over_ssh(there(monkeypatch, {"scontrol": "/usr/bin/scontrol"}))
    profile = read_profile(Path("mini.yaml"))
    assert profile.login == LoginPart(
        transport="openssh", host="login.hpc.example", machines=("login3",), master="reuse"
    )
    assert profile.scheduler.commands == {}
    assert len(profile.partitions) == 4
    assert "on login3 from the answers of Slurm" in Path("mini.yaml").read_text()
    # What is only this user's is in no profile that others get.
    assert "anna" not in Path("mini.yaml").read_text()
    assert "write 'host: mini' and 'user: anna' into " in said


@pytest.mark.usefixtures("commands")
def test_commands_that_only_login_shells_find_are_named_by_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"scontrol": "/opt/slurm/bin/scontrol"}
    init_over_ssh(there(monkeypatch, found, found))
    commands = read_profile(Path("mini.yaml")).scheduler.commands
    assert commands == {"scontrol": ("/opt/slurm/bin/scontrol",)}
    assert "since only login shells find them" in Path("mini.yaml").read_text()


@pytest.mark.usefixtures("pbs_commands")
def test_a_login_host_of_pbs_is_asked_and_its_commands_named_by_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {name: f"/opt/pbs/bin/{name}" for name in ("qstat", "qsub", "pbsnodes")}
    init_over_ssh(there(monkeypatch, found, found | {"sacct": "/usr/bin/sacct"}))
    profile = read_profile(Path("pbshost.yaml"))
    assert profile.scheduler.commands == {name: (path,) for name, path in found.items()}
    assert (profile.login.host, profile.login.machines) == ("login.hpc.example", ("login3",))


@pytest.mark.usefixtures("commands")
def test_a_host_without_a_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SiteError, match=r"PATH on anna@mini, .* Is it a login node"):
        init_over_ssh(there(monkeypatch, {}))
    assert not list(Path.cwd().iterdir())
