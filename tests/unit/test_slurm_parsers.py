"""Slurm's answers: tables over what real commands of three versions printed.

The captures ask for more columns than the package does; ``answer`` keeps those that it asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    HPCBridgeError,
    InvalidJobSpec,
    SchedulerUnavailable,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.schedulers.base import Answer, Queue
from hpc_bridge.schedulers.slurm import SlurmScheduler

SLURM = SlurmScheduler()
CAPTURES = Path(__file__).parents[1] / "data" / "slurm"
VERSIONS = sorted(folder.name for folder in CAPTURES.iterdir() if folder.is_dir())
SINCE = datetime(2026, 11, 21, tzinfo=UTC)
ASKED = {
    "status": SLURM.status_command("researcher"),
    "find": SLURM.find_command("hb", "researcher"),
    "history": SLURM.history_command([JobId("1")], "researcher", SINCE),
    "queues": SLURM.queue_command(),
    "usage": SLURM.usage_command([JobId("1")], "researcher", SINCE),
}

# Which would break the lines while columns are picked.
ODD_NAMES = {
    "newline": "a\nb",
    "tab": "a\tb",
    "u2028": "a\u2028b",
    "unit-separator": "a\x1fb",
}

each_version = pytest.mark.parametrize("version", VERSIONS)


def columns(command: list[str]) -> list[str]:
    (form,) = [word for word in command if word.startswith("--format=")]
    return re.split(r"[\x1f,]", form.removeprefix("--format="))


def answer(version: str, name: str) -> Answer:
    """A captured answer, as the package's own command would have printed it."""
    stored = json.loads((CAPTURES / version / f"{name}.json").read_text(encoding="utf-8"))
    stdout = stored["stdout"]
    kind = "history" if name.startswith("find-history") else name.split("-")[0]
    if kind in ASKED and stdout:
        given, asked = columns(stored["command"]), columns(ASKED[kind])
        odd = ODD_NAMES.get(name.partition("-name-with-")[2], "@")
        lines = stdout.replace(odd, "@").split("\n")[:-1]
        stdout = "".join(_projected(line, given, asked) for line in lines).replace("@", odd)
    return Answer(tuple(stored["command"]), stored["exit_code"], stdout, stored["stderr"])


def _projected(line: str, given: list[str], asked: list[str]) -> str:
    named = dict(zip(given, line.split("\x1f"), strict=True))
    # Of a partition, %R is the name alone, %P the name and the default's star.
    return "\x1f".join(named[column] if column in named else named["%R"] for column in asked) + "\n"


def printed(*rows: tuple[str, ...], exit_code: int = 0, stderr: str = "") -> Answer:
    stdout = "".join("\x1f".join(row) + "\n" for row in rows)
    return Answer(("squeue",), exit_code, stdout, stderr)


def queued(
    job: str = "1", name: str = "hb", word: str = "RUNNING", **fields: str
) -> tuple[str, ...]:
    """One line of squeue."""
    moment = "2026-11-21T05:25:03"
    rest = {"reason": "None", "nodes": "c1", "submitted": moment, "started": moment, "ended": "N/A"}
    return (job, name, word, *(rest | fields).values())


def recorded(job: str = "1", name: str = "hb", word: str = "COMPLETED", code: str = "0:0"):
    """One line of sacct."""
    moment = "2026-11-21T05:25:03"
    return (job, name, word, code, "None", "c1", moment, moment, moment)


def subject(jobs: dict[JobId, JobStatus]) -> JobStatus:
    """The job that a capture is about: the newest."""
    return max(jobs.values(), key=lambda job: int(job.job_id.value))


# status

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


def captured(version: str, kind: str) -> set[str]:
    paths = (CAPTURES / version).glob(f"{kind}-*.json")
    return {path.stem.removeprefix(f"{kind}-") for path in paths}


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


# history

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


def test_the_records_of_elements_are_asked_for_by_their_arrays_id() -> None:
    """``sacct --jobs=4_2`` does not find the record that elements share that did not start."""
    jobs = [JobId("4_2"), JobId("5"), JobId("4_3")]
    assert "--jobs=4,5" in SLURM.history_command(jobs, "me", SINCE)


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


