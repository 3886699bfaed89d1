"""Slurm's queue: every captured answer and every word of a state."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC

import pytest

from hpc_bridge.errors import UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.schedulers.base import Answer
from tests.unit.slurm_answers import (
    ODD_NAMES,
    SLURM,
    answer,
    captured,
    each_version,
    printed,
    queued,
    recorded,
    subject,
)

STATUS = {
    "bad-output": JobState.FAILED,
    "cancelled-by-root": JobState.CANCELLED,
    "cancelled-by-user": JobState.CANCELLED,
    "cancelled-pending": JobState.CANCELLED,
    "completed": JobState.COMPLETED,
    "completing": JobState.COMPLETING,
    "deadline": JobState.DEADLINE,
    "failed-3": JobState.FAILED,
    "failed-signal": JobState.FAILED,
    "failed-trapped-term": JobState.FAILED,
    "held-by-admin": JobState.HELD,
    "held-by-user": JobState.HELD,
    "name-with-tab": JobState.PENDING,
    "node-fail": JobState.NODE_FAIL,
    "node-fail-requeued": JobState.PENDING,
    "odd-name": JobState.RUNNING,
    "out-of-memory": JobState.OUT_OF_MEMORY,
    "pending-begin-time": JobState.PENDING,
    "pending-dependency": JobState.PENDING,
    "pending-dependency-never": JobState.PENDING,
    "pending-node-down": JobState.PENDING,
    "pending-node-not-available": JobState.PENDING,
    "pending-nodes-down-or-drained": JobState.PENDING,
    "pending-partition-time-limit": JobState.PENDING,
    "pending-priority": JobState.PENDING,
    "pending-qos-limit": JobState.PENDING,
    "pending-resources": JobState.PENDING,
    "preempted": JobState.PREEMPTED,
    "preempted-requeued": JobState.PENDING,
    "requeue-hold": JobState.HELD,
    "requeued-pending": JobState.PENDING,
    "requeued-running": JobState.RUNNING,
    "running": JobState.RUNNING,
    "special-exit": JobState.HELD,
    "suspended": JobState.SUSPENDED,
    "timeout": JobState.TIMEOUT,
}
STATUS_ELSEWHERE = {
    "array-half-running", "array-two-cancelled", "controller-dead", "controller-hung", "empty",
    "name-with-newline", "name-with-u2028", "name-with-unit-separator", "requeue-just-asked",
}  # fmt: skip


@each_version
def test_every_captured_status_is_in_a_table(version: str) -> None:
    assert captured(version, "status") == set(STATUS) | STATUS_ELSEWHERE


@each_version
def test_the_states_of_the_queue_are_read(version: str) -> None:
    jobs = {name: SLURM.parse_status(answer(version, f"status-{name}")) for name in STATUS}
    assert {name: subject(found).state for name, found in jobs.items()} == STATUS
    assert all(job.job_id == job_id for found in jobs.values() for job_id, job in found.items())


@each_version
def test_a_running_job_has_nodes_and_times(version: str) -> None:
    job = subject(SLURM.parse_status(answer(version, "status-running")))
    assert (job.name, job.scheduler_state, job.nodes) == ("runs", "RUNNING", "c[1-2]")
    assert job.submitted is not None
    assert job.started is not None
    assert job.started.tzinfo is UTC
    assert (job.reason, job.ended, job.estimated_start, job.exit_code) == (None,) * 4


@each_version
def test_a_waiting_job_has_a_reason_and_an_estimated_start(version: str) -> None:
    job = subject(SLURM.parse_status(answer(version, "status-pending-begin-time")))
    assert (job.reason, job.nodes, job.started, job.ended) == ("BeginTime", None, None, None)
    assert job.estimated_start is not None
    assert job.submitted is not None
    assert job.estimated_start > job.submitted


@each_version
def test_a_job_that_is_over_has_an_end(version: str) -> None:
    job = subject(SLURM.parse_status(answer(version, "status-timeout")))
    assert job.ended is not None
    assert (job.reason, job.name) == ("TimeLimit", "timeout")


@each_version
def test_a_reason_with_blanks_and_commas_is_read(version: str) -> None:
    reasons = [
        subject(SLURM.parse_status(answer(version, f"status-{name}"))).reason
        for name in ("pending-node-down", "requeue-hold")
    ]
    assert reasons == ["ReqNodeNotAvail, UnavailableNodes:c2", "job requeued in held state"]


@each_version
def test_an_empty_queue_is_an_answer(version: str) -> None:
    assert SLURM.parse_status(answer(version, "status-empty")) == {}


@each_version
def test_a_job_whose_requeue_was_just_asked_for_is_alive(version: str) -> None:
    job = subject(SLURM.parse_status(answer(version, "status-requeue-just-asked")))
    assert not job.state.is_terminal


@each_version
def test_array_elements_are_jobs_of_their_own(version: str) -> None:
    half = SLURM.parse_status(answer(version, "status-array-half-running"))
    some = SLURM.parse_status(answer(version, "status-array-two-cancelled"))
    states = [[job.state for _, job in sorted(jobs.items(), key=str)] for jobs in (half, some)]
    running, waiting, gone = JobState.RUNNING, JobState.PENDING, JobState.CANCELLED
    assert states[0] == [running] * 3 + [waiting] * 3
    assert states[1][:2] == [gone] * 2
    assert gone not in states[1][2:]
    assert all(re.fullmatch(r"\d+_[0-5]", job.value) for job in (*half, *some))


@each_version
@pytest.mark.parametrize("kind", ["status", "history"])
def test_a_job_with_an_odd_name_hides_no_other(version: str, kind: str) -> None:
    parse = SLURM.parse_status if kind == "status" else SLURM.parse_history
    other = answer(version, f"{kind}-running")
    for name in ODD_NAMES:
        odd = answer(version, f"{kind}-name-with-{name}")
        for stdout in (odd.stdout + other.stdout, other.stdout + odd.stdout):
            jobs = parse(Answer(odd.command, 0, stdout, ""))
            assert parse(other).items() <= jobs.items(), name
            assert {job.state for job in jobs.values()} <= {JobState.RUNNING, JobState.PENDING}


def test_the_words_of_a_name_are_not_taken_for_a_state() -> None:
    line = queued("7", "RUNNING COMPLETED", "FAILED", reason="RUNNING", nodes="RUNNING")
    (job,) = SLURM.parse_status(printed(line)).values()
    assert (job.state, job.name) == (JobState.FAILED, "RUNNING COMPLETED")


# squeue(1), "JOB STATE CODES", and sacct(1): every word there is.
WORDS = {
    "BOOT_FAIL": JobState.BOOT_FAIL,
    "CANCELLED": JobState.CANCELLED,
    "COMPLETED": JobState.COMPLETED,
    "CONFIGURING": JobState.STARTING,
    "COMPLETING": JobState.COMPLETING,
    "DEADLINE": JobState.DEADLINE,
    "EXPEDITING": JobState.PENDING,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "NODE_FAIL": JobState.NODE_FAIL,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "PENDING": JobState.PENDING,
    "POWER_UP_NODE": JobState.STARTING,
    "PREEMPTED": JobState.PREEMPTED,
    "RECONFIG_FAIL": JobState.FAILED,
    "REQUEUED": JobState.REQUEUED,
    "REQUEUE_FED": JobState.REQUEUED,
    "REQUEUE_HOLD": JobState.HELD,
    "RESIZING": JobState.RUNNING,
    "RESV_DEL_HOLD": JobState.HELD,
    "REVOKED": JobState.CANCELLED,
    "RUNNING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SPECIAL_EXIT": JobState.HELD,
    "STAGE_OUT": JobState.COMPLETING,
    "STOPPED": JobState.SUSPENDED,
    "SUSPENDED": JobState.SUSPENDED,
    "TIMEOUT": JobState.TIMEOUT,
    "UPDATE_DB": JobState.COMPLETING,
}


def test_every_word_of_slurm_has_its_neutral_state() -> None:
    for word, state in WORDS.items():
        (in_queue,) = SLURM.parse_status(printed(queued(word=word))).values()
        (in_records,) = SLURM.parse_history(printed(recorded(word=word))).values()
        assert (in_queue.state, in_records.state) == (state, state), word
        assert (in_queue.scheduler_state, in_records.scheduler_state) == (word, word)


def test_every_neutral_state_but_lost_is_a_word_of_slurm() -> None:
    held = SLURM.parse_status(printed(queued(word="PENDING", reason="JobHeldUser")))
    states = {*WORDS.values(), *(job.state for job in held.values())}
    assert states == set(JobState) - {JobState.LOST}


LIVE = {"PENDING", "HELD", "STARTING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED"}


def test_live_states_are_those_of_the_contract() -> None:
    assert {state.value for state in JobState if not state.is_terminal} == LIVE
    assert {state.value for state in JobState if state.is_waiting} == {
        "PENDING",
        "HELD",
        "REQUEUED",
    }


@pytest.mark.parametrize("parse", [SLURM.parse_status, SLURM.parse_history])
def test_an_unknown_word_is_named_and_hides_no_other_job(
    parse: Callable[[Answer], dict[JobId, JobStatus]],
) -> None:
    line = queued if parse == SLURM.parse_status else recorded
    lines = [line("1"), line("2", word="BANANA"), line("3", word="RUNNING")]
    with pytest.raises(UnexpectedOutput, match="job 2 is in state 'BANANA'") as caught:
        parse(printed(*lines))
    assert set(caught.value.readable) == {JobId("1"), JobId("3")}
    assert caught.value.readable[JobId("3")].state is JobState.RUNNING


@pytest.mark.parametrize("word", ["", "running", "RUNNINGX", "XRUNNING", "CD", "R"])
def test_a_word_is_known_as_a_whole_or_not_at_all(word: str) -> None:
    with pytest.raises(UnexpectedOutput, match=f"in state '{word}'"):
        SLURM.parse_status(printed(queued(word=word)))


def test_damaged_lines_are_left_out() -> None:
    whole = "\x1f".join(queued("7"))
    for noise in ("", "Welcome to the cluster!", whole[:-12], f"{whole}\x1fmore"):
        jobs = SLURM.parse_status(Answer((), 0, f"{noise}\n{whole}\n{noise}\n", ""))
        assert list(jobs) == [JobId("7")]
