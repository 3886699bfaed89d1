"""How a job ended, as a state of its flow run."""

from __future__ import annotations

import asyncio
import pwd
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Crashed

from hpc_bridge.jobs import JobSpec, JobState, JobStatus, units
from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.records import WARNED, ExitRecord

# Set by the supervisor, which cannot know why a signal came.
_UNEXPLAINED_NAMES = frozenset({"Killed", "Terminated"})
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

_ADVICE = {
    JobState.TIMEOUT: "Ask for a longer walltime.",
    JobState.OUT_OF_MEMORY: "Ask for more memory.",
    JobState.NODE_FAIL: "Submit again; ask the site if it happens often.",
    JobState.PREEMPTED: "Use a partition that is not preempted, or allow requeue.",
    JobState.BOOT_FAIL: "Submit again; ask the site if it happens often.",
    JobState.DEADLINE: "Give a later deadline.",
    JobState.LOST: "Look at the job's output; submit again if it did not run.",
}


async def settle(
    client: PrefectClient,
    flow_run_id: UUID,
    status: JobStatus,
    run: RunDirectory,
    spec: JobSpec | None = None,
) -> State[Any] | None:
    """Give the flow run of a job that is over its final state, unless it has its own.

    Returns the state that the flow run is in afterwards.
    """
    flow_run = await client.read_flow_run(flow_run_id)
    if is_settled(flow_run, status):
        return flow_run.state
    record = await asyncio.to_thread(run.exit_record)
    output = await asyncio.to_thread(run.output_tail)
    final = final_state(status, record, output, spec, flow_run.state)
    await client.set_flow_run_state(flow_run_id, final, force=True)
    return (await client.read_flow_run(flow_run_id)).state


def is_settled(flow_run: FlowRun, status: JobStatus) -> bool:
    """Whether the flow run's state stands although its job is over."""
    state = flow_run.state
    if state is None:
        return False
    if state.is_final():
        # A flow that ended by itself is not renamed after what became of its job.
        return not (is_unexplained(state) and status.state in {*_NAMES, JobState.CANCELLED})
    return goes_on_later(flow_run)


def goes_on_later(flow_run: FlowRun) -> bool:
    """Whether the run has ended its job on purpose and will get another.

    A suspended run and one that a worker is to retry do; one that pauses or waits for its retry
    inside its own process does not.
    """
    state = flow_run.state
    if state is None:
        return False
    if state.is_paused():
        return bool(state.state_details.pause_reschedule)
    return state.is_scheduled() and flow_run.empirical_policy.retry_type != "in_process"


def is_unexplained(state: State[Any]) -> bool:
    """Whether a signal ended the flow and only the scheduler knows why it came."""
    if not state.is_crashed():
        return False
    message = state.message or ""
    if state.name == "WalltimeExceeded":
        return message == WARNED  # a job that was warned may also be requeued
    if state.name == "Crashed":
        return any(words in message for words in _UNEXPLAINED_MESSAGES)
    return state.name in _UNEXPLAINED_NAMES


def final_state(
    status: JobStatus,
    record: ExitRecord | None,
    output: str,
    spec: JobSpec | None,
    before: State[Any] | None = None,
) -> State[Any]:
    """The state that the two records call for."""
    if before is not None and before.is_cancelling():
        return Cancelled(message=f"Job {status.job_id} was cancelled.")
    if status.state is JobState.CANCELLED:
        by = f" by {_account(status.cancelled_by)}" if status.cancelled_by else ""
        return Cancelled(message=f"Job {status.job_id} was cancelled at the scheduler{by}.")
    # A job that left a record of its end is not lost, whatever the scheduler has forgotten.
    known = _NAMES.get(status.state, "JobFailed")
    name = (record.cause or known.replace("Lost", "JobFailed")) if record else known
    lines = [
        f"Job {status.job_id} {_ending(status, record)}{_asked(status.state, spec)}.",
        record.message if record else "",
        "" if record and status.state is JobState.LOST else _ADVICE.get(status.state, ""),
        f"Last lines of its output:\n{output}" if output else "It printed nothing.",
    ]
    return Crashed(name=name, message="\n".join(line for line in lines if line))


def _ending(status: JobStatus, record: ExitRecord | None) -> str:
    if status.state is JobState.LOST and record is None:
        return f"is {status.reason}, and left no exit record"
    node = status.nodes or (record.node if record else "")
    where = f" on {node}" if node else ""
    # The job's own record first: sacct before 26.05 takes 128 from higher codes (143 is "15:0").
    code = record.exit_code if record is not None else status.exit_code
    signal = record.signal if record is not None and record.signal else status.signal
    if signal and status.state is not JobState.OUT_OF_MEMORY:  # where Slurm says signal 125
        return f"died of signal {signal}{where} ({status.scheduler_state or 'gone from the queue'})"
    if status.state is JobState.COMPLETED:
        return f"ended{where} without a final state of its flow run"
    ended = f"ended as {status.scheduler_state}" if status.scheduler_state else "ended"
    return f"{ended}{where}" + (f" with exit code {code}" if code is not None else "")


def _account(user: str) -> str:
    """The login name of a user id, where this machine knows it."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (ValueError, KeyError):
        return user


def _asked(state: JobState, spec: JobSpec | None) -> str:
    if spec is None:
        return ""
    if state is JobState.TIMEOUT and spec.walltime:
        return f"; its walltime was {units.format_walltime(spec.walltime)}"
    if state is JobState.OUT_OF_MEMORY:
        for size, what in ((spec.memory, "per node"), (spec.memory_per_cpu, "per CPU")):
            if size:
                return f"; it had asked for {units.format_memory(size)} {what}"
    return ""
