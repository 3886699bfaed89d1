"""How a job ended, as a state of its flow run."""

from __future__ import annotations

import asyncio
import os
import pwd
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import states
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State

from hpc_bridge.jobs import JobId, JobSpec, JobState, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.records import WARNED, ExitRecord, write_exit_record
from hpc_bridge.tracking.outcome import (
    final_state,
    goes_on_later,
    is_other_jobs,
    is_settled,
    is_unexplained,
    settle,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
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
ABORTED = "Execution was aborted by a termination signal."
CANCELLED = "Execution was cancelled by the runtime environment."


def job(state: JobState, **known: Any) -> JobStatus:
    return JobStatus(JobId("42"), "hbabc", state, state.value, **known)


LOST = JobStatus(
    JobId("42"),
    "hbabc",
    JobState.LOST,
    scheduler_state="",
    reason="neither in the queue nor in the scheduler's records",
)


def spec(**asked: Any) -> JobSpec:
    return JobSpec(name="hbabc", **asked)


def run_in(state: State[Any] | None, retry_type: Any = None) -> FlowRun:
    policy = FlowRunPolicy(retry_type=retry_type)
    return FlowRun(flow_id=uuid.uuid4(), state=state, empirical_policy=policy)


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


@pytest.mark.parametrize(
    "times",
    [{}, {"started": NOON, "ended": NOON}],  # the second is what 22.05 gives
)
def test_a_job_cancelled_in_the_queue_never_started(times: dict[str, Any]) -> None:
    status = job(JobState.CANCELLED, cancelled_by="0", reason="Priority", **times)
    message = final_state(status, None, "", None, usage=USED).message
    assert message == "Job 42 was cancelled at the scheduler by root before it started."


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


# whether a state stands

UNEXPLAINED = [
    states.Crashed(name="Killed"),
    states.Crashed(name="Terminated", message="The job on c1 was ended by a signal."),
    states.Crashed(message=ABORTED),
    states.Crashed(message=CANCELLED),
    states.Crashed(name="Exited", message="The flow's process on c1 ended with exit code 3."),
    states.Crashed(name="WalltimeExceeded", message=WARNED),
    states.Crashed(name="WalltimeExceeded", message="Ended 15 s before the end of the walltime."),
]


@pytest.mark.parametrize(
    "state",
    [
        states.Completed(),
        states.Failed(),
        states.Failed(name="TimedOut"),
        states.Cancelled(),
        states.Crashed(message="ValueError: x"),
        states.Crashed(name="OutOfMemory", message=ABORTED),
        states.Crashed(name="WalltimeExceeded", message="Job 42 ended as TIMEOUT."),
        states.Suspended(timeout_seconds=60),
        states.Paused(timeout_seconds=60, reschedule=True),
        states.AwaitingRetry(),
        states.Scheduled(),
    ],
)
def test_a_state_of_the_flows_own_stands(state: State[Any]) -> None:
    assert is_settled(run_in(state))


@pytest.mark.parametrize(
    "state",
    [
        None,
        states.Pending(),
        states.Pending(name="Queued"),
        states.Running(),
        states.Cancelling(),
        states.Paused(timeout_seconds=60),  # in its process, which is gone
    ],
)
def test_a_state_that_nobody_else_would_end_does_not_stand(state: State[Any] | None) -> None:
    assert not is_settled(run_in(state))


@pytest.mark.parametrize("state", UNEXPLAINED)
def test_what_the_node_said_of_an_end_is_completed_by_the_records(state: State[Any]) -> None:
    assert is_unexplained(state)
    assert not is_settled(run_in(state))


@pytest.mark.parametrize("end", [state for state in JobState if state.is_terminal])
@pytest.mark.parametrize("record", [None, ExitRecord(cause="WalltimeExceeded", message=WARNED)])
def test_an_explained_end_stands(end: JobState, record: ExitRecord | None) -> None:
    assert is_settled(run_in(final_state(job(end), record, "", None)))


@pytest.mark.parametrize("state", [states.Failed(message=ABORTED), states.Running()])
def test_only_a_crash_is_unexplained(state: State[Any]) -> None:
    assert not is_unexplained(state)


@pytest.mark.parametrize(
    ("retry_type", "later"), [(None, True), ("reschedule", True), ("in_process", False)]
)
def test_a_retry_in_the_flows_own_process_is_no_further_job(
    retry_type: str | None, later: bool
) -> None:
    flow_run = run_in(states.AwaitingRetry(), retry_type)
    assert goes_on_later(flow_run) is later
    assert is_settled(flow_run) is later


# both together, over a server that remembers one flow run


class OneFlowRun:
    """Prefect's server, as far as it is used here: the rules of its flow policy that matter.

    ``meanwhile`` are states that others set, each after one more reading. The rules are held
    against a real server in tests/embedded/test_settling.py.
    """

    def __init__(self, state: State[Any] | None, *meanwhile: State[Any]) -> None:
        self.state = state
        self.meanwhile = list(meanwhile)
        self.taken: list[tuple[str | None, bool]] = []

    async def read_flow_run(self, _: uuid.UUID) -> FlowRun:
        read = run_in(self.state)
        if self.meanwhile:
            self.state = self.meanwhile.pop(0)
        return read

    async def request(
        self, method: str, path: str, *, path_params: dict[str, Any], json: dict[str, Any]
    ) -> None:
        assert (method, path) == ("POST", "/flow_runs/{id}/set_state")
        state = State[Any].model_validate(json["state"])
        before = self.state
        if before is not None and not json["force"]:
            same = before.state_details.transition_id == state.state_details.transition_id
            after_the_end = before.is_final() and state.is_crashed()
            if same or after_the_end or (before.is_cancelling() and not state.is_cancelled()):
                return
        self.taken.append((state.name, json["force"]))
        self.state = state


def settled(
    client: OneFlowRun, status: JobStatus, run: RunDirectory, element: int = 0
) -> State[Any] | None:
    return asyncio.run(
        settle(client, uuid.uuid4(), status, run, spec(), element=element)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("state", [None, states.Pending(), states.Running()])
def test_a_run_without_an_end_gets_one(tmp_path: Path, state: State[Any] | None) -> None:
    client = OneFlowRun(state)
    final = settled(client, job(JobState.NODE_FAIL), RunDirectory(tmp_path))
    assert final is not None
    assert (final.name, client.taken) == ("NodeFail", [("NodeFail", False)])


def test_a_run_with_an_end_of_its_own_is_left_alone(tmp_path: Path) -> None:
    client = OneFlowRun(states.Completed())
    final = settled(client, job(JobState.TIMEOUT), RunDirectory(tmp_path))
    assert final is not None
    assert (final.name, client.taken) == ("Completed", [])


def test_an_end_that_comes_meanwhile_stands(tmp_path: Path) -> None:
    for meanwhile in ([states.Completed()], [states.Running(), states.Completed()]):
        client = OneFlowRun(states.Running(), *meanwhile)
        final = settled(client, job(JobState.NODE_FAIL), RunDirectory(tmp_path))
        assert final is not None
        assert (final.name, client.taken) == ("Completed", [])


def test_a_run_that_is_being_cancelled_meanwhile_ends_cancelled(tmp_path: Path) -> None:
    client = OneFlowRun(states.Running(), states.Running(), states.Cancelling())
    final = settled(client, job(JobState.NODE_FAIL), RunDirectory(tmp_path))
    assert final is not None
    assert (final.name, client.taken) == ("Cancelled", [("Cancelled", False)])


@pytest.mark.parametrize("state", UNEXPLAINED)
def test_a_crash_is_explained_once(tmp_path: Path, state: State[Any]) -> None:
    client = OneFlowRun(state)
    for _ in range(2):
        final = settled(client, job(JobState.OUT_OF_MEMORY), RunDirectory(tmp_path))
        assert final is not None
        assert (final.name, client.taken) == ("OutOfMemory", [("OutOfMemory", True)])


def test_a_crash_that_another_has_explained_meanwhile_is_left_alone(tmp_path: Path) -> None:
    client = OneFlowRun(states.Crashed(name="Killed"), states.Crashed(name="OutOfMemory"))
    settled(client, job(JobState.OUT_OF_MEMORY), RunDirectory(tmp_path))
    assert client.taken == []


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.NODE_FAIL])
def test_any_number_of_settlers_set_one_state(tmp_path: Path, state: JobState) -> None:
    client, flow_run_id = OneFlowRun(states.Running()), uuid.uuid4()

    async def all_at_once() -> None:
        run = RunDirectory(tmp_path)
        await asyncio.gather(
            *(settle(client, flow_run_id, job(state), run) for _ in range(8))  # type: ignore[arg-type]
        )

    asyncio.run(all_at_once())
    assert len(client.taken) == 1


