"""``hpc-bridge render --explain``: where each line of the script comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_bridge.cli.render import rendered_script
from hpc_bridge.errors import InvalidJobSpec, SiteError
from tests.unit.site_folders import SiteFolders

PROFILE = """\
partitions: [{name: cpu, default: true, walltime: 1d}]
paths: {node_scratch: /local}
environment: {modules: [gcc], prologue: "export A=1\\nexport B=2\\n"}
job_variables: {walltime: {default: 2h}}
"""
FLOW = """\
from prefect import flow
from hpc_bridge import slurm

@slurm(nodes=2, memory="2G", directives=["--mail-type=END"])
@flow
def train(): ...
"""


@pytest.fixture(autouse=True)
def alpha(site_folders: SiteFolders, shared: Path) -> SiteFolders:
    """A site that leaves something out and adds something."""
    path = site_folders.write(site_folders.system, "alpha", PROFILE)
    scheduler = "{type: slurm, skip_directives: --mem, add_directives: --nice=3}"
    path.write_text(path.read_text().replace("{type: slurm}", scheduler))
    site_folders.write_own_part("alpha", "account: mine\n")
    (site_folders.config / "config.toml").write_text(
        f'shared_dir = "{shared}"\nsetup = ["echo one", "echo two"]\n'
    )
    return site_folders


def explained(folder: Path, *assignments: str, site: str | None = None) -> dict[str, str]:
    """The remark of each line, by the line."""
    file = folder / "flows.py"
    file.write_text(FLOW)
    with temporary_settings({PREFECT_API_URL: None}):
        text = rendered_script(f"{file}:train", assignments, None, site=site, explain=True)
    pairs = [line.rpartition("  # ") for line in text.splitlines() if line]
    return {line.rstrip(): remark for line, _, remark in pairs}


def test_each_line_has_the_place_that_has_the_say(
    alpha: SiteFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "/env/bin/python")
    remarks = explained(tmp_path, "tasks=4", "nodes=1")
    of_site = f"site 'alpha', {alpha.system / 'alpha.yaml'}"
    user_file = f"user file: {alpha.config / 'config.toml'}"
    expected = {
        "#!/bin/bash": "package's template",
        "#SBATCH --open-mode=append": "package's template",
        "#SBATCH --comment=train": "hpc-bridge: names of flow and run (comment)",
        "#SBATCH --nodes=1": "--set (nodes)",
        "#SBATCH --ntasks=4": "--set (tasks)",
        "# #SBATCH --mem=2G": f"left out by {of_site} (scheduler.skip_directives)",
        "#SBATCH --account=mine": (
            f"your part of the site: {alpha.config / 'my-sites' / 'alpha.yaml'} (account)"
        ),
        "#SBATCH --time=02:00:00": f"{of_site} (walltime)",
        "#SBATCH --signal=B:USR1@60": "package default (warning)",
        "#SBATCH --nice=3": f"{of_site} (scheduler.add_directives)",
        "#SBATCH --mail-type=END": "decorator (directives)",
        "python=/env/bin/python": "HPC_BRIDGE_PYTHON (python)",
        "export HPC_BRIDGE_SCRATCH=/local": f"{of_site} (paths.node_scratch)",
        "module load gcc": f"{of_site} (environment.modules)",
        "export A=1": f"{of_site} (environment.prologue)",
        "export B=2": f"{of_site} (environment.prologue)",
        "echo one": f"{user_file} (setup)",
        "echo two": f"{user_file} (setup)",
        "umask 077": "package's template",
    }
    assert {line: remarks.get(line) for line in expected} == expected
    [run_dir] = [line for line in remarks if line.startswith("run_dir=")]
    assert str(shared) in run_dir
    assert remarks[run_dir] == f"{user_file} (shared_dir)"
    [name] = [line for line in remarks if line.startswith("#SBATCH --job-name=")]
    assert remarks[name] == "hpc-bridge: id of the submission"


def test_a_variable_wins_over_the_file_and_an_empty_one_is_none(
    alpha: SiteFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alpha.config / "config.toml").write_text('python = "/file"\n')
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "")
    assert explained(tmp_path)["python=/file"].startswith("user file: ")
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "/variable")
    assert explained(tmp_path)["python=/variable"] == "HPC_BRIDGE_PYTHON (python)"


def test_a_template_of_ones_own_is_named(tmp_path: Path, alpha: SiteFolders) -> None:
    own = tmp_path / "own.sh.j2"
    own.write_text("#!/bin/sh\n#SBATCH -N {{ spec.nodes }} -J {{ spec.name }}\necho {{ python }}\n")
    remarks = explained(tmp_path, f"template={own}", "python=/p")
    assert remarks["#!/bin/sh"] == f"--set (template {own})"
    assert remarks["echo /p"] == "--set (python)"


def test_without_a_site_nothing_is_the_sites(site_folders: SiteFolders, tmp_path: Path) -> None:
    (site_folders.system / "alpha.yaml").unlink()
    remarks = explained(tmp_path)
    assert remarks["#SBATCH --mem=2G"] == "decorator (memory)"
    assert not [remark for remark in remarks.values() if remark.startswith("site")]


def test_lines_are_those_that_would_be_submitted(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        plain = rendered_script(None, ["memory=1G"], None).splitlines()
        text = rendered_script(None, ["memory=1G"], None, explain=True).splitlines()
    kept = [line.rpartition("  # ")[0].rstrip() for line in text if "# #SBATCH" not in line]

    def general(lines: list[str]) -> list[str]:
        return [
            line.rstrip() for line in lines if "/runs/hb" not in line and "job-name" not in line
        ]

    assert general(kept) == general(plain)


def test_the_named_site_is_that_of_the_option(alpha: SiteFolders, tmp_path: Path) -> None:
    alpha.write(alpha.system, "beta", "job_variables: {walltime: {default: 3h}}\n")
    remarks = explained(tmp_path, site="beta")
    assert remarks["#SBATCH --time=03:00:00"].startswith("site 'beta', ")


def test_what_the_site_would_not_take_is_not_rendered(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        with pytest.raises(InvalidJobSpec, match="allows 1 day; you asked for 9 days"):
            rendered_script(None, ["walltime=9d"], None)
        with pytest.raises(SiteError, match="did you mean 'alpha'"):
            rendered_script(None, [], None, site="alpa")


def test_a_server_that_does_not_answer_leaves_the_profiles_of_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        script = rendered_script(None, ["walltime=1h"], None, site="minihpc")
    assert "--time=01:00:00" in script
    assert "the server does not answer" in capsys.readouterr().err
