"""The labels that lead from a flow run to its job."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from hpc_bridge.jobs import JobId
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.labels import label_flow_run


@pytest.mark.parametrize(("site", "expected"), [(None, "slurm"), ("alpha", "alpha")])
def test_a_flow_run_says_which_job_of_which_cluster_it_is(
    monkeypatch: pytest.MonkeyPatch, site: str | None, expected: str
) -> None:
    if site:
        monkeypatch.setenv("HPC_BRIDGE_SITE", site)
    labels: dict[Any, Any] = {}

    async def update_flow_run_labels(flow_run_id: Any, given: dict[str, str]) -> None:
        labels[flow_run_id] = given

    client: Any = SimpleNamespace(update_flow_run_labels=update_flow_run_labels)
    connection: Any = None
    run = RunDirectory(Path("/shared/runs/hbaaaaaaaaaaaaa"))
    job = TrackedJob(run, 4, uuid4(), JobId("123_4"), "slurm", connection)
    asyncio.run(label_flow_run(client, job))
    assert labels == {
        job.flow_run_id: {
            "hpc-bridge.scheduler": "slurm",
            "hpc-bridge.site": expected,
            "hpc-bridge.job-id": "123_4",
            "hpc-bridge.submission": "hbaaaaaaaaaaaaa",
        }
    }
