"""A profile of a site with PBS, as its researchers feel it: defaults, limits, words, commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.states import Cancelling

from tests.fake_pbs import FakePBS
from tests.pbs.conftest import PBSSite
from tests.server import server_client
from tests.site.conftest import Worker, counted_deployment, create_run, ends, job_of, read
from tests.waiting import until

PROFILE: dict[str, Any] = {
    "name": "queued",
    "scheduler": {
        "type": "pbs",
        "shortest_poll_interval": 1,
        "skip_directives": ["-l place"],
        "add_directives": ["-m n"],
        "account_option": "-P",
    },
    "environment": {"prologue": 'export FROM_PROLOGUE="it\'s $(hostname)"\n'},
    "queues": [
        {
            "name": "workq",
            "default": True,
            "walltime": "1d",
            "nodes": 2,
            "cpus_per_node": 8,
            "memory_per_node": "4000M",
        },
        {"name": "gpuq", "walltime": "1d", "nodes": 1, "gpus_per_node": {"tiny": 2}},
    ],
    "job_variables": {
        "walltime": {"default": "5m", "maximum": "2h"},
        "memory": {"default": "600M"},
    },
}
FLOWS = """
import json, os, sys
from prefect import flow
from hpc_bridge import pbs, slurm
from hpc_bridge.errors import HPCBridgeError

NAMES = ("FROM_PROLOGUE", "PBS_JOBID", "PBS_QUEUE")

@pbs(site="queued", account="lab")
@flow
def sited() -> dict:
    return {name: os.environ.get(name) for name in NAMES} | {"host": os.uname().nodename}

if __name__ == "__main__":
    told = []
    for options in map(json.loads, sys.argv[1:]):
        try:
            if "decorator" in options:
                del options["decorator"]
                called = slurm(**options)(flow(name="sited")(sited.fn))
            else:
                called = sited.with_options(job_variables=options)
            told.append(called())
        except HPCBridgeError as error:
            told.append(f"{type(error).__name__}: {error}")
    print(json.dumps([sited.work_pool, *told]))
"""
WRAPPER = """#!/bin/sh
echo "$*" >> LOG
echo 'wrap: Connection timed out talking to the log server' >&2
exec "$@"
"""


def profile(site: PBSSite, **scheduler: Any) -> str:
    """Of the home of these tests, which on a real PBS is not that of the jobs."""
    paths = {"shared_dir": site.path(".hpc-bridge")}
    return json.dumps(PROFILE | {"paths": paths, "scheduler": PROFILE["scheduler"] | scheduler})


@pytest.fixture(scope="module")
def profiled(site: PBSSite) -> dict[str, str]:
    """The variables of somebody who has the site's profile."""
    site.put("profiles/queued.yaml", profile(site))
    site.put("sited.py", FLOWS)
    return {"HPC_BRIDGE_SITES": site.path("profiles")}


def called(site: PBSSite, variables: dict[str, str], *options: dict[str, Any]) -> list[Any]:
    """The flow's pool, and for each call its result or the refusal."""
    done = site.python("sited.py", *map(json.dumps, options), **variables)
    assert done.stdout, done.stderr
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def flow_runs() -> int:
    """How many there are of the flow."""
    with server_client() as client:
        named = FlowFilter(name=FlowFilterName(any_=["sited"]))
        return len(client.read_flow_runs(flow_filter=named))


def submissions(site: PBSSite) -> set[str]:
    return {path.name for path in (site.home() / ".hpc-bridge/runs").glob("hb*")}


def test_a_call_goes_by_the_profile(site: PBSSite, profiled: dict[str, str]) -> None:
    before = submissions(site)
    pool, seen = called(site, profiled, {"nodes": 1})
    assert pool == f"queued-{site.account}"
    assert seen["FROM_PROLOGUE"] == f"it's {seen['host']}"
    assert seen["PBS_QUEUE"] == "workq"
    (run,) = submissions(site) - before
    script = (site.home() / ".hpc-bridge/runs" / run / "job.sh").read_text().splitlines()
    assert site.batch.walltime_line("00:05:00") in script
    assert "#PBS -m n" in script
    assert "#PBS -P lab" in script
    assert "#PBS -l select=1:ncpus=1:mem=600mb" in script
    assert [line for line in script if line.startswith("#PBS -l place")] == []


