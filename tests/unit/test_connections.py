"""How a site's profile shapes the process's connection to its scheduler."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge import connections, load
from hpc_bridge.connections import NO_OPTIONS, ClusterOptions, connect
from hpc_bridge.errors import CommandNotFound, SettingsError, TooManyJobs
from hpc_bridge.jobs import JobId
from hpc_bridge.schedulers.base import Commands
from hpc_bridge.sites.profile import SiteProfile
from tests.unit.slurm_answers import SINCE

EVERYTHING = {
    "type": "slurm",
    "commands": {"squeue": ["/site/wrap", "squeue"], "sbatch": "/opt/sbatch"},
    "cluster": "mini",
    "accounting": False,
    "arrays": False,
    "submissions_per_minute": 6,
    "live_jobs": 20,
    "shortest_poll_interval": 10.0,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    load.flush()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(connections, "_connections", {})
    yield tmp_path / f"hpc-bridge-{os.getuid()}"
    load.flush()


def options(**scheduler: Any) -> ClusterOptions:
    part = {"type": "slurm"} | scheduler
    return ClusterOptions.of(SiteProfile.model_validate({"name": "a", "scheduler": part}))


def fake(folder: Path, **scripts: str) -> dict[str, str]:
    """Commands of a profile that are shell scripts and note their arguments."""
    for name, text in scripts.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/log\n{text}\n')
        path.chmod(0o755)
    return {name: str(folder / name) for name in scripts}


# options


def test_a_profile_that_says_nothing_gives_no_options() -> None:
    assert options() == NO_OPTIONS
    assert NO_OPTIONS.stored() == {}


def test_options_keep_all_that_a_profile_says() -> None:
    assert options(**EVERYTHING) == ClusterOptions(
        commands=Commands.of({"sbatch": ["/opt/sbatch"], "squeue": ["/site/wrap", "squeue"]}),
        cluster="mini",
        accounting=False,
        arrays=False,
        submissions_per_minute=6,
        live_jobs=20,
        shortest_poll_interval=10.0,
    )


@pytest.mark.parametrize("given", [EVERYTHING, {}, {"accounting": False}, {"cluster": "x"}])
def test_stored_options_are_read_back(given: dict[str, Any]) -> None:
    known = options(**given)
    assert ClusterOptions.read(json.loads(json.dumps(known.stored()))) == known


def test_options_of_a_later_version_are_read_as_far_as_they_are_known() -> None:
    assert ClusterOptions.read({"cluster": "x", "federation": 1}) == options(cluster="x")


# connections


def test_equal_options_share_a_connection_and_others_do_not(shared: Path) -> None:
    first = connect("slurm", shared, 30.0, options(cluster="a"))
    assert connect("slurm", shared, 30.0, options(cluster="a")) is first
    assert connect("slurm", shared, 30.0, options(cluster="b")) is not first
    assert connect("slurm", shared, 30.0) is not first
    assert first.options.cluster == "a"


def test_no_process_asks_more_often_than_the_site_allows(shared: Path) -> None:
    floor = options(shortest_poll_interval=20)
    assert connect("slurm", shared, 1.0, floor).poll_interval == 20.0
    assert connect("slurm", shared, 45.0, floor).poll_interval == 45.0
    assert connect("slurm", shared, 1.0).poll_interval == 1.0


def test_clusters_that_share_a_home_do_not_share_an_answer(shared: Path, tmp_path: Path) -> None:
    commands = fake(tmp_path, squeue='case "$*" in *=a*) printf "1\\037hb\\037%s";; esac')
    for name in ("a", "b"):
        place = connect("slurm", shared, 30.0, options(cluster=name, commands=commands))
        place.watcher._ask(None)
    asked = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[1] for line in asked] == ["--clusters=a", "--clusters=b"]


def test_the_same_cluster_shares_its_answer(shared: Path, tmp_path: Path) -> None:
    commands = fake(tmp_path, squeue="")
    for rate in (5, 6):  # two connections
        given = options(commands=commands, submissions_per_minute=rate)
        connect("slurm", shared, 30.0, given).watcher._ask(None)
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_cluster_is_one_place_from_every_shared_directory(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    known = options(cluster="a")
    places = {connect("slurm", path, 30.0, known).place for path in (one, other)}
    assert len(places) == 1
    assert len({connect("local", path, 1.0).place for path in (one, other)} | places) == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (options(type="local", cluster="x"), "one machine only"),
        (options(type="local", commands={"sbatch": "x"}), "'sbatch' is never called"),
    ],
)
def test_the_embedded_scheduler_takes_no_clusters_and_no_commands(
    shared: Path, wrong: ClusterOptions, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        connect("local", shared, 1.0, wrong)


def test_commands_are_counted_for_the_day(shared: Path, tmp_path: Path) -> None:
    connection = connect("slurm", shared, 30.0, options(commands=fake(tmp_path, squeue="")))
    connection.cluster.status()
    connection.cluster.status()
    assert load.recent(place=connection.place) == {"login": 0, "status": 2}


# what a site lacks


def test_without_accounting_records_are_never_asked(shared: Path, tmp_path: Path) -> None:
    commands = fake(tmp_path, sacct="exit 1")
    cluster = connect("slurm", shared, 30.0, options(commands=commands, accounting=False)).cluster
    assert cluster.history([JobId("1")], SINCE) == {}
    assert cluster.usage([JobId("1")], SINCE) == {}
    assert cluster.find_history("hb", SINCE) == []
    assert not (tmp_path / "log").exists()
    assert cluster.counters == {}


def test_without_arrays_a_submission_is_one_job(shared: Path, tmp_path: Path) -> None:
    commands = fake(tmp_path, scontrol="echo MaxArraySize = 1001")
    with_arrays = connect("slurm", shared, 30.0, options(commands=commands))
    assert with_arrays.cluster.array_limit() == 1001
    without = connect("slurm", shared, 30.0, options(commands=commands, arrays=False))
    assert without.cluster.array_limit() == 1


def test_an_array_is_no_larger_than_the_jobs_that_may_live(shared: Path, tmp_path: Path) -> None:
    commands = fake(tmp_path, scontrol="echo MaxArraySize = 1001")
    connection = connect("slurm", shared, 30.0, options(commands=commands, live_jobs=7))
    assert connection.cluster.array_limit() == 7


# what a site limits


def test_the_elements_of_an_array_are_counted(shared: Path, tmp_path: Path) -> None:
    commands = fake(tmp_path, sbatch="cat > /dev/null; echo 7", squeue="")
    script = "#!/bin/bash\n#SBATCH --array=0-2%1\ntrue\n"
    cluster = connect("slurm", shared, 1.0, options(commands=commands, live_jobs=2)).cluster
    with pytest.raises(TooManyJobs, match="3 jobs at once"):
        cluster.submit(script, "hb")
    cluster = connect("slurm", shared, 1.0, options(commands=commands, live_jobs=3)).cluster
    assert cluster.submit(script, "hb") == JobId("7")


def test_a_submission_over_the_limit_never_reaches_the_scheduler(
    shared: Path, tmp_path: Path
) -> None:
    live = 'printf "1\\037other\\037RUNNING\\037None\\037c1\\037N/A\\037N/A\\037N/A\\n"'
    commands = fake(tmp_path, sbatch="echo 7", squeue=live)
    cluster = connect("slurm", shared, 1.0, options(commands=commands, live_jobs=1)).cluster
    with pytest.raises(TooManyJobs, match="you have 1 live jobs"):
        cluster.submit("#!/bin/bash\n", "hb")
    assert "sbatch" not in (tmp_path / "log").read_text()


def test_a_submission_that_cannot_be_judged_is_not_made(shared: Path, tmp_path: Path) -> None:
    commands = {"squeue": str(tmp_path / "gone")} | fake(tmp_path, sbatch="echo 7")
    cluster = connect("slurm", shared, 1.0, options(commands=commands, live_jobs=1)).cluster
    with pytest.raises(CommandNotFound, match=r"scheduler\.commands\.squeue"):
        cluster.submit("#!/bin/bash\n", "hb")
    assert not (tmp_path / "log").exists()
