"""How a job ended, as a state of its flow run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Crashed

from hpc_bridge.jobs import JobSpec, JobState, JobStatus, units
from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.records import ExitRecord

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
    state = (await client.read_flow_run(flow_run_id)).state
    if state is not None and is_settled(state, status):
        return state
    final = final_state(status, run.exit_record(), run.output_tail(), spec, state)
    await client.set_flow_run_state(flow_run_id, final, force=True)
    return (await client.read_flow_run(flow_run_id)).state


def is_settled(state: State[Any], status: JobStatus) -> bool:
    """Whether the flow run's state stands although its job is over."""
    if state.is_final():
        # A flow that ended by itself is not renamed after what became of its job.
        return not (is_unexplained(state) and status.state in {*_NAMES, JobState.CANCELLED})
    # Paused and suspended runs, and those that wait for their retry, end their job and go on later.
    return state.is_paused() or state.is_scheduled()


def is_unexplained(state: State[Any]) -> bool:
    """Whether a signal ended the flow and only the scheduler knows why it came."""
    if not state.is_crashed():
        return False
    message = state.message or ""
    return state.name in _UNEXPLAINED_NAMES or any(
        words in message for words in _UNEXPLAINED_MESSAGES
    )


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
        by = f" by {status.cancelled_by}" if status.cancelled_by else ""
        return Cancelled(message=f"Job {status.job_id} was cancelled at the scheduler{by}.")
    name = (record.cause if record else "") or _NAMES.get(status.state, "JobFailed")
    lines = [
        f"Job {status.job_id} {_ending(status, record)}{_asked(status.state, spec)}.",
        record.message if record else "",
        _ADVICE.get(status.state, ""),
        f"Last lines of its output:\n{output}" if output else "It printed nothing.",
    ]
    return Crashed(name=name, message="\n".join(line for line in lines if line))


def _ending(status: JobStatus, record: ExitRecord | None) -> str:
    where = f" on {status.nodes}" if status.nodes else ""
    # The job's own record first: sacct before 26.05 takes 128 from higher codes (143 is "15:0").
    code = record.exit_code if record is not None else status.exit_code
    signal = record.signal if record is not None and record.signal else status.signal
    if status.state is JobState.LOST:
        return f"is {status.reason}, and left no exit record" if not record else "left the queue"
    if signal and status.state is not JobState.OUT_OF_MEMORY:  # where Slurm says signal 125
        return f"died of signal {signal}{where} ({status.scheduler_state})"
    if status.state is JobState.COMPLETED:
        return f"ended{where} without a final state of its flow run"
    return f"ended as {status.scheduler_state}{where}" + (
        f" with exit code {code}" if code is not None else ""
    )


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
