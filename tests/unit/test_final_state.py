"""How a job ended, as a state of its flow run: its name and its words."""

from __future__ import annotations

import os
import pwd
from datetime import timedelta
from typing import Any

import pytest
from prefect import states
from prefect.client.schemas.objects import State

from hpc_bridge.jobs import NEVER_STARTED, JobId, JobState, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.node.records import ExitRecord
from hpc_bridge.storage.remote_files import RemoteFiles
from hpc_bridge.tracking.outcome import final_state, is_other_jobs
from hpc_bridge.transports.base import Completed
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import Login
from tests.unit.ended_jobs import NOON, job, spec

THEIRS = os.getuid() + 1


class Answering(LocalTransport):
    """A login host where the account is researcher, THEIRS."""

    def __init__(self, answers: dict[tuple[str, ...], str]) -> None:
        self.answers = answers

    def run(self, argv: Any, **_: Any) -> Completed:
        if argv[0] != "id":
            text = f"researcher\n{THEIRS}\n/home/researcher\n"
            return Completed(0, text, "", raw=text.encode())
        text = self.answers.get(tuple(argv), "")
        return Completed(0 if text else 1, text, "", raw=text.encode())


USED = JobUsage(
    started=NOON,
    ended=NOON + timedelta(minutes=1),
    cpus=2,
    cpu_seconds=60.0,
    memory=16384,
    max_memory=15360,
)
ENDED = JobState.COMPLETED
CAUSES = {
    JobState.TIMEOUT: "WalltimeExceeded",
    JobState.OUT_OF_MEMORY: "OutOfMemory",
    JobState.NODE_FAIL: "NodeFail",
    JobState.PREEMPTED: "Preempted",
    JobState.BOOT_FAIL: "BootFail",
    JobState.DEADLINE: "DeadlineExceeded",
    JobState.LOST: "Lost",
    JobState.FAILED: "JobFailed",
    JobState.COMPLETED: "JobFailed",
}

LOST = JobStatus(
    JobId("42"),
    "hbabc",
    JobState.LOST,
    scheduler_state="",
    reason="neither in the queue nor in the scheduler's records",
)


# the name


@pytest.mark.parametrize(("state", "name"), CAUSES.items())
def test_the_state_is_named_after_the_cause(state: JobState, name: str) -> None:
    final = final_state(job(state), None, "", None)
    assert (final.type.value, final.name) == ("CRASHED", name)
    assert final.message is not None
    assert final.message.startswith("Job 42 ")


def test_every_terminal_state_of_a_job_has_a_final_state() -> None:
    for state in JobState:
        if state.is_terminal:
            assert final_state(job(state), None, "", None).is_final()


@pytest.mark.parametrize("state", CAUSES)
def test_a_cause_that_the_job_knows_wins(state: JobState) -> None:
    record = ExitRecord(cause="PythonNotFound", message="there is no Python at /x", exit_code=127)
    final = final_state(job(state), record, "", None)
    assert (final.type.value, final.name) == ("CRASHED", "PythonNotFound")
    assert "\nthere is no Python at /x\n" in (final.message or "")


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (str(os.getuid()), f" by {pwd.getpwuid(os.getuid()).pw_name}."),
        ("4123456789", " by 4123456789."),  # of another machine's accounts
        ("operator@site", " by operator@site."),
        (None, "."),
    ],
)
def test_a_job_cancelled_at_the_scheduler_is_cancelled(by: str | None, words: str) -> None:
    status = job(JobState.CANCELLED, cancelled_by=by, started=NOON, nodes="c1")
    final = final_state(status, None, "bye", None, usage=USED)
    assert (final.type.value, final.name) == ("CANCELLED", "Cancelled")
    assert (final.message or "").splitlines() == [
        f"Job 42 was cancelled at the scheduler{words}",
        "It used: walltime 00:01:00, memory 15G (94 % of what it asked for), 50 % of its CPU time.",
        "Last lines of its output:",
        "bye",
    ]