def test_what_the_site_would_not_take_never_comes_to_the_queue(
    site: PBSSite, profiled: dict[str, str]
) -> None:
    made, before = flow_runs(), submissions(site)
    _, *refusals = called(
        site,
        profiled,
        {"queue": "workk"},
        {"queue": "gpuq", "gpus": 4},
        {"gpus": 1},
        {"walltime": "3h"},
        {"cpus_per_task": 9},
        {"memory": "8G"},
        {"partition": "workq"},
        {"decorator": "slurm", "site": "queued"},
    )
    told = [
        "there is no queue 'workk'; did you mean 'workq'?",
        "you asked for 4 GPUs: use gpus=2",
        "queue 'workq' has no GPUs; you asked for 1 GPU: use queue='gpuq'",
        "walltime 3h is above the largest, 2h",
        "8 CPUs per node; you asked for 9 for one task: use cpus_per_task=8",
        "4000M of memory per node; you asked for 8G: use memory='4000M'",
        "'partition' is Slurm's word; PBS's is 'queue'",
        "site 'queued' has pbs, to which no job of @slurm",
    ]
    for words, refusal in zip(told, refusals, strict=True):
        assert words in refusal
    assert (flow_runs(), submissions(site)) == (made, before)


def test_render_explains_what_the_profile_does(site: PBSSite, profiled: dict[str, str]) -> None:
    hpc_bridge = str(Path(sys.executable).with_name("hpc-bridge"))
    done = site.run(hpc_bridge, "render", "sited.py:sited", "--explain", **profiled)
    assert done.returncode == 0, done.stderr
    (added,) = [line for line in done.stdout.splitlines() if "-m n" in line]
    place = site.path("profiles/queued.yaml")
    assert added.endswith(f"# site 'queued', {place} (scheduler.add_directives)")


def test_a_worker_calls_every_command_as_the_site_wants(
    site: PBSSite, fake: FakePBS, profiled: dict[str, str]
) -> None:
    """By a noisy wrapper, and without PBS on PATH."""
    log = site.home() / "wrapped.log"
    path = site.put("wrap", WRAPPER.replace("LOG", str(log)))
    path.chmod(0o755)
    commands = {name: [str(path), *words] for name, words in fake.commands.items()}
    known = ("qsub", "qstat", "qselect", "qdel", "pbsnodes")
    wrapped = profile(site, commands={name: commands[name] for name in known})
    site.put("wrapping/queued.yaml", wrapped)
    variables = {"HPC_BRIDGE_SITES": site.path("wrapping"), "PATH": "/usr/bin:/bin"}
    site.shell("mkdir -p wrapped")
    pool = f"queued-{site.account}"
    with Worker(site, pool, "wrapping", **variables):
        deployment = counted_deployment(pool, site.path("wrapped"))
        done = create_run(deployment)
        held = create_run(deployment, **site.batch.held)
        refused = create_run(deployment, gpus=1)
        job = job_of(held)
        until(lambda: read(held).state.name == "Queued", 30, "it waits")
        with server_client() as client:
            client.set_flow_run_state(held, Cancelling())
        until(lambda: all(map(ends, (done, held, refused))), 90, "all runs end")
    assert not site.batch.queued(job)
    assert [ends(run) for run in (done, held, refused)] == [
        ["Completed"],
        ["Cancelled"],
        ["Refused"],
    ]
    assert "use queue='gpuq'" in read(refused).state.message
    asked = {Path(line.split()[0]).name for line in log.read_text().splitlines()}
    assert {"qsub", "qstat", "qselect", "qdel"} <= asked
