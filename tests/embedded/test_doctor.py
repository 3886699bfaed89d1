"""``hpc-bridge doctor`` on the embedded scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

COMMAND = str(Path(sys.executable).with_name("hpc-bridge"))


def test_all_is_green_and_only_the_run_stays(server: str, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    done = subprocess.run(
        [COMMAND, "doctor", "--json"],
        env=dict(os.environ) | {"HPC_BRIDGE_SHARED_DIR": str(shared), "HPC_BRIDGE_SITE": "sick"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    found = {finding["step"]: finding for finding in json.loads(done.stdout)}
    colours = {step: finding["status"] for step, finding in found.items()}
    assert colours.pop("containers") == "skipped"
    assert set(colours.values()) <= {"green", "yellow"}, found  # yellow: this machine's disk
    assert done.returncode == 0
    with get_client(sync_client=True) as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=["hpc-bridge-doctor"]))
        runs = client.read_flow_runs(flow_run_filter=tagged)
    [run] = [run for run in runs if repr(run.name) in found["test-flow"]["message"]]
    assert run.state is not None
    assert run.state.is_completed()
    [kept] = (shared / "runs").iterdir()
    assert str(run.id) in (kept / "submission.json").read_text()
