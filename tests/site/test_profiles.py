"""A site's profile in /etc of the real cluster: what its researchers feel of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tests.server import server_client
from tests.site.conftest import Site, Worker, ends, read
from tests.waiting import until

PROFILE = """\
name: profiled
scheduler:
  type: slurm
  shortest_poll_interval: 1
  skip_directives: [--comment]
  add_directives: ["--nice=7"]
paths:
  shared_dir: /home/{user}/.profiled
  node_scratch: /tmp/{user}/$SLURM_JOB_ID
environment:
  prologue: |
    export FROM_PROLOGUE="it's $(hostname)"
    mkdir -p "$HPC_BRIDGE_SCRATCH"
partitions:
  - {name: cpu, default: true, walltime: 1d, nodes: 2, cpus_per_node: 8, memory_per_node: 4000M}
  - {name: gpu, walltime: 1d, nodes: 1, cpus_per_node: 8, gpus_per_node: {tiny: 2}}
job_variables:
  walltime: {default: 5m, maximum: 2h}
  memory: {default: 600M}
costs: {unit: EUR, node_hour: 360}
"""
FLOWS = """
import json, os, sys
from pathlib import Path
from prefect import flow
from hpc_bridge import slurm
from hpc_bridge.errors import HPCBridgeError

NAMES = ("FROM_PROLOGUE", "HPC_BRIDGE_SCRATCH", "SLURM_JOB_ID", "SLURM_JOB_PARTITION", "HOSTNAME")

@slurm(site="profiled")
@flow
def sited(left: str = "") -> dict:
    seen = {name: os.environ.get(name) for name in NAMES}
    seen["scratch"] = os.path.isdir(os.environ["HPC_BRIDGE_SCRATCH"])
    if left:
        Path(left).write_text(json.dumps(seen))
    return seen

if __name__ == "__main__":
    told = []
    for options in map(json.loads, sys.argv[1:]):
        try:
            if "site" in options or "work_pool" in options:
                called = slurm(**options)(flow(name="sited")(sited.fn))
            else:
                called = sited.with_options(job_variables=options)
            told.append(called())
        except HPCBridgeError as error:
            told.append(f"{type(error).__name__}: {error}")
    print(json.dumps([sited.work_pool, *told]))
"""
POOL = "profiled-researcher"
PLACE = "/etc/hpc-bridge/sites"


@pytest.fixture(scope="module")
def profiled(site: Site) -> Iterator[Site]:
    """The site with a profile that its admin has put there; other modules know of none."""
    site.put("profile.yaml", PROFILE)
    site.put("sited.py", FLOWS)
    site.shell(
        f"mkdir -p {PLACE} && install -m 644 /home/researcher/profile.yaml {PLACE}/profiled.yaml",
        user="root",
    )
    try:
        yield site
    finally:
        site.shell(
            f"rm {PLACE}/profiled.yaml; rmdir -p --ignore-fail-on-non-empty {PLACE}", user="root"
        )


def called(site: Site, *options: dict[str, Any]) -> list[Any]:
    """The flow's pool, and for each call its result or the refusal."""
    done = site.python("sited.py", *map(json.dumps, options))
    assert done.stdout, done.stderr
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def flow_runs() -> int:
    """How many there are of the flow."""
    with server_client() as client:
        named = FlowFilter(name=FlowFilterName(any_=["sited"]))
        return len(client.read_flow_runs(flow_filter=named))


def submissions(site: Site) -> set[str]:
    """Run directories of the profile's shared directory."""
    return {path.name for path in (site.home() / ".profiled" / "runs").glob("hb*")}


def test_a_call_goes_by_the_profile(profiled: Site) -> None:
    before = submissions(profiled)
    pool, seen = called(profiled, {})
    assert pool == POOL
    assert seen["FROM_PROLOGUE"] == f"it's {seen['HOSTNAME']}"
    assert seen["HPC_BRIDGE_SCRATCH"] == f"/tmp/researcher/{seen['SLURM_JOB_ID']}"
    assert seen["scratch"]
    assert seen["SLURM_JOB_PARTITION"] == "cpu"
    [run] = submissions(profiled) - before
    folder = profiled.home() / ".profiled" / "runs" / run
    script = (folder / "job.sh").read_text()
    assert "#SBATCH --time=00:05:00\n" in script
    assert "#SBATCH --nice=7\n" in script
    assert "--comment" not in script
    journal = json.loads((folder / "submission.json").read_text())
    assert (journal["site"], journal["costs"]["unit"]) == ("profiled", "EUR")


