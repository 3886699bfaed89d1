"""Jobs that are over, and what they had asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def job(state: JobState = JobState.COMPLETED, **known: Any) -> JobStatus:
    return JobStatus(JobId("42"), "hbabc", state, state.value, **known)


def spec(**asked: Any) -> JobSpec:
    return JobSpec(name="hbabc", **asked)