@pytest.mark.parametrize("state", [states.Pending(name="Requeued"), states.Cancelling()])
def test_a_job_that_is_cancelled_when_it_waits_again_ends_its_run(
    tmp_path: Path, state: State[Any]
) -> None:
    (tmp_path / "0" / "0").mkdir(parents=True)
    before = ExitRecord(flow_state="CRASHED", exit_code=143)
    write_exit_record(tmp_path / "0" / "0" / "exit.json", before)
    final = settled(OneFlowRun(state), job(JobState.CANCELLED), RunDirectory(tmp_path))
    assert final is not None
    assert final.is_cancelled()


def test_a_run_that_somebody_runs_again_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "0" / "0").mkdir(parents=True)
    before = ExitRecord(flow_state="FAILED", exit_code=1)
    write_exit_record(tmp_path / "0" / "0" / "exit.json", before)
    client = OneFlowRun(states.Pending())
    settled(client, job(JobState.FAILED), RunDirectory(tmp_path))
    assert client.taken == []


def after_the_end(state: State[Any], seconds: float) -> State[Any]:
    """A state that was set so long after noon."""
    state.timestamp = NOON + timedelta(seconds=seconds)
    return state


@pytest.mark.parametrize("state", [states.Pending(), states.Submitting()])
def test_a_run_that_was_taken_again_is_not_crashed_by_its_old_job(
    tmp_path: Path, state: State[Any]
) -> None:
    """The old job left no record: its node died, or it never started."""
    client = OneFlowRun(after_the_end(state, 11))
    settled(client, job(JobState.NODE_FAIL, ended=NOON), RunDirectory(tmp_path))
    assert client.taken == []