def test_a_search_by_name_also_finds_jobs_that_were_never_eligible_to_run() -> None:
    """Without ids sacct looks for jobs that were, between start and end time."""
    command = SLURM.find_history_command("hbabc", "me", SINCE)
    assert {"--name=hbabc", "--user=me", "--duplicates", "--allocations"} <= set(command)
    assert "--endtime=2037-01-01T00:00:00" in command
    assert any(word.startswith("--state=") and "CA" in word for word in command)


# submit

SUBMIT_TAKEN = [
    "ok", "accounting-dead", "bad-directory", "walltime-over-limit",
]  # fmt: skip
SUBMIT_REFUSED = [
    ("bad-gres", "Requested node configuration is not available"),
    ("bad-memory", "Invalid --mem specification"),
    ("bad-option", "unrecognized option '--no-such-option'"),
    ("bad-time", "Invalid --time specification"),
    ("empty", "Batch script is empty!"),
    ("enforced-impossible-memory", "Memory specification can not be satisfied"),
    ("enforced-nodes-too-many", "Batch job submission failed"),
    ("enforced-walltime-over-limit", "Requested time limit is invalid"),
    ("gres-too-many", "Requested node configuration is not available"),
    ("impossible-memory", "Memory specification can not be satisfied"),
    ("no-shebang", "This does not look like a batch script."),
    ("qos-submit-limit", "QOSMaxSubmitJobPerUserLimit"),
    ("unknown-account", "Invalid account or account/partition combination specified"),
    ("unknown-partition", "invalid partition specified: nope"),
    ("unknown-qos", "Invalid qos specification"),
]
# One version takes the job and lets it wait, another refuses it.
SUBMIT_EITHER = ["bad-dependency", "cpus-too-many", "nodes-too-many"]
SUBMIT_ELSEWHERE = {"command-missing", "controller-dead", "controller-hung"}


@each_version
def test_every_captured_submission_is_in_a_table(version: str) -> None:
    refused = {name for name, _ in SUBMIT_REFUSED}
    tables = {*SUBMIT_TAKEN, *refused, *SUBMIT_EITHER} | SUBMIT_ELSEWHERE
    assert captured(version, "submit") == tables


@each_version
def test_the_ids_of_submitted_jobs_are_read(version: str) -> None:
    for name in SUBMIT_TAKEN:
        given = answer(version, f"submit-{name}")
        assert SLURM.parse_submit(given) == JobId(given.stdout.strip())


@pytest.mark.parametrize(("name", "words"), SUBMIT_REFUSED)
def test_a_refusal_holds_slurms_own_words(name: str, words: str) -> None:
    for version in VERSIONS:
        given = answer(version, f"submit-{name}")
        with pytest.raises(SubmissionRefused, match=f"^Slurm refused the job: .*{words}") as caught:
            SLURM.parse_submit(given)
        error = caught.value
        assert (error.exit_code, error.stderr) == (given.exit_code, given.stderr)
        assert (error.command, error.retryable) == (list(given.command), False)


@each_version
def test_what_one_version_takes_and_another_refuses(version: str) -> None:
    for name in SUBMIT_EITHER:
        given = answer(version, f"submit-{name}")
        if given.exit_code == 0:
            assert SLURM.parse_submit(given) == JobId(given.stdout.strip())
        else:
            with pytest.raises(SubmissionRefused, match="Batch job submission failed"):
                SLURM.parse_submit(given)


@pytest.mark.parametrize(
    ("stdout", "job"),
    [
        ("123\n", "123"),
        ("123;cluster\n", "123"),
        ("123;my-cluster.site_1\n", "123"),
        ("Welcome to host 7!\n42 users\n\n123\n", "123"),
        ("99\n123\n", "123"),
        ("  123  \n", "123"),
        ("123\nbye\n", "123"),
    ],
)
def test_an_id_is_found_among_what_a_login_prints(stdout: str, job: str) -> None:
    assert SLURM.parse_submit(Answer((), 0, stdout, "")) == JobId(job)