def test_user_ids_are_those_of_the_cluster() -> None:
    """Where they are other people's than here."""
    own = os.getuid()
    transport = Answering(
        {("id", "-nu", str(own)): "lea\n", ("id", "-nu", "4123456789"): "operator\n"}
    )
    files = RemoteFiles(Login("paramiko", "far"), transport)

    def message(by: int, before: State[Any] | None = None) -> str | None:
        status = job(JobState.CANCELLED, cancelled_by=str(by), reason="Priority")
        return final_state(status, None, "", None, before, files=files).message

    cancelled = "Job 42 was cancelled"
    assert message(THEIRS, states.Cancelling()) == f"{cancelled} before it started."
    assert message(THEIRS) == f"{cancelled} at the scheduler by researcher before it started."
    assert message(own, states.Cancelling()) == (
        f"{cancelled} at the scheduler by lea before it started."
    )
    assert message(4123456789) == f"{cancelled} at the scheduler by operator before it started."
    assert message(7) == f"{cancelled} at the scheduler by 7 before it started."


@pytest.mark.parametrize(
    "times",
    [{}, {"started": NOON, "ended": NOON}],  # the second is what 22.05 gives
)
def test_a_job_cancelled_in_the_queue_never_started(times: dict[str, Any]) -> None:
    status = job(JobState.CANCELLED, cancelled_by="0", reason="Priority", **times)
    message = final_state(status, None, "", None, usage=USED).message
    assert message == "Job 42 was cancelled at the scheduler by root before it started."


def test_a_job_that_was_given_up_in_the_queue_says_why() -> None:
    reason = NEVER_STARTED + "what it depends on did not end as asked (afterok:41)"
    status = job(JobState.CANCELLED, reason=reason)
    before = "Job 42 was cancelled at the scheduler before it started"
    message = final_state(status, None, "", None).message
    assert message == f"{before}: what it depends on did not end as asked (afterok:41)."
    ours = final_state(status, None, "", None, states.Cancelling()).message
    assert ours == "Job 42 was cancelled before it started."


def test_an_element_that_left_no_record_was_cancelled_by_nobody_known() -> None:
    status = JobStatus(
        JobId("42_3"),
        "hbabc",
        JobState.CANCELLED,
        scheduler_state="",
        reason="cancelled while it waited",
    )
    assert (final_state(status, None, "", None).message or "").splitlines() == [
        "Job 42_3 was cancelled at the scheduler before it started.",
        "There is no record of it: cancelled while it waited.",
    ]
    ours = final_state(status, None, "", None, states.Cancelling())
    assert ours.message == "Job 42_3 was cancelled before it started."


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.FAILED, JobState.LOST])
@pytest.mark.parametrize("record", [None, ExitRecord(cause="Terminated", exit_code=143)])
def test_a_run_that_was_to_be_cancelled_is_cancelled_however_its_job_ended(
    state: JobState, record: ExitRecord | None
) -> None:
    status = job(state, started=NOON, nodes="c1")
    final = final_state(status, record, "", None, states.Cancelling())
    ended = "" if state is JobState.CANCELLED else f" and ended as {state}"
    assert (final.type.value, final.message) == ("CANCELLED", f"Job 42 was cancelled{ended}.")


def test_a_run_being_cancelled_tells_who_else_cancelled_its_job() -> None:
    def message(by: str) -> str | None:
        status = job(JobState.CANCELLED, cancelled_by=by, started=NOON, nodes="c1")
        return final_state(status, None, "", None, states.Cancelling()).message

    assert message(str(os.getuid())) == "Job 42 was cancelled."
    assert (message("operator") or "").splitlines() == [
        "Job 42 was cancelled at the scheduler by operator.",
        "What it used is not known: the scheduler's records could not be had.",
    ]


# the message


