"""Unit files that keep a worker running."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_bridge.cli.service import pool_type_of, scrontab_entry, systemd_unit
from hpc_bridge.errors import InvalidJobSpec, SettingsError
from hpc_bridge.settings import Settings
from tests.unit.site_folders import SiteFolders, write

SHARED = Path("/shared/50%")
ODD = "we\"ird $HOME `id` 50% \\x 'quoted'"


def entry(pool: str = "slurm-me", **options: str | None) -> str:
    given = {"partition": None, "account": None, "walltime": "1d", **options}
    return scrontab_entry(pool, given.pop("name", None), SHARED, **given)  # type: ignore[arg-type]


def line(text: str, start: str) -> str:
    [found] = [line for line in text.splitlines() if line.startswith(start)]
    return found


@pytest.mark.parametrize("pool", ["slurm-me", ODD])
def test_systemd_takes_the_unit(tmp_path: Path, pool: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    path = tmp_path / "hpc-bridge-worker.service"
    path.write_text(systemd_unit(pool, pool))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(path)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_values_are_quoted_for_systemd() -> None:
    command = line(systemd_unit(ODD, None), "ExecStart=")
    assert '--pool "we\\"ird $$HOME `id` 50%% \\\\x \'quoted\'"' in command
    assert command.startswith(f'ExecStart="{sys.executable}" -m prefect worker start --type slurm ')


def test_values_are_quoted_for_the_shell_of_scrontab() -> None:
    text = entry(ODD, name="a b")
    command = line(text, "*/5 * * * * ").removeprefix("*/5 * * * * ")
    before, _, start = command.partition("exec ")
    assert before.startswith("set -a; . ~/.config/hpc-bridge/worker.env; PATH=")
    show = f"printf '%s\\n' {start}"
    done = subprocess.run(["sh", "-c", show], capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[words.index("--pool") + 1] == ODD
    assert words[words.index("--name") + 1] == "a b"


def test_two_workers_of_a_pool_wait_for_each_other_in_scrontab() -> None:
    text = entry(partition="service", account="lab", walltime="12h")
    options = [line for line in text.splitlines() if line.startswith("#SCRON")]
    for option in (
        "#SCRON --job-name=hpc-bridge-worker-slurm-me",
        "#SCRON --dependency=singleton",
        "#SCRON --partition=service",
        "#SCRON --account=lab",
        "#SCRON --time=12:00:00",
        "#SCRON --open-mode=append",
        f"#SCRON --output={SHARED.parent}/50%%/worker-slurm-me.log",
    ):
        assert option in options


def test_what_is_not_asked_for_is_left_to_the_cluster() -> None:
    assert "--partition" not in entry()
    assert "--account" not in entry()


@pytest.mark.parametrize("write", [lambda: systemd_unit("p", None), entry])
def test_no_secret_is_in_the_text(
    write: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "a-secret-of-this-test")
    text = write()
    assert "worker.env" in text
    assert "PREFECT_API_KEY='...'" in text
    assert "a-secret-of-this-test" not in text


@pytest.mark.parametrize("make", [systemd_unit, lambda pool, name: entry(pool, name=name)])
@pytest.mark.parametrize(("pool", "name"), [("a\nExecStart=x", "n"), ("p", "a\nb")])
def test_a_line_break_is_refused(make: object, pool: str, name: str) -> None:
    with pytest.raises(InvalidJobSpec, match="line break"):
        make(pool, name)  # type: ignore[operator]


def test_a_wrong_walltime_is_refused_by_name() -> None:
    with pytest.raises(InvalidJobSpec, match="walltime: '90' is not a walltime"):
        entry(walltime="90")


def test_the_type_of_a_pool_is_that_of_its_site_else_of_the_settings(
    site_folders: SiteFolders,
) -> None:
    write(site_folders.user / "p.yaml", "name: p\nscheduler: {type: pbs}\n")
    site_folders.write(site_folders.user, "s")
    me = getpass.getuser()
    assert pool_type_of(f"p-{me}", Settings(scheduler="slurm")) == "pbs"
    assert pool_type_of(f"s-{me}", Settings(scheduler="pbs")) == "slurm"
    assert pool_type_of("mine", Settings(scheduler="pbs")) == "pbs"
    assert pool_type_of("mine", Settings(scheduler="local")) == "slurm"


def test_a_worker_of_pbs_has_qsub_on_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qsub").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    text = systemd_unit("p", None, "pbs")
    assert "worker start --type pbs --pool" in line(text, "ExecStart=")
    assert (
        line(text, "Environment=") == f'Environment="PATH={tmp_path}:/usr/local/bin:/usr/bin:/bin"'
    )


def test_scrontab_is_slurms_alone() -> None:
    with pytest.raises(SettingsError, match=r"'p' is of PBS, and scrontab is Slurm's.*systemd"):
        scrontab_entry("p", None, SHARED, partition=None, account=None, walltime="1d", kind="pbs")