@pytest.mark.parametrize("stdout", ["", "\n", "Submitted batch job 123\n", "job 123", "-1", "12.5"])
def test_an_answer_without_an_id_is_unexpected(stdout: str) -> None:
    with pytest.raises(UnexpectedOutput, match=re.escape(f"no job id but {stdout!r}")):
        SLURM.parse_submit(Answer((), 0, stdout, ""))


# the scheduler does not answer

PARSERS: dict[str, Callable[[Answer], Any]] = {
    "status": SLURM.parse_status,
    "history": SLURM.parse_history,
    "submit": SLURM.parse_submit,
    "scancel": SLURM.parse_cancel,
    "queues": SLURM.parse_queues,
    "find": SLURM.parse_find,
    "usage": SLURM.parse_usage,
}


UNANSWERED = [
    *("status-controller-dead", "status-controller-hung"),
    *("submit-controller-dead", "submit-controller-hung"),
    *("scancel-controller-dead", "scancel-controller-hung"),
    *("queues-controller-dead", "queues-controller-hung"),
    *("history-accounting-dead", "history-accounting-hung"),
]


def test_usage_that_cannot_be_asked_for_may_be_asked_again() -> None:
    for name in ("history-accounting-dead", "history-accounting-hung"):
        with pytest.raises(SchedulerUnavailable):
            SLURM.parse_usage(answer("24.11", name))


@pytest.mark.parametrize("name", UNANSWERED)
def test_no_answer_from_a_daemon_may_be_tried_again(name: str) -> None:
    for version in VERSIONS:
        given = answer(version, name)
        with pytest.raises(SchedulerUnavailable) as caught:
            PARSERS[name.split("-")[0]](given)
        assert caught.value.retryable
        assert given.stderr.strip() in str(caught.value)


@pytest.mark.parametrize("kind", PARSERS)
def test_a_missing_command_says_what_to_do(kind: str) -> None:
    for version in VERSIONS:
        missing = answer(version, "submit-command-missing")
        with pytest.raises(CommandNotFound, match="HPC_BRIDGE_SCHEDULER=local") as caught:
            PARSERS[kind](missing)
        assert "a login node" in str(caught.value)
        assert (caught.value.exit_code, caught.value.retryable) == (127, False)


@pytest.mark.parametrize("kind", ["status", "history", "queues", "find", "usage"])
def test_a_failed_query_is_never_an_empty_answer(kind: str) -> None:
    failed = Answer((kind,), 1, "", "")
    with pytest.raises(CommandError, match="no message") as caught:
        PARSERS[kind](failed)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("kind", ["status", "history", "find"])
def test_what_a_failed_query_printed_is_not_used(kind: str) -> None:
    with pytest.raises(HPCBridgeError):
        PARSERS[kind](printed(queued(), exit_code=1, stderr="Invalid user"))


# cancel


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


@pytest.mark.parametrize("exit_code", [1, 127, -9])
def test_a_cancel_that_failed_without_a_word_is_an_error(exit_code: int) -> None:
    with pytest.raises(CommandError, match="no message"):
        SLURM.parse_cancel(Answer(("scancel", "5"), exit_code, "", ""))


# find


@each_version
def test_a_job_is_found_by_its_name(version: str) -> None:
    (job,) = SLURM.parse_find(answer(version, "find-one"))
    assert job.name == "hb-find-me"


@each_version
def test_no_job_of_that_name_is_an_empty_list(version: str) -> None:
    assert SLURM.parse_find(answer(version, "find-none")) == []


@each_version
def test_a_job_is_found_in_the_records_by_its_name(version: str) -> None:
    jobs = SLURM.parse_history(answer(version, "find-history-one"))
    assert (subject(jobs).name, subject(jobs).state) == ("hb-find-me", JobState.RUNNING)
    assert SLURM.parse_history(answer(version, "find-history-none")) == {}


