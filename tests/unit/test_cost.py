"""The estimated cost of a job, where the site says what an hour costs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.sites.profile import CostsPart, SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.tracking.job import tracked_jobs
from hpc_bridge.tracking.usage import cost_metadata, estimated_cost, usage_markdown
from hpc_bridge.workers.submission import submit
from tests.unit.submitting import connected, request

START = datetime(2026, 11, 1, tzinfo=UTC)
SPEC = JobSpec(name="hb1")


def used(hours: float = 2, **known: Any) -> JobUsage:
    return JobUsage(started=START, ended=START + timedelta(hours=hours), **known)


@pytest.mark.parametrize(
    ("costs", "usage", "cost"),
    [
        ({"node_hour": 1.5}, used(nodes=2), 6.0),
        ({"cpu_hour": 0.1}, used(cpus=8), 1.6),
        ({"gpu_hour": 2}, used(gpus=4, nodes=1), 16.0),
        ({"node_hour": 1, "cpu_hour": 0.5, "gpu_hour": 2}, used(nodes=1, cpus=4, gpus=1), 10.0),
        ({"gpu_hour": 2}, used(cpus=4), 0.0),
        ({}, used(), 0.0),
        ({"node_hour": 0}, used(), 0.0),
        # what is not recorded is not free
        ({"cpu_hour": 0.1}, used(nodes=1), None),
        ({"node_hour": 1, "cpu_hour": 1}, JobUsage(nodes=1, cpus=1), None),
    ],
)
def test_hours_are_charged_at_the_sites_prices(
    costs: dict[str, Any], usage: JobUsage, cost: float | None
) -> None:
    known = estimated_cost(usage, SPEC, CostsPart(unit="EUR", **costs))
    assert known == (None if cost is None else pytest.approx(cost))


def test_gpus_that_were_asked_for_and_are_not_recorded_are_not_free() -> None:
    asked = JobSpec(name="hb1", gpus="2")
    assert estimated_cost(used(), asked, CostsPart(unit="SU", gpu_hour=1)) is None


def test_the_artifact_tells_the_cost_with_its_unit() -> None:
    status = JobStatus(JobId("7"), "hb1", JobState.COMPLETED, "COMPLETED")
    costs = CostsPart(unit="EUR", node_hour=1.5)
    assert "* Estimated cost: 3.00 EUR" in usage_markdown(used(nodes=1), status, SPEC, costs)
    assert "* Estimated cost: not recorded" in usage_markdown(None, status, SPEC, costs)
    assert "cost" not in usage_markdown(used(nodes=1), status, SPEC)


def test_programs_get_the_number_and_the_unit() -> None:
    costs = CostsPart(unit="EUR", node_hour=1.5)
    told = cost_metadata(used(nodes=1), SPEC, costs)
    assert told == {"estimated_cost": "3", "cost_unit": "EUR"}
    assert cost_metadata(used(), SPEC, costs) == cost_metadata(used(), SPEC, None) == {}


def test_the_journal_keeps_what_the_site_charged_then(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(shared, monkeypatch)
    asked = request(shared)
    profile = SiteProfile.model_validate(
        {"name": "alpha", "scheduler": {"type": "slurm"}, "costs": {"unit": "SU", "cpu_hour": 1}}
    )
    asked.configuration.put_at(Site(profile))
    [job] = submit([asked])
    assert job.costs == CostsPart(unit="SU", cpu_hour=1)
    [adopted] = tracked_jobs(job.run, job.connection)
    assert adopted.costs == job.costs
    assert job.run.read_submission()["site"] == "alpha"
    path = job.run.path / "submission.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"costs": {"unit": 5}}))
    assert tracked_jobs(job.run, job.connection)[0].costs is None
