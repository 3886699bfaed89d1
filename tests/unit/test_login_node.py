"""What is seen of a login node at the other end, here a login shell of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.errors import CommandError
from hpc_bridge.sites import login_node as module
from hpc_bridge.sites.login_node import login_node
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import Login

LOGIN = Login("openssh", "login.hpc.example")
PROFILE = """\
echo Welcome; printf 'noise \\0'
PATH={home}/slurm:$PATH
export SCRATCH={home}/link WORK=relative PROJECT=/does/not/exist
module() {{ :; }}
squeue() {{ :; }}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an account whose login shells find Slurm's commands, and other shells do not."""
    monkeypatch.setattr(module, "transport_to", lambda _: LocalTransport())
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in module.FOLDERS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".bash_profile").write_text(PROFILE.format(home=tmp_path))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "link").symlink_to("scratch")
    (tmp_path / "slurm").mkdir()
    for name in ("scontrol", "sbatch", "apptainer"):
        program = tmp_path / "slurm" / name
        program.write_text(f"#!/bin/sh\necho {name} $*\n")
        program.chmod(0o755)
    return tmp_path


def test_it_is_seen_as_a_login_shell_sees_it(home: Path) -> None:
    node = login_node(LOGIN)
    assert node.programs["sbatch"] == f"{home}/slurm/sbatch"
    assert "squeue" not in node.programs
    assert node.around.container_runtime == "apptainer"
    assert node.around.has_modules
    assert node.around.home.filesystem
    assert node.around.host
    # What is no folder is left out.
    assert [folder.name for folder in node.around.others] == ["$SCRATCH"]
    assert node.around.others[0].filesystem == node.around.home.filesystem


def test_commands_that_only_login_shells_find_are_told_and_can_be_asked(home: Path) -> None:
    node = login_node(LOGIN)
    paths = {name: f"{home}/slurm/{name}" for name in ("sbatch", "scontrol")}
    assert node.only_in_login_shells == paths
    assert node.ask(["scontrol", "show", "config"]).stdout == "scontrol show config\n"


def test_commands_for_a_profile_are_those_of_its_scheduler(home: Path) -> None:
    for name in ("qsub", "qstat"):
        program = home / "slurm" / name
        program.write_text(f"#!/bin/sh\necho {name} $*\n")
        program.chmod(0o755)
    node = login_node(LOGIN)
    assert set(node.commands_of("slurm")) == {"sbatch", "scontrol"}
    assert node.commands_of("pbs") == {name: f"{home}/slurm/{name}" for name in ("qsub", "qstat")}


def test_commands_that_every_shell_finds_need_no_path(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{home}/slurm:/usr/bin:/bin")
    assert login_node(LOGIN).only_in_login_shells == {}


def test_a_login_shell_that_ends_early_is_an_error_with_its_words(home: Path) -> None:
    (home / ".bash_profile").write_text("echo not today >&2; exit 3\n")
    with pytest.raises(CommandError, match=r"on login\.hpc\.example does not answer: not today"):
        login_node(LOGIN)
