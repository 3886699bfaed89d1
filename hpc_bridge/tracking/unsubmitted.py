"""Submissions that never reached the scheduler, and what their flow runs are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.states import Cancelled, Crashed
from prefect.utilities.engine import propose_state

from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.tracking.adoption import Orphan


def flow_runs_of(orphan: Orphan) -> Iterator[UUID]:
    """The ids of the flow runs that a submission serves."""
    return map(UUID, orphan.submission["flow_runs"].values())


async def may_submit(client: PrefectClient, orphan: Orphan) -> bool:
    """Whether any of its flow runs still waits for a job."""
    if orphan.submission.get("job_id") is not None:
        return True
    for flow_run_id in flow_runs_of(orphan):
        with contextlib.suppress(ObjectNotFound):
            state = (await client.read_flow_run(flow_run_id)).state
            if state is not None and not state.is_final() and not state.is_cancelling():
                return True
    return False


async def give_up(client: PrefectClient, orphan: Orphan) -> None:
    """Nothing was submitted, and nothing is to be any more: the runs have ended, or shall."""
    for flow_run_id in flow_runs_of(orphan):
        with contextlib.suppress(Abort, Pause, ObjectNotFound):
            state = (await client.read_flow_run(flow_run_id)).state
            if state is not None and state.is_cancelling():
                cancelled: State[Any] = Cancelled(message="Cancelled before it was submitted.")
                await propose_state(client, cancelled, flow_run_id=flow_run_id)
    await asyncio.to_thread(orphan.run.close)


async def refuse(client: PrefectClient, orphan: Orphan, refusal: HPCBridgeError) -> None:
    """As when it is refused while its submitter lives: there is no job, and will be none."""
    for flow_run_id in flow_runs_of(orphan):
        refused: State[Any] = Crashed(name="Refused", message=str(refusal))
        with contextlib.suppress(Abort, Pause, ObjectNotFound):
            await propose_state(client, refused, flow_run_id=flow_run_id)
    await asyncio.to_thread(orphan.run.close)