@pytest.mark.parametrize(
    ("status", "record", "asked", "words"),
    [
        (
            job(JobState.TIMEOUT, nodes="c1"),
            None,
            {"walltime": "2h"},
            [
                "ended as TIMEOUT on c1; its walltime was 02:00:00.",
                "Ask for a longer walltime",
                'on_walltime="resubmit"',
            ],
        ),
        (
            job(JobState.OUT_OF_MEMORY, nodes="c1"),
            None,
            {"memory": "16G"},
            ["ended as OUT_OF_MEMORY on c1; it had asked for 16G per node.", 'memory="32G".'],
        ),
        (
            job(JobState.OUT_OF_MEMORY),
            None,
            {"memory_per_cpu": "1500M"},
            ["ended as OUT_OF_MEMORY; it had asked for 1500M per CPU."],
        ),
        (job(JobState.TIMEOUT), None, {}, ["Job 42 ended as TIMEOUT."]),
        (
            job(JobState.NODE_FAIL, nodes="c[1-2]"),
            None,
            {},
            ["NODE_FAIL on c[1-2]", "Submit again"],
        ),
        (job(JobState.PREEMPTED), None, {}, ["ended as PREEMPTED.", "allow requeue."]),
        (job(JobState.DEADLINE), None, {}, ["Give a later deadline,"]),
        (job(JobState.FAILED, exit_code=3), None, {}, ["ended as FAILED with exit code 3."]),
        (
            job(JobState.FAILED, exit_code=0, signal=11),
            None,
            {},
            ["died of signal 11 (SIGSEGV) (FAILED)."],
        ),
        (job(JobState.FAILED), ExitRecord(exit_code=7), {}, ["with exit code 7."]),
        (job(JobState.FAILED, signal=99), None, {}, ["died of signal 99 (FAILED)."]),
        (
            job(JobState.FAILED),
            ExitRecord(exit_code=137, signal=9),
            {},
            ["died of signal 9 (SIGKILL)", "too little memory"],
        ),
        # sacct before 26.05 takes 128 from higher codes
        (job(JobState.FAILED, exit_code=15), ExitRecord(exit_code=143), {}, ["exit code 143."]),
        (job(ENDED, nodes="c1"), None, {}, ["ended on c1 without a final state of its flow run."]),
        (
            LOST,
            None,
            {},
            [
                "Job 42 is neither in the queue nor in the scheduler's records",
                "and left no exit record.",
                "submit again if it did not run.",
            ],
        ),
    ],
)
def test_the_message_says_how_it_ended_and_what_to_change(
    status: JobStatus, record: ExitRecord | None, asked: dict[str, Any], words: list[str]
) -> None:
    message = final_state(status, record, "", spec(**asked)).message or ""
    for part in words:
        assert part in message


@pytest.mark.parametrize("state", [state for state in CAUSES if state is not JobState.LOST])
def test_every_end_tells_what_was_asked_for_and_used(state: JobState) -> None:
    asked = spec(walltime="2h", memory="16G", nodes=2, cpus_per_task=4, gpus=1, partition="gpu")
    message = final_state(job(state), None, "bye", asked, usage=USED).message or ""
    assert (
        "\nIt had asked for: walltime 02:00:00, 16G of memory per node, nodes 2, CPUs per task 4,"
        " GPUs 1, partition gpu.\nIt used: walltime 00:01:00, memory 15G"
    ) in message
    assert message.endswith("Last lines of its output:\nbye")


def test_a_partition_is_a_queue_to_pbs() -> None:
    preempted = job(JobState.PREEMPTED)
    message = final_state(preempted, None, "", spec(partition="gpuq"), scheduler="pbs").message
    assert "It had asked for: queue gpuq." in (message or "")
    assert "Use a queue that is not preempted, or allow requeue." in (message or "")
    of_slurm = final_state(preempted, None, "", spec(partition="gpu")).message or ""
    assert "Use a partition that is not preempted" in of_slurm


def test_records_that_could_not_be_had_are_not_passed_over() -> None:
    message = final_state(job(JobState.FAILED), None, "", spec()).message or ""
    assert "What it used is not known: the scheduler's records could not be had." in message