def test_what_the_site_would_not_take_never_comes_to_the_queue(profiled: Site) -> None:
    made, before = flow_runs(), submissions(profiled)
    _, *refusals = called(
        profiled,
        {"partition": "gpuu"},
        {"partition": "gpu", "gpus": 4},
        {"gpus": 1},
        {"walltime": "3h"},
        {"cpus_per_task": 9},
        {"nodes": 3},
        {"memory": "8G"},
        {"site": "profiled", "scheduler": "local"},
        {"site": "profield"},
        {"site": "minihpc", "work_pool": POOL},
    )
    told = [
        "there is no partition 'gpuu'; did you mean 'gpu'?",
        "allows 1 day and 2 GPUs per node on 1 node; you asked for 4 GPUs: use gpus=2",
        "partition 'cpu' has no GPUs; you asked for 1 GPU: use partition='gpu'",
        "walltime 3h is above the largest, 2h",
        "8 CPUs per node; you asked for 9 for one task: use cpus_per_task=8",
        "2 nodes; you asked for 3: use nodes=2",
        "4000M of memory per node; you asked for 8G: use memory='4000M'",
        "its scheduler is 'slurm', not 'local'",
        "SiteError: there is no site profile 'profield'; did you mean 'profiled'?",
        "work pool 'profiled-researcher' is of site 'profiled', but site is 'minihpc'",
    ]
    for words, refusal in zip(told, refusals, strict=True):
        assert words in refusal
    assert (flow_runs(), submissions(profiled)) == (made, before)
    assert profiled.shell("squeue --noheader --user=researcher --states=all --name=sited") == ""


def test_a_worker_goes_by_the_profile_and_refuses_in_words(profiled: Site) -> None:
    with Worker(profiled, POOL, "profiled"):
        with server_client() as client:
            deployment = client.create_deployment(
                client.create_flow_from_name("sited"),
                name="profiled",
                entrypoint="sited.py:sited",
                pull_steps=[
                    {
                        "prefect.deployments.steps.set_working_directory": {
                            "directory": "/home/researcher"
                        }
                    }
                ],
                work_pool_name=POOL,
                job_variables={"site": "profiled"},
                parameters={"left": "/home/researcher/sited.json"},
            )

            def run(**variables: Any) -> Any:
                return client.create_flow_run_from_deployment(
                    deployment, job_variables=variables
                ).id

            good, bad = run(walltime="6m"), run(gpus=1)
            with pytest.raises(PrefectHTTPStatusError, match="422"):
                run(partition="gpuu")
        until(lambda: ends(good) and ends(bad), 90, "both runs end")
    assert ends(good) == ["Completed"], read(good).state
    seen = json.loads((profiled.home() / "sited.json").read_text())
    assert seen["FROM_PROLOGUE"] == f"it's {seen['HOSTNAME']}"
    assert ends(bad) == ["Refused"]
    assert "use partition='gpu'" in read(bad).state.message
    assert read(bad).infrastructure_pid is None


def test_a_deployment_that_the_site_would_not_run_is_not_made(profiled: Site) -> None:
    deploying = (
        "from sited import sited; sited.from_source('/home/researcher',"
        " entrypoint='sited.py:sited').deploy('refused', job_variables={'gpus': 1})"
    )
    done = profiled.python("-c", deploying)
    assert "InvalidJobSpec: site 'profiled' would not take this job:" in done.stderr
    with server_client() as client, pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("sited/refused")


def test_render_explains_what_the_profile_does(profiled: Site) -> None:
    hpc_bridge = str(Path(sys.executable).with_name("hpc-bridge"))
    done = profiled.run(hpc_bridge, "render", "sited.py:sited", "--explain")
    assert done.returncode == 0, done.stderr
    [added] = [line for line in done.stdout.splitlines() if "--nice=7" in line]
    assert added.endswith(f"# site 'profiled', {PLACE}/profiled.yaml (scheduler.add_directives)")
