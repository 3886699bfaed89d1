"""What scancel says of jobs that are over and of others' jobs."""

from __future__ import annotations

import pytest

from hpc_bridge.errors import CommandError
from hpc_bridge.schedulers.base import Answer
from tests.unit.slurm_answers import SLURM, VERSIONS, answer, each_version


@each_version
def test_jobs_that_are_over_may_be_cancelled(version: str) -> None:
    over = ["ok", "unknown", "finished", "known-and-unknown", "array-element-unknown", "bad-id"]
    for name in over:
        SLURM.parse_cancel(answer(version, f"scancel-{name}"))


@each_version
def test_another_users_job_may_not_be_cancelled(version: str) -> None:
    with pytest.raises(CommandError, match="Access/permission denied"):
        SLURM.parse_cancel(answer(version, "scancel-other-users-job"))


@pytest.mark.parametrize("name", ["other-users-job", "controller-dead", "controller-hung"])
def test_a_job_that_is_over_hides_no_error_about_another(name: str) -> None:
    over = "scancel: error: Kill job error on job id 7: Job/step already completing or completed\n"
    for version in VERSIONS:
        given = answer(version, f"scancel-{name}")
        with pytest.raises(CommandError):
            SLURM.parse_cancel(Answer(given.command, 1, "", over + given.stderr))


@pytest.mark.parametrize(
    ("exit_code", "words"), [(1, "no message"), (127, "no message"), (-9, "was killed")]
)
def test_a_cancel_that_failed_without_a_word_is_an_error(exit_code: int, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        SLURM.parse_cancel(Answer(("scancel", "5"), exit_code, "", ""))
