"""A profile drafted on the real cluster, and what is free there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpc_bridge.cli.site_init import init_site
from hpc_bridge.sites import login_node
from hpc_bridge.sites.files import read_profile
from hpc_bridge.sites.profile import LoginPart, SiteProfile
from hpc_bridge.transports.login import Login
from hpc_bridge.transports.ssh import SSHTransport
from tests.conftest import SITE, run_site_script
from tests.site.conftest import Site
from tests.waiting import HUNG, until

COMMAND = str(Path(sys.executable).parent / "hpc-bridge")


def show_queue(site: Site, *options: str) -> dict[str, Any]:
    done = site.run(COMMAND, "queue", *options, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {one["name"]: one for one in found["queues"]} | {"": found}


@pytest.fixture
def folder(site: Site) -> Iterator[str]:
    site.shell("rm -rf drafted && mkdir drafted")
    yield "/home/researcher/drafted"
    site.shell("rm -rf drafted")


def test_the_draft_describes_the_site_and_is_usable_as_it_is(site: Site, folder: str) -> None:
    done = site.run(COMMAND, "site", "init", "--output", folder)
    assert done.returncode == 0, done.stderr
    file = f"{folder}/mini.yaml"
    validated = site.run(COMMAND, "site", "validate", file)
    assert validated.returncode == 0, validated.stdout + validated.stderr
    profile = read_profile(site.home() / "drafted/mini.yaml")
    # tests/site/etc/slurm.conf
    assert profile.scheduler.version in site.shell("sinfo --version")
    assert _told(profile) == {
        "cpu": (True, 2, {}),
        "gpu": (False, 1, {"tiny": 2}),
        "scavenge": (False, 2, {}),
        "scavrq": (False, 2, {}),
    }
    for partition in profile.partitions:
        assert (partition.walltime, partition.default_walltime) == (86400, 600)
        assert (partition.cpus_per_node, partition.memory_per_node) == (8, 4000)
        assert (partition.accounts, partition.qos, partition.groups) == ((), (), ())
    assert {one.name for one in profile.accounts} == {"lab", "other"}
    assert {one.name for one in profile.qos} == {"normal", "long", "debug", "limited"}
    again = site.run(COMMAND, "site", "init", "--output", folder)
    assert again.returncode == 1
    assert "--force" in again.stderr
    # The profile that was written is good for asking the cluster.
    found = site.run(COMMAND, "queue", "mini", "--json", HPC_BRIDGE_SITES=folder)
    assert json.loads(found.stdout)["site"] == "mini", found.stderr


def test_from_elsewhere_the_draft_is_the_same_and_says_how_to_get_there(
    site: Site, folder: str, there: SSHTransport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(login_node, "transport_to", lambda _: there)
    init_site(
        *("mini", tmp_path),
        yes=True,
        force=False,
        console=Console(quiet=True),
        login=Login("openssh", "login.hpc.example"),
    )
    drafted = read_profile(tmp_path / "mini.yaml")
    done = site.run(COMMAND, "site", "init", "--output", folder)
    assert done.returncode == 0, done.stderr
    on_the_node = read_profile(site.home() / "drafted/mini.yaml")
    # Its own name, login, is a short form of the one by which it was reached.
    assert drafted.login == LoginPart(transport="openssh", host="login.hpc.example")
    assert drafted.model_copy(update={"login": on_the_node.login}) == on_the_node


def _told(profile: SiteProfile) -> dict[str, tuple[bool, int | None, dict[str, int]]]:
    return {one.name: (one.default, one.nodes, one.gpus_per_node) for one in profile.partitions}


def test_queue_tells_what_is_free_and_what_waits(site: Site) -> None:
    held = site.shell("sbatch --parsable -H -p gpu --gpus=tiny:2 -n3 --mem=100 --wrap true")
    before = show_queue(site)["gpu"]
    job = site.shell("sbatch --parsable -p gpu --gpus=1 -n2 --mem=100 --wrap 'sleep 120'")
    try:
        running = until(
            lambda: (
                (now := show_queue(site, "minihpc"))["gpu"]["running"] > before["running"] and now
            ),
            60,
            "the job runs",
        )
    finally:
        site.shell(f"scancel {job} {held}")
    now = running["gpu"]
    assert now["resources"]["gpus"]["tiny"]["total"] == 2
    assert now["resources"]["gpus"]["tiny"]["free"] == (
        before["resources"]["gpus"]["tiny"]["free"] - 1
    )
    assert now["resources"]["cpus"]["free"] == before["resources"]["cpus"]["free"] - 2
    assert now["waiting"] >= 1
    assert (now["waiting_cpus"], now["waiting_gpus"]) >= (3, 2)
    assert now["usable"] is True
    assert now["description"] == "One node with two GPUs"
    assert running["cpu"]["shares_nodes_with"] == ["scavenge", "scavrq"]
    assert running[""]["resources"]["nodes"]["total"] == 3


def test_without_a_scheduler_or_a_controller_there_are_words(site: Site, folder: str) -> None:
    nothing = site.run("env", f"PATH={folder}", COMMAND, "site", "init")
    assert nothing.returncode == 1
    assert "Run this on a login node" in nothing.stderr
    daemon = ("daemon", "kill", "slurmctld", "--site", str(SITE))
    saved = run_site_script("daemon", "save", "slurmctld", "--site", str(SITE))
    assert saved.returncode == 0, saved.stderr
    assert run_site_script(*daemon).returncode == 0
    try:
        asked = [
            site.start(COMMAND, *words, stdout=-1, stderr=-1, text=True)
            for words in (("queue",), ("site", "init", "--output", folder))
        ]
        for process in asked:
            stdout, stderr = process.communicate(timeout=HUNG)
            assert (process.returncode, stdout) == (1, "")
            assert "Slurm does not answer" in stderr
            assert "Traceback" not in stderr
    finally:
        started = run_site_script("daemon", "start", "slurmctld", "--site", str(SITE))
    assert started.returncode == 0, started.stderr
    assert not (site.home() / "drafted/mini.yaml").exists()