def test_an_out_of_memory_of_slurm_is_not_called_a_signal() -> None:
    """sacct writes 0:125 for it, and there is no signal of that number."""
    status = job(JobState.OUT_OF_MEMORY, exit_code=0, signal=125, nodes="c1")
    assert "signal" not in (final_state(status, None, "", spec()).message or "")


def test_the_message_ends_with_the_jobs_last_words() -> None:
    message = final_state(job(JobState.FAILED), None, "first\nlast", None).message or ""
    assert message.endswith("Last lines of its output:\nfirst\nlast")


def test_the_exit_code_of_a_job_that_slurm_ended_is_not_told() -> None:
    for state, code in ((JobState.TIMEOUT, 0), (JobState.NODE_FAIL, 1), (JobState.PREEMPTED, 0)):
        message = final_state(job(state, exit_code=code), None, "", spec()).message or ""
        assert message.startswith(f"Job 42 ended as {state}.")


def test_a_job_that_printed_nothing_says_so() -> None:
    message = final_state(job(JobState.FAILED), None, "", None).message or ""
    assert message.endswith("It printed nothing.")


def test_a_message_has_no_empty_lines() -> None:
    for state in CAUSES:
        for record in (None, ExitRecord(), ExitRecord(message="why")):
            assert "\n\n" not in (final_state(job(state), record, "", spec()).message or "")


def test_the_jobs_own_exit_code_goes_before_the_schedulers() -> None:
    """Of a shell that died of signal 15, sacct before 26.05 says 15."""
    status = job(JobState.FAILED, exit_code=15, nodes="c1")
    message = final_state(status, ExitRecord(exit_code=143, node="elsewhere"), "", None).message
    assert (message or "").startswith("Job 42 ended as FAILED on c1 with exit code 143.\n")


# a job that nobody knows any more, but that left a record


@pytest.mark.parametrize(
    ("record", "name", "first"),
    [
        (
            ExitRecord(exit_code=3, node="c1"),
            "JobFailed",
            "Job 42 ended on c1 with exit code 3.",
        ),
        (
            ExitRecord(exit_code=137, signal=9, node="c1"),
            "JobFailed",
            "Job 42 died of signal 9 (SIGKILL) on c1 (gone from the queue).",
        ),
        (
            ExitRecord(exit_code=127, cause="PythonNotFound", message="no Python"),
            "PythonNotFound",
            "Job 42 ended with exit code 127.",
        ),
    ],
)
def test_a_job_with_a_record_of_its_end_is_not_lost(
    record: ExitRecord, name: str, first: str
) -> None:
    final = final_state(LOST, record, "", spec())
    message = final.message or ""
    assert (final.name, message.splitlines()[0]) == (name, first)
    assert "submit again" not in message


# two jobs of one submission


@pytest.mark.parametrize(
    ("theirs", "ours", "other"),
    [
        ("42", "42", False),
        ("", "42", False),
        ("41", "42", True),
        ("42_3", "42_3", False),
        ("42_2", "42_3", True),
        ("44", "42_3", False),  # an element's own number
    ],
)
def test_a_record_is_told_by_its_jobs_id(theirs: str, ours: str, other: bool) -> None:
    status = JobStatus(JobId(ours), "hbabc", JobState.FAILED, "FAILED")
    assert is_other_jobs(ExitRecord(job_id=theirs), status) is other
    assert not is_other_jobs(None, status)


def test_the_end_of_another_job_is_not_this_ones() -> None:
    record = ExitRecord(job_id="41", exit_code=3, cause="SetupFailed", message="why")
    final = final_state(job(JobState.NODE_FAIL), record, "", None)
    assert final.name == "NodeFail"
    assert "why" not in (final.message or "")
    lost = final_state(LOST, record, "", None)
    assert (lost.name, "left no exit record" in (lost.message or "")) == ("Lost", True)