def test_of_several_jobs_of_that_name_the_newest_is_first() -> None:
    lines = [queued("9"), queued("8_10"), queued("10"), queued("8_2"), queued("8_[11-12]")]
    found = SLURM.parse_find(printed(*lines))
    assert [job.job_id.value for job in found] == ["10", "9", "8_2", "8_10", "8_11", "8_12"]


@each_version
def test_all_elements_of_an_array_are_found(version: str) -> None:
    assert len(SLURM.parse_find(answer(version, "find-array"))) == 6


# queues


@each_version
def test_partitions_have_their_limits(version: str) -> None:
    for name in ("queues", "queues-node-drained"):
        queues = SLURM.parse_queues(answer(version, name))
        assert queues["gpu"] == Queue("gpu", is_default=False, is_up=True, walltime_seconds=86400)
        assert set(queues) == {"cpu", "gpu", "scavenge", "scavrq"}


@each_version
def test_the_default_partition_is_known_by_its_star(version: str) -> None:
    # This capture has names only.
    stored = json.loads((CAPTURES / version / "queues-default-marker.json").read_text())
    rows = [(name, "up", "infinite") for name in stored["stdout"].split()]
    queues = SLURM.parse_queues(printed(*rows))
    assert [name for name, queue in queues.items() if queue.is_default] == ["cpu"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("infinite", None),
        ("n/a", None),
        ("30:00", 1800),
        ("1:00:00", 3600),
        ("12:30:15", 45015),
        ("7-00:00:00", 604800),
    ],
)
def test_a_partitions_walltime_is_read(text: str, seconds: int | None) -> None:
    (queue,) = SLURM.parse_queues(printed(("cpu", "down", text))).values()
    assert (queue.walltime_seconds, queue.is_up) == (seconds, False)


# commands


@pytest.mark.parametrize("command", ASKED.values(), ids=ASKED)
def test_what_shapes_an_output_is_pinned_by_the_command_itself(command: list[str]) -> None:
    assert command[0] == "env"
    pinned = {"TZ=UTC", "LC_ALL=C.UTF-8", "SLURM_TIME_FORMAT=standard", "SLURM_BITSTR_LEN=0"}
    assert pinned | {"--noheader"} <= set(command)
    assert {f"--unset={name}_FORMAT" for name in ("SQUEUE", "SACCT", "SINFO")} <= set(command)


def test_history_is_asked_in_utc() -> None:
    local = datetime(2026, 11, 21, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    command = SLURM.history_command([JobId("1"), JobId("2_3")], "me", local)
    assert {"--starttime=2026-11-20T23:30:00", "--jobs=1,2", "--user=me"} <= set(command)


def test_the_name_of_a_job_is_said_on_the_command_line() -> None:
    """There it wins over what a template or a directive says."""
    assert SLURM.submit_command("hbabc")[-3:] == ["sbatch", "--parsable", "--job-name=hbabc"]


# directives of the user


@pytest.mark.parametrize(
    "line",
    [
        *("--job-name=mine", "--job-name mine", "--job=mine", "-Jmine", "-J mine"),
        *("--array=1-9", "--arr=1-9", "-a1-9"),
        *("--output=/tmp/x", "--out=/tmp/x", "-o /tmp/x", "--open-mode=truncate"),
        *("--export=ALL", "--exp=ALL", "--chdir=/tmp", "-D/tmp"),
        *("--wrap=true", "--wait", "-W", "--parsable", "--test-only"),
    ],
)
def test_a_directive_that_is_ours_is_refused(line: str) -> None:
    with pytest.raises(InvalidJobSpec, match=f"^directives: {line!r} is decided by hpc-bridge"):
        SLURM.check_directives(["--nice", line])


def test_other_directives_are_the_users() -> None:
    SLURM.check_directives(
        [
            *("--mail-type=END", "--mail-user me@site", "--nice", "--nice=5", "--hold", "-H"),
            *("--gres=gpu:1", "--exclusive=user", "--ntasks-per-socket=2", "-N2", "-n", "-t 5"),
            *("--export-file=/x", "--wait-all-nodes=1", "--error=/tmp/job.err", "-A proj"),
            *("--comment=--array=1-9", "--time-min=5", "--dependency=singleton"),
        ]
    )
