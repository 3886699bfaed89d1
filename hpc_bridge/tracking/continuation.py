"""A flow run that goes on in a new submission after its walltime."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, Pause
from prefect.states import Crashed, Pending
from prefect.utilities.engine import propose_state

from hpc_bridge.errors import CommandError, TemplateError, is_worth_waiting_for
from hpc_bridge.jobs import JobState, JobStatus
from hpc_bridge.journal import SUBMISSION, new_submission_id
from hpc_bridge.node.records import RESUBMITTING, WALLTIME_EXCEEDED
from hpc_bridge.tracking.explanation import EXPLAINED
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.outcome import is_unexplained
from hpc_bridge.tracking.resubmission import submit_again
from hpc_bridge.tracking.waiting import queued

logger = logging.getLogger(__name__)

_NOTE = "continued.json"


async def continuation(
    client: PrefectClient, job: TrackedJob, status: JobStatus
) -> TrackedJob | None:
    """The job in which the flow run goes on; None when it does not.

    The new submission's id is noted before it is made, so that whoever repeats this after a crash
    makes no second one.
    """
    spec = job.spec
    if spec is None or spec.on_walltime != "resubmit":
        return None
    state = (await client.read_flow_run(job.flow_run_id)).state
    if not await asyncio.to_thread(_ran_out_of_time, job, status, state):
        return None
    submission_id = await asyncio.to_thread(_noted, job)
    earlier = (await asyncio.to_thread(job.run.read_submission)).get("resubmissions", 0)
    message = f"Resubmission {earlier + 1} of at most {spec.max_resubmissions} after the walltime."
    if submission_id is None:
        if earlier >= spec.max_resubmissions or state is None or not _goes_on(state):
            return None
        submission_id = new_submission_id()
        await asyncio.to_thread(_write_note, job, submission_id)
    # Before it is submitted: the new job looks at the state as soon as it runs.
    if not await asyncio.to_thread(_is_begun, job, submission_id) and not await _set(
        client, job, Pending(name=RESUBMITTING, message=message)
    ):
        return None
    try:
        following = await asyncio.to_thread(
            submit_again, job, submission_id, resubmissions=earlier + 1
        )
    except (CommandError, TemplateError) as error:
        if is_worth_waiting_for(error):
            raise
        words = (
            f"{EXPLAINED}{job.job_id} had too little walltime. {message} It was refused: {error}"
        )
        await _set(client, job, Crashed(name=WALLTIME_EXCEEDED, message=words))
        return None
    in_queue = queued(following, message)
    in_queue.state_details.deployment_concurrency_lease_id = (
        state.state_details.deployment_concurrency_lease_id if state is not None else None
    )
    with contextlib.suppress(Abort, Pause):  # a run that has moved on keeps its own state
        await propose_state(client, in_queue, flow_run_id=job.flow_run_id)
    await client.update_flow_run(job.flow_run_id, infrastructure_pid=str(following.reference))
    await asyncio.to_thread(job.run.settle, job.element, continued=submission_id)
    logger.info("%s is now job %s", job.flow_run_id, following.job_id)
    return following


def _ran_out_of_time(job: TrackedJob, status: JobStatus, state: State[Any] | None) -> bool:
    """By the scheduler, by the job's record, or, when its node has died since, by its state."""
    record = job.run.exit_record(job.element)
    if status.state is JobState.TIMEOUT or (
        record is not None and record.cause == WALLTIME_EXCEEDED
    ):
        return True
    says_so = state is not None and state.is_pending() and state.name == RESUBMITTING
    return says_so and status.state is not JobState.CANCELLED


def _goes_on(state: State[Any]) -> bool:
    """Whether nothing but the walltime has decided about the run."""
    if state.is_pending():
        return state.name == RESUBMITTING
    return state.is_running() or is_unexplained(state) or state.name == WALLTIME_EXCEEDED


async def _set(client: PrefectClient, job: TrackedJob, state: State[Any]) -> bool:
    """Give the flow run a state; False when something else has decided about it meanwhile."""
    now = (await client.read_flow_run(job.flow_run_id)).state
    if now is None or not _goes_on(now):
        return False
    if now.is_pending() and state.is_pending():
        return True  # the node has said so, with more words
    state.state_details.deployment_concurrency_lease_id = (
        now.state_details.deployment_concurrency_lease_id
    )
    await client.set_flow_run_state(job.flow_run_id, state, force=True)
    return True


def _is_begun(job: TrackedJob, submission_id: str) -> bool:
    """Whether there may be a job of the new submission."""
    return job.run.beside(submission_id).read(SUBMISSION) is not None


def _noted(job: TrackedJob) -> str | None:
    content = job.run.read(f"{job.element}/{_NOTE}")
    return None if content is None else str(json.loads(content)["submission"])


def _write_note(job: TrackedJob, submission_id: str) -> None:
    content = json.dumps({"format": 1, "submission": submission_id}).encode()
    job.run.write(f"{job.element}/{_NOTE}", content)
