"""A submission is asked about as its site wants, by whoever adopts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.connections import NO_OPTIONS, ClusterOptions
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import RunDirectory
from hpc_bridge.settings import load_settings
from hpc_bridge.sites import files
from hpc_bridge.tracking import reconnecting
from hpc_bridge.tracking.adoption import Orphan, find_jobs
from hpc_bridge.tracking.reconnecting import default_options, options_of, reconnect

STORED = {"cluster": "stored", "accounting": False}


@pytest.fixture(autouse=True)
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of profiles beside the packaged ones."""
    folder = tmp_path / "sites"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(folder))
    monkeypatch.setenv("HPC_BRIDGE_CONFIG", "/dev/null")
    reconnecting._in_files.cache_clear()
    return folder


def write(sites: Path, name: str, **scheduler: Any) -> None:
    lines = [f"name: {name}", "scheduler:", "  type: slurm"]
    lines += [f"  {key}: {value}" for key, value in scheduler.items()]
    (sites / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    (sites / f"{name}.yaml").chmod(0o644)


def journal(**more: Any) -> dict[str, Any]:
    return {"scheduler": "slurm", "format": 2, "flow_runs": {}} | more


def test_an_older_submission_without_a_site_has_no_options() -> None:
    assert options_of(journal()) == NO_OPTIONS


def test_a_profile_that_has_changed_is_followed(sites: Path) -> None:
    write(sites, "mine", cluster="now", commands="{squeue: /new/squeue}")
    found = options_of(journal(site="mine", cluster_options=STORED))
    assert found.cluster == "now"
    assert found.commands.argv("squeue") == ["/new/squeue"]


def test_without_the_profile_the_submission_knows_itself() -> None:
    found = options_of(journal(site="gone", cluster_options=STORED))
    assert found == ClusterOptions(cluster="stored", accounting=False)


def test_a_broken_profile_is_no_obstacle(sites: Path) -> None:
    write(sites, "mine", type="[1")
    assert options_of(journal(site="mine", cluster_options=STORED)).cluster == "stored"
    assert options_of(journal(site="mine")) == NO_OPTIONS


def test_a_packaged_profile_does_not_stand_for_a_published_one() -> None:
    name = next(n for n, place in _packaged() if place == "packaged")
    assert options_of(journal(site=name, cluster_options=STORED)).cluster == "stored"


def _packaged() -> list[tuple[str, str]]:
    known = files.known_sites()
    return [(name, place.kind) for name in known if (place := files.place_of(name)) is not None]


def test_a_profile_is_read_once_for_many_submissions(
    sites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sites, "mine", cluster="now")
    reads: list[str] = []
    load_site = files.load_site
    monkeypatch.setattr(files, "load_site", lambda name: reads.append(name) or load_site(name))
    monkeypatch.setattr(reconnecting.time, "monotonic", lambda: 1000.0)
    for _ in range(50):
        assert options_of(journal(site="mine")).cluster == "now"
    assert reads == ["mine"]


def test_an_adopted_submission_is_looked_for_on_its_own_cluster(
    sites: Path, tmp_path: Path, run: RunDirectory
) -> None:
    squeue = tmp_path / "squeue"
    moment = "2026-11-21T05:25:03"
    row = f"7\\037{run.submission_id}\\037RUNNING\\037None\\037c1\\037{moment}\\037{moment}\\037N/A"
    squeue.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/log\nprintf "{row}\\n"\n')
    squeue.chmod(0o755)
    write(sites, "mine", cluster="now", commands=f"{{squeue: {squeue}}}")
    submission = journal(
        site="mine", flow_runs={"0": "00000000-0000-0000-0000-000000000001"}, spec={}
    )
    run.write_submission(submission)
    (job,) = find_jobs(Orphan(run, submission)) or []
    assert job.job_id == JobId("7")
    assert job.connection is reconnect(run, submission)
    assert (tmp_path / "log").read_text().startswith("--clusters=now")


def test_the_default_site_tells_how_the_cluster_is_asked(
    sites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_options(load_settings()) == NO_OPTIONS
    write(sites, "mine", cluster="now")
    assert default_options(load_settings()).cluster == "now"
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local")
    assert default_options(load_settings()) == NO_OPTIONS
