"""``hpc-bridge doctor`` on the embedded scheduler."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

from hpc_bridge.doctor.server import PoolAnswer, pool_template
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.workers.pools import ensure_work_pool
from hpc_bridge.workers.slurm import SlurmWorker
from tests.waiting import HUNG

COMMAND = str(Path(sys.executable).with_name("hpc-bridge"))


def test_all_is_green_and_only_the_run_stays(server: str, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    done = subprocess.run(
        [COMMAND, "doctor", "--json"],
        env=dict(os.environ) | {"HPC_BRIDGE_SHARED_DIR": str(shared), "HPC_BRIDGE_SITE": "sick"},
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG,
    )
    assert done.stdout, done.stderr
    found = {finding["step"]: finding for finding in json.loads(done.stdout)}
    colours = {step: finding["status"] for step, finding in found.items()}
    assert colours.pop("containers") == "skipped"
    assert set(colours.values()) <= {"green", "yellow"}, found  # yellow: this machine's disk
    assert found["profile-facts"]["status"] == "green"
    assert done.returncode == 0
    with get_client(sync_client=True) as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=["hpc-bridge-doctor"]))
        runs = client.read_flow_runs(flow_run_filter=tagged)
    [run] = [run for run in runs if repr(run.name) in found["test-flow"]["message"]]
    assert run.state is not None
    assert run.state.is_completed()
    [kept] = (shared / "runs").iterdir()
    assert str(run.id) in (kept / "submission.json").read_text()


def test_a_pool_that_is_behind_its_profile_is_brought_up_to_date(
    server: str, tmp_path: Path
) -> None:
    settings = load_settings()

    def site(memory: str) -> Site:
        given = {
            "name": "behind",
            "scheduler": {"type": "local"},
            "paths": {"shared_dir": str(tmp_path)},
            "job_variables": {"memory": {"default": memory}},
        }
        return Site(SiteProfile.model_validate(given), source="/behind.yaml")

    async def made() -> str:
        async with get_client() as client:
            pool = await ensure_work_pool(
                client,
                "behind-somebody",
                worker_type=SlurmWorker.type,
                base_job_template=SlurmWorker.get_default_base_job_template,
                settings=settings,
                site=site("1G"),
            )
            return pool.name

    def memory(answer: PoolAnswer | None) -> str:
        assert answer is not None
        return str(answer.template["variables"]["properties"]["memory"]["default"])

    assert pool_template("behind-nobody", settings, site("1G")) is None
    name = asyncio.run(made())
    same = pool_template(name, settings, site("1G"))
    changed = pool_template(name, settings, site("2G"))
    again = pool_template(name, settings, site("2G"))
    assert [memory(same), memory(changed), memory(again)] == ["1G", "2G", "2G"]
    assert [answer and answer.renewed for answer in (same, changed, again)] == [False, True, False]
