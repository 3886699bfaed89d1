"""How a job ended, as a state of its flow run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Crashed, to_state_create

from hpc_bridge.jobs import JobSpec, JobState, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.records import RESUBMITTING, WALLTIME_EXCEEDED, ExitRecord
from hpc_bridge.reference import JobReference
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.tracking.explanation import EXPLAINED, cancel_message, crash_message

# Set on the node, which does not know why a signal came nor what the job used.
_UNEXPLAINED_NAMES = frozenset({"Killed", "Terminated", "Exited"})
# The engine's own words for the same, in a state named Crashed (Prefect 3.8, sync and async flows).
_UNEXPLAINED_MESSAGES = ("aborted by a termination signal", "cancelled by the runtime environment")

_NAMES = {
    JobState.TIMEOUT: "WalltimeExceeded",
    JobState.OUT_OF_MEMORY: "OutOfMemory",
    JobState.NODE_FAIL: "NodeFail",
    JobState.PREEMPTED: "Preempted",
    JobState.BOOT_FAIL: "BootFail",
    JobState.DEADLINE: "DeadlineExceeded",
    JobState.LOST: "Lost",
}

_TOLD = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED"})
"""Types of the state in which the flow left its run, by itself."""

_TAKEN_AGAIN = frozenset({"Pending", "Submitting"})
_CLOCKS_DIFFER = timedelta(seconds=10)

_TRIES = 5


async def settle(
    client: PrefectClient,
    flow_run_id: UUID,
    status: JobStatus,
    run: RunDirectory,
    spec: JobSpec | None = None,
    *,
    element: int = 0,
    usage: JobUsage | None = None,
    scheduler: str = "slurm",
) -> State[Any] | None:
    """Give the flow run of a job that is over its final state, unless it has its own.

    Any number may try at once, and the flow itself too: the server takes a crash only for a run
    that has no end yet. ``usage`` is None when the scheduler's records could not be had. Returns
    the state that the flow run is in afterwards.
    """
    flow_run = await client.read_flow_run(flow_run_id)
    if _stands(flow_run):
        return flow_run.state
    record = await asyncio.to_thread(run.exit_record, element)
    output = await asyncio.to_thread(run.output_tail, element=element)
    for _ in range(_TRIES):
        flow_run = await client.read_flow_run(flow_run_id)
        if _stands(flow_run) or _has_moved_on(flow_run, run, record, status):
            break
        final = await asyncio.to_thread(
            final_state,
            *(status, record, output, spec, flow_run.state, usage, run.files, scheduler),
        )
        # Nobody but a settler like this one explains a crash, and the server cannot compare.
        explains = flow_run.state is not None and flow_run.state.is_crashed()
        await _propose(client, flow_run_id, final, status, force=explains and final.is_crashed())
    return (await client.read_flow_run(flow_run_id)).state


async def _propose(
    client: PrefectClient, flow_run_id: UUID, state: State[Any], status: JobStatus, *, force: bool
) -> None:
    """Ask the server for a state; it says no when the run has an end or this very state.

    ``set_flow_run_state`` would draw a transition id of its own, but only an id that follows from
    the end itself lets the server see that two settlers tell the same one.
    """
    proposed = to_state_create(state)
    proposed.state_details.flow_run_id = flow_run_id
    proposed.state_details.transition_id = uuid5(
        NAMESPACE_URL, f"hpc-bridge:{flow_run_id}:{status.job_id}:{state.name}"
    )
    await client.request(
        "POST",
        "/flow_runs/{id}/set_state",
        path_params={"id": flow_run_id},
        json={
            "state": proposed.model_dump(mode="json", serialize_as_any=True),
            "force": force,
        },
    )


def _stands(flow_run: FlowRun) -> bool:
    """As ``is_settled``; a run that could not be submitted again after all has ended here."""
    state = flow_run.state
    if state is not None and state.is_pending() and state.name == RESUBMITTING:
        return False
    return is_settled(flow_run)


def _has_moved_on(
    flow_run: FlowRun, run: RunDirectory, record: ExitRecord | None, status: JobStatus
) -> bool:
    """Whether the run's state is no longer this job's affair: somebody runs it again."""
    reference = JobReference.parse(flow_run.infrastructure_pid)
    if reference is not None and reference.submission_id > run.submission_id:
        return True  # ids sort by time
    state = flow_run.state
    if state is None or state.is_final() or state.is_cancelling() or state.name == "Requeued":
        return False  # a job that waits again has left the record of its attempt before
    ended = status.ended
    if state.name in _TAKEN_AGAIN and ended and state.timestamp > ended + _CLOCKS_DIFFER:
        return True
    return record is not None and record.flow_state in _TOLD


def is_other_jobs(record: ExitRecord | None, status: JobStatus) -> bool:
    """Whether the exit record was left by another job of the same submission.

    The first version wrote an element's own number there, which does not name its array.
    """
    if record is None or not record.job_id or record.job_id == status.job_id.value:
        return False
    return ("_" in record.job_id) == ("_" in status.job_id.value)


def is_settled(flow_run: FlowRun) -> bool:
    """Whether the flow run's state stands although its job is over."""
    state = flow_run.state
    if state is None:
        return False
    if state.is_final():
        # A flow that ended by itself is not renamed after what became of its job.
        return not is_unexplained(state)
    return goes_on_later(flow_run)


def goes_on_later(flow_run: FlowRun) -> bool:
    """Whether the run has ended its job on purpose and will get another.

    A suspended run and one that a worker is to retry do; one that pauses or waits for its retry
    inside its own process does not.
    """
    state = flow_run.state
    if state is None:
        return False
    if state.is_pending() and state.name == RESUBMITTING:
        return True
    if state.is_paused():
        return bool(state.state_details.pause_reschedule)
    return state.is_scheduled() and flow_run.empirical_policy.retry_type != "in_process"


def is_unexplained(state: State[Any]) -> bool:
    """Whether the node said less of the end than the scheduler's records can add."""
    if not state.is_crashed():
        return False
    message = state.message or ""
    if state.name == WALLTIME_EXCEEDED:
        return not message.startswith(EXPLAINED)
    if state.name == "Crashed":
        return any(words in message for words in _UNEXPLAINED_MESSAGES)
    return state.name in _UNEXPLAINED_NAMES


def final_state(
    status: JobStatus,
    record: ExitRecord | None,
    output: str,
    spec: JobSpec | None,
    before: State[Any] | None = None,
    usage: JobUsage | None = None,
    files: ClusterFiles = HERE,
    scheduler: str = "slurm",
) -> State[Any]:
    """The state that the two records call for; looks up account names, which may block.

    Raises CommandError when ``files`` are a cluster's that cannot be reached.
    """
    if is_other_jobs(record, status):
        record = None
    cancelling = before is not None and before.is_cancelling()
    if cancelling or status.state is JobState.CANCELLED:
        message = cancel_message(
            status, record, output, usage, from_prefect=cancelling, files=files
        )
        return Cancelled(message=message)
    # A job that left a record of its end is not lost, whatever the scheduler has forgotten.
    known = _NAMES.get(status.state, "JobFailed")
    name = (record.cause or known.replace("Lost", "JobFailed")) if record else known
    message = crash_message(status, record, output, spec, usage, scheduler)
    return Crashed(name=name, message=message)
