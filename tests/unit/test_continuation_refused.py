"""A new submission after the walltime that the scheduler does not take."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import states

from hpc_bridge.errors import (
    LoginRefused,
    SchedulerUnavailable,
    SharedDirectoryError,
    SubmissionRefused,
)
from tests.unit.continuing import RESUBMITTING, WALLTIME, Server, a_job, go_on, submissions
from tests.unit.fake_cluster import FakeCluster


def test_a_refusal_is_the_runs_end_with_the_schedulers_words(
    shared: Path, cluster: FakeCluster
) -> None:
    job, server = a_job(shared), Server(RESUBMITTING)
    cluster.refusal = SubmissionRefused("Slurm refused the job: Invalid account")
    for _ in range(2):
        assert go_on(server, job) is None
        assert server.state is not None
        assert (server.state.type.value, server.state.name) == ("CRASHED", "WalltimeExceeded")
        assert server.state.message == (
            "Job 7 had too little walltime. Resubmission 1 of at most 3 after the walltime."
            " It was refused: Slurm refused the job: Invalid account"
        )
        assert {path.name for path in (shared / "live").iterdir()} == {job.run.submission_id}
    assert submissions(shared) == 2


def test_a_refusal_is_not_said_of_a_run_that_was_cancelled_meanwhile(
    shared: Path, cluster: FakeCluster
) -> None:
    job, server = a_job(shared), Server(RESUBMITTING)
    cluster.refusal = SubmissionRefused("Invalid account")

    def cancelled(_: str) -> None:
        server.state = states.Cancelled()

    cluster.step = cancelled
    assert go_on(server, job) is None
    assert server.state is not None
    assert server.state.is_cancelled()


def test_what_was_refused_once_and_taken_later_is_live(shared: Path, cluster: FakeCluster) -> None:
    job, server = a_job(shared), Server(RESUBMITTING)
    cluster.refusal = SubmissionRefused("The partition is down")
    go_on(server, job)
    cluster.refusal = None
    following = go_on(server, job)
    assert following is not None
    assert (shared / "live" / following.run.submission_id).exists()


@pytest.mark.parametrize(
    "error",
    [
        SchedulerUnavailable("down"),
        SharedDirectoryError("the shared directory is full"),
        LoginRefused("the key is not there"),
    ],
)
def test_what_cannot_be_submitted_now_is_submitted_later(
    shared: Path, cluster: FakeCluster, error: Exception
) -> None:
    job, server = a_job(shared), Server(WALLTIME)
    cluster.refusal = error
    for _ in range(2):
        with pytest.raises(type(error)):
            go_on(server, job)
        assert server.state is not None
        assert server.state.name == "Resubmitting"
    cluster.refusal = None
    following = go_on(server, job)
    assert following is not None
    assert submissions(shared) == 2
    assert (shared / "live" / following.run.submission_id).exists()