@pytest.mark.parametrize(
    ("state", "seconds", "ended"),
    [
        (states.Pending(), -60, NOON),
        (states.Submitting(), -60, NOON),
        (states.Pending(), 9, NOON),  # two clocks differ
        (states.Pending(), 60, None),  # a job that nobody knows the end of
        (states.Pending(name="Queued"), 60, NOON),  # told by us, and late
        (states.Pending(name="Requeued"), 60, NOON),
        (states.Running(), 60, NOON),
    ],
)
def test_a_run_that_still_waits_for_a_job_that_is_over_is_crashed(
    tmp_path: Path, state: State[Any], seconds: float, ended: datetime | None
) -> None:
    client = OneFlowRun(after_the_end(state, seconds))
    settled(client, job(JobState.NODE_FAIL, ended=ended), RunDirectory(tmp_path))
    assert client.taken == [("NodeFail", False)]


def test_a_run_that_is_cancelled_after_its_job_ended_is_cancelled(tmp_path: Path) -> None:
    client = OneFlowRun(after_the_end(states.Cancelling(), 60))
    settled(client, job(JobState.NODE_FAIL, ended=NOON), RunDirectory(tmp_path))
    assert client.taken == [("Cancelled", False)]


def test_the_output_and_record_are_the_elements_own(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for element in (0, 7):
        (tmp_path / str(element) / "0").mkdir(parents=True)
        (tmp_path / str(element) / "job.out").write_text(f"of element {element}\n")
        record = ExitRecord(cause=f"Cause{element}", exit_code=1)
        write_exit_record(tmp_path / str(element) / "0" / "exit.json", record)
    final = settled(OneFlowRun(states.Running()), job(JobState.FAILED), run, element=7)
    assert final is not None
    assert final.name == "Cause7"
    assert (final.message or "").endswith("of element 7")


def test_the_exit_record_and_the_output_are_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    (tmp_path / "0" / "0").mkdir(parents=True)
    record = ExitRecord(cause="PythonNotFound", message="there is no Python", exit_code=127)
    write_exit_record(tmp_path / "0" / "0" / "exit.json", record)
    run.output().write_text("hpc-bridge: there is no Python\n")
    final = settled(OneFlowRun(states.Pending()), job(JobState.FAILED), run)
    assert final is not None
    assert final.name == "PythonNotFound"
    assert (final.message or "").splitlines() == [
        "Job 42 ended as FAILED with exit code 127.",
        "there is no Python",
        "What it used is not known: the scheduler's records could not be had.",
        "Last lines of its output:",
        "hpc-bridge: there is no Python",
    ]
