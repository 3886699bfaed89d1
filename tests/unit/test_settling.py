"""Which state of a flow run stands, and the one that is set where none does."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import states
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State

from hpc_bridge.jobs import JobState, JobStatus
from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.records import WARNED, ExitRecord, write_exit_record
from hpc_bridge.tracking.outcome import (
    final_state,
    goes_on_later,
    is_settled,
    is_unexplained,
    settle,
)
from tests.unit.ended_jobs import NOON, job, spec

ABORTED = "Execution was aborted by a termination signal."
CANCELLED = "Execution was cancelled by the runtime environment."


def run_in(state: State[Any] | None, retry_type: Any = None) -> FlowRun:
    policy = FlowRunPolicy(retry_type=retry_type)
    return FlowRun(flow_id=uuid.uuid4(), state=state, empirical_policy=policy)


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
