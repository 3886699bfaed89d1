"""Slurm's records: every captured answer of accounting."""

from __future__ import annotations

import re

from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.schedulers.base import Answer
from tests.unit.slurm_answers import (
    SLURM,
    answer,
    captured,
    each_version,
    printed,
    recorded,
    subject,
)

HISTORY = {
    "cancelled-by-root": JobState.CANCELLED,
    "cancelled-by-user": JobState.CANCELLED,
    "cancelled-pending": JobState.CANCELLED,
    "completed": JobState.COMPLETED,
    "completing": JobState.CANCELLED,
    "deadline": JobState.DEADLINE,
    "failed-3": JobState.FAILED,
    "failed-signal": JobState.FAILED,
    "failed-trapped-term": JobState.FAILED,
    "known-and-unknown": JobState.COMPLETED,
    "name-with-tab": JobState.PENDING,
    "node-fail": JobState.NODE_FAIL,
    "node-fail-requeued": JobState.PENDING,
    "odd-name": JobState.RUNNING,
    "out-of-memory": JobState.OUT_OF_MEMORY,
    "pending": JobState.PENDING,
    "preempted": JobState.PREEMPTED,
    "preempted-requeued": JobState.PENDING,
    "requeue-hold": JobState.PENDING,
    "requeued-cancelled": JobState.CANCELLED,
    "requeued-pending": JobState.PENDING,
    "requeued-running": JobState.RUNNING,
    "running": JobState.RUNNING,
    "several": JobState.FAILED,
    "special-exit": JobState.PENDING,
    "suspended": JobState.SUSPENDED,
    "timeout": JobState.TIMEOUT,
}
HISTORY_ELSEWHERE = {
    "accounting-dead", "accounting-hung", "array-cancelled", "array-half-running", "bad-output",
    "controller-dead", "controller-hung", "exit-137", "name-with-newline", "name-with-u2028",
    "name-with-unit-separator", "other-users-job", "unknown",
}  # fmt: skip


@each_version
def test_every_captured_history_is_in_a_table(version: str) -> None:
    assert captured(version, "history") == set(HISTORY) | HISTORY_ELSEWHERE


@each_version
def test_the_newest_records_are_read(version: str) -> None:
    jobs = {name: SLURM.parse_history(answer(version, f"history-{name}")) for name in HISTORY}
    assert {name: subject(found).state for name, found in jobs.items()} == HISTORY


@each_version
def test_jobs_without_a_record_are_left_out(version: str) -> None:
    for name in ("other-users-job", "unknown"):
        assert SLURM.parse_history(answer(version, f"history-{name}")) == {}


@each_version
def test_a_record_that_is_late_is_no_error(version: str) -> None:
    """Accounting had not heard of these jobs on 22.05."""
    for name in ("bad-output", "exit-137", "controller-dead", "controller-hung"):
        jobs = SLURM.parse_history(answer(version, f"history-{name}"))
        assert bool(jobs) or version == "22.05"


def test_a_site_without_records_has_none() -> None:
    words = "Slurm accounting storage is disabled\n"
    assert SLURM.parse_history(Answer(("sacct",), 1, "", words)) == {}


@each_version
def test_exit_code_and_signal_are_those_of_a_job_that_is_over(version: str) -> None:
    ends = {
        "completed": (0, None),
        "failed-3": (3, None),
        "failed-signal": (0, 11),
        "out-of-memory": (0, 125),
        "running": (None, None),
        "requeued-pending": (None, None),
    }
    jobs = {name: SLURM.parse_history(answer(version, f"history-{name}")) for name in ends}
    found = {name: subject(records) for name, records in jobs.items()}
    assert {name: (job.exit_code, job.signal) for name, job in found.items()} == ends


@each_version
def test_a_trapped_signal_is_an_exit_code(version: str) -> None:
    job = subject(SLURM.parse_history(answer(version, "history-failed-trapped-term")))
    assert (job.exit_code, job.signal) == (143 if version == "26.05" else 15, None)


@each_version
def test_who_cancelled_is_known(version: str) -> None:
    users = {"cancelled-by-user": "1500", "cancelled-by-root": "0", "cancelled-pending": "1500"}
    for name, user in users.items():
        job = subject(SLURM.parse_history(answer(version, f"history-{name}")))
        assert (job.cancelled_by, job.scheduler_state) == (user, f"CANCELLED by {user}")


def test_a_job_cancelled_by_nobody_is_cancelled_all_the_same() -> None:
    (job,) = SLURM.parse_history(printed(recorded(word="CANCELLED"))).values()
    assert (job.state, job.cancelled_by) == (JobState.CANCELLED, None)


@each_version
def test_a_job_that_never_started_has_no_nodes(version: str) -> None:
    job = subject(SLURM.parse_history(answer(version, "history-cancelled-pending")))
    assert job.nodes is None
    assert job.ended is not None
    assert job.started in (None, job.ended)  # 22.05 gives the moment of the end


@each_version
def test_the_records_of_several_jobs_come_together(version: str) -> None:
    jobs = SLURM.parse_history(answer(version, "history-several"))
    assert [(job.name, job.state.value) for job in jobs.values()] == [
        ("completed", "COMPLETED"),
        ("failed-3", "FAILED"),
    ]


@each_version
def test_array_elements_have_records_of_their_own(version: str) -> None:
    jobs = SLURM.parse_history(answer(version, "history-array-cancelled"))
    states = {job.state for job_id, job in jobs.items() if re.fullmatch(r"\d+_\d", job_id.value)}
    assert states == {JobState.CANCELLED}
    half = SLURM.parse_history(answer(version, "history-array-half-running"))
    assert JobState.RUNNING in {job.state for job in half.values()}


@each_version
def test_elements_that_never_started_are_read_from_the_record_that_they_share(version: str) -> None:
    half = SLURM.parse_history(answer(version, "history-array-half-running"))
    waiting = {job.value for job, status in half.items() if status.state is JobState.PENDING}
    assert waiting == {"86_3", "86_4", "86_5"} or version != "24.11"
    assert len(half) == 6
    held = SLURM.parse_history(answer(version, "find-history-held-array-cancelled"))
    assert {job.value: status.cancelled_by for job, status in held.items()} == {
        f"40_{index}": "1500" for index in range(4)
    }


def test_an_elements_own_record_goes_before_the_shared_one() -> None:
    own, shared = recorded("4_1", word="RUNNING"), recorded("4_[0-1]", word="CANCELLED by 0")
    for lines in ([own, shared], [shared, own]):
        jobs = SLURM.parse_history(printed(*lines))
        assert {job.value: status.state.value for job, status in jobs.items()} == {
            "4_0": "CANCELLED",
            "4_1": "RUNNING",
        }


@each_version
def test_an_element_that_was_cancelled_alone_before_it_started_is_known_by_the_others(
    version: str,
) -> None:
    found = SLURM.parse_history(answer(version, "find-history-array-cancelled"))
    array = next(iter(found)).value.partition("_")[0]
    missing = JobId(f"{array}_3")
    asked = [missing, JobId(f"{array}_1"), JobId("77_1"), JobId(array)]
    assert missing not in found
    known = SLURM.without_record(asked, found)
    assert {job: (job, status.state, status.name) for job, status in known.items()} == {
        missing: (missing, JobState.CANCELLED, "u-arrs")
    }
