"""What a flow run says of its job."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hpc_bridge.jobs import JobId
from hpc_bridge.journal import new_submission_id
from hpc_bridge.reference import JobReference

MOMENT = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
NAME = new_submission_id(MOMENT.timestamp())[:9] + "abcdef"  # the rest is drawn by lot


@pytest.mark.parametrize("job", ["12", "12_3", "12.pbs-server"])
def test_a_reference_survives_its_text(job: str) -> None:
    reference = JobReference("slurm", JobId(job), NAME)
    assert str(reference) == f"slurm:{job}:{NAME}"
    assert JobReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text", [None, "", "12", "slurm:12", f"sge:12:{NAME}", f"slurm::{NAME}", f"slurm:12:{NAME}x"]
)
def test_another_workers_text_is_no_reference(text: str | None) -> None:
    assert JobReference.parse(text) is None


def test_a_reference_tells_when_its_job_was_submitted() -> None:
    assert JobReference("local", JobId("12"), NAME).submitted == MOMENT
