"""A site's own ways to its scheduler on a real Slurm: wrappers, a cluster's name, limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.conftest import run_site_script
from tests.site.conftest import (
    OF_SITE,
    Site,
    Worker,
    counted_deployment,
    create_run,
    ends,
    history,
    job_of,
    read,
    side_by_side,
)
from tests.waiting import until

HOME = "/home/researcher/options"
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")
# What the site's commands are called by; it is noisy, as wrappers are.
WRAPPER = f"""#!/bin/sh
echo "$*" >> {HOME}/$SITE_LOG
echo 'wrap: Connection timed out talking to the log server' >&2
exec "/usr/bin/$@"
"""
# First on PATH: what is called by its bare name.
TRAP = f"""#!/bin/sh
echo "$0 $*" >> {HOME}/bypassed
exit 1
"""
PATH = f"{HOME}/trap:/usr/bin:/bin"
EVERYTHING = """
import os, sys
from datetime import UTC, datetime, timedelta
from hpc_bridge.connections import ClusterOptions, connect
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.files import load_site

options = ClusterOptions.of(load_site(sys.argv[1]).profile)
cluster = connect("slurm", load_settings().shared, 1.0, options).cluster
script = "#!/bin/bash\\n#SBATCH --mem=10M --output=/dev/null --array=0-1\\nsleep 60\\n"
name = f"hbwrapped{os.getpid()}"
job = cluster.submit(script, name)
elements = {str(status.job_id) for status in cluster.find(name)}
assert elements == {f"{job}_0", f"{job}_1"}, elements
since = datetime.now(UTC) - timedelta(hours=1)
cluster.find_history(name, since)
cluster.history([job], since)
cluster.usage([job], since)
cluster.cancel([job])
cluster.cancel([job], only_waiting=True)
assert set(cluster.queues()) == {"cpu", "gpu", "scavenge", "scavrq"}
cluster.demand()
assert cluster.array_limit() > 1
"""
REFUSED = """
import json, sys
import jobs
for site in sys.argv[1:]:
    flow = jobs.asynchronous.with_options(job_variables={"site": site})
    print(json.dumps(jobs.result_of(lambda: jobs.asyncio.run(flow(7)))))
"""


def profile(site: Site, name: str, **scheduler: object) -> dict[str, str]:
    """Write a profile; returns the variables of somebody who uses the site."""
    part = {"type": "slurm", "poll_interval": 1} | scheduler
    content = {"name": name, "scheduler": part}
    site.put(f"options/sites/{name}.yaml", json.dumps(content))
    return {
        "HPC_BRIDGE_SITE": name,
        "HPC_BRIDGE_SITES": f"{HOME}/sites",
        "SITE_LOG": f"{name}.log",
        "PATH": PATH,
    }


def calls(site: Site, name: str) -> list[list[str]]:
    """What the wrapper was called with for a site."""
    path = site.home() / "options" / f"{name}.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module", autouse=True)
def wrapped(site: Site) -> Iterator[dict[str, object]]:
    """Every command goes through the wrapper, and no other way leads anywhere."""
    site.put("options/wrap", WRAPPER)
    for command in COMMANDS:
        site.put(f"options/trap/{command}", TRAP)
    site.put("options/refused.py", REFUSED)
    site.put("options/everything.py", EVERYTHING)
    site.shell(f"chmod 755 {HOME} {HOME}/wrap {HOME}/trap {HOME}/trap/*")
    yield {"commands": {command: [f"{HOME}/wrap", command] for command in COMMANDS}}
    bypassed = site.home() / "options" / "bypassed"
    assert not bypassed.exists(), bypassed.read_text()
    site.shell(f"rm -r {HOME}")


def test_no_command_bypasses_the_wrappers_or_leaves_out_the_cluster(
    site: Site, wrapped: dict[str, object]
) -> None:
    variables = profile(site, "wrapped", cluster="mini", **wrapped)

    def a_flow() -> None:
        assert site.case("async", **variables)["result"] == 49

    def all_commands() -> None:
        done = site.python(f"{HOME}/everything.py", "wrapped", **variables)
        assert done.returncode == 0, done.stderr

    side_by_side(a_flow, all_commands)
    done = site.run(str(Path(sys.executable).with_name("hpc-bridge")), "jobs", **variables)
    assert done.returncode == 0, done.stderr
    asked = calls(site, "wrapped")
    assert {call[0] for call in asked} == set(COMMANDS)
    assert {call[1] for call in asked} == {"--clusters=mini"}


def test_a_wrong_profile_is_named_by_the_error(site: Site, wrapped: dict[str, object]) -> None:
    profile(site, "nowhere", cluster="nowhere", **wrapped)
    variables = profile(site, "unwrapped", commands={"sbatch": "/opt/gone/sbatch"})
    done = site.python("options/refused.py", "nowhere", "unwrapped", PYTHONPATH=".", **variables)
    unknown, gone = (json.loads(line) for line in done.stdout.splitlines())
    assert unknown["raised"] == "SubmissionRefused", done.stderr
    assert "no cluster 'nowhere'" in unknown["text"]
    assert gone["raised"] == "CommandNotFound"
    assert "scheduler.commands.sbatch: /opt/gone/sbatch" in gone["text"]


def test_without_accounting_a_dead_database_is_not_asked(
    site: Site, wrapped: dict[str, object]
) -> None:
    variables = profile(site, "unrecorded", accounting=False, **wrapped)
    assert run_site_script("daemon", "kill", "slurmdbd", *OF_SITE).returncode == 0
    try:
        killed = site.case("kill", **variables)
    finally:
        assert run_site_script("daemon", "start", "slurmdbd", *OF_SITE).returncode == 0
    assert "died of signal 9" in killed["text"]
    asked = {call[0] for call in calls(site, "unrecorded")}
    assert {"sbatch", "squeue"} <= asked
    assert "sacct" not in asked


def test_the_next_worker_asks_as_the_site_wants_and_keeps_its_limit(
    site: Site, wrapped: dict[str, object]
) -> None:
    """With one live job a second run is submitted when the first has ended, here by another."""
    variables = profile(site, "few", cluster="mini", live_jobs=1, **wrapped)
    pool = "few-researcher"
    with Worker(site, pool, "few-first", **variables) as first:
        deployment = counted_deployment(pool, HOME)
        runs = [create_run(deployment, how="gated") for _ in range(2)]
        job_of_any = until(lambda: [run for run in runs if _is_queued(run)], 60, "one is submitted")
        (other,) = set(runs) - set(job_of_any)
        until(lambda: "SubmissionDelayed" in _states(other), 60, "the other one waits")
        first.kill()
    for run in runs:
        site.shell(f"touch {HOME}/{run}.go")
    with Worker(site, pool, "few-second", **variables):
        until(lambda: all(ends(run) for run in runs), 90, "both have ended")
    assert [ends(run) for run in runs] == [["Completed"], ["Completed"]]
    assert job_of(runs[0]) != job_of(runs[1])
    assert {call[1] for call in calls(site, "few")} == {"--clusters=mini"}


def _is_queued(run: UUID) -> bool:
    return read(run).infrastructure_pid is not None


def _states(run: UUID) -> list[str]:
    return [state.name for state in history(run)]
