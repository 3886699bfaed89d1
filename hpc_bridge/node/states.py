"""Every state that the engine proposes in the flow's process passes here first.

A replaced attempt proposes none, and a crash that the warning before the walltime brought about is
named after it, or becomes the wait for the next submission. Whoever looks after the job may know
that it is over, and say why, while the flow's process still dies of it: the engine would force its
own words on that, so a crash is first proposed without force, which the server does not take for a
run that has an end. These are internals of Prefect 3.8.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import prefect.flow_engine
import prefect.flow_runs
from prefect._internal import control_listener
from prefect.client.orchestration import get_client
from prefect.exceptions import Abort, TerminationSignal
from prefect.states import Pending
from prefect.utilities import engine

from hpc_bridge.node.fence import Fence, leave
from hpc_bridge.node.records import RESUBMITTING, WALLTIME_EXCEEDED
from hpc_bridge.node.reports import report
from hpc_bridge.node.walltime import Notice

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient, SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State


class Gate:
    """Stands between the engine and the server for one flow run and its subflows."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self._ended_by_another = False

    def install(self) -> None:
        """Take the place of the engine's own calls."""
        modules: tuple[Any, ...] = (prefect.flow_engine, prefect.flow_runs)
        for module in modules:
            module.propose_state_sync = self._propose_sync
            module.propose_state = self._propose

    def terminated(self) -> None:
        """Called by the handler of SIGTERM: notes whether it means the walltime."""
        notice = Notice.read()
        if notice is None or (notice.caught and not notice.is_at_end(time.time())):
            self._ended_by_another = True
        elif notice.resubmit and control_listener._intent is None:
            # Without its lock, which the interrupted code may hold. The engine then sets no state.
            control_listener._intent = "reschedule"

    def goes_on(self, flow_run: FlowRun) -> bool:
        """Leave the flow run waiting for its next submission, if its walltime calls for that."""
        notice = self._walltime()
        if notice is None or not notice.resubmit:
            return False
        with get_client(sync_client=True) as client:
            now = client.read_flow_run(flow_run.id)
            self._leave_if_replaced(now, self._fence.holds_claim())
            if now.state is not None and (now.state.is_final() or now.state.is_cancelling()):
                return False
            client.set_flow_run_state(flow_run.id, resubmitting(notice.message), force=True)
        report(
            flow_state="PENDING",
            cause=WALLTIME_EXCEEDED,
            message=notice.message,
            resubmit=True,
            told=True,
        )
        return True

    def _propose_sync(
        self,
        client: SyncPrefectClient,
        state: State[Any],
        flow_run_id: UUID,
        force: bool = False,
    ) -> State[Any]:
        own = flow_run_id == self._fence.flow_run_id
        now = client.read_flow_run(flow_run_id) if own else None
        self._leave_if_replaced(now, self._fence.holds_claim())
        if own:
            self._rename(state)
        if own and state.is_crashed():
            try:
                told: State[Any] | None = engine.propose_state_sync(
                    client, state, flow_run_id=flow_run_id
                )
            except Abort:
                told = client.read_flow_run(flow_run_id).state
            if told is not None and told.is_final():
                return self._noted(told)
        set_ = engine.propose_state_sync(client, state, flow_run_id=flow_run_id, force=force)
        return self._noted(set_) if own else set_

    async def _propose(
        self, client: PrefectClient, state: State[Any], flow_run_id: UUID, force: bool = False
    ) -> State[Any]:
        own = flow_run_id == self._fence.flow_run_id
        now = await client.read_flow_run(flow_run_id) if own else None
        self._leave_if_replaced(now, await asyncio.to_thread(self._fence.holds_claim))
        if own:
            self._rename(state)
        if own and state.is_crashed():
            try:
                told: State[Any] | None = await engine.propose_state(
                    client, state, flow_run_id=flow_run_id
                )
            except Abort:
                told = (await client.read_flow_run(flow_run_id)).state
            if told is not None and told.is_final():
                return self._noted(told)
        set_ = await engine.propose_state(client, state, flow_run_id=flow_run_id, force=force)
        return self._noted(set_) if own else set_

    def _leave_if_replaced(self, flow_run: FlowRun | None, holds_claim: bool | None) -> None:
        reason = self._fence.replaced(flow_run, holds_claim)
        if reason is not None:
            leave(reason)

    def _walltime(self) -> Notice | None:
        """The warning, unless something else has ended the flow since."""
        return None if self._ended_by_another else Notice.read()

    def _rename(self, state: State[Any]) -> None:
        notice = self._walltime() if state.is_crashed() else None
        if notice is None:
            return
        if notice.resubmit:  # the flow caught the warning and has left by itself
            control_listener._set_intent("reschedule")
            raise TerminationSignal(signal=signal.SIGTERM)
        state.name, state.message = WALLTIME_EXCEEDED, notice.message

    def _noted(self, state: State[Any]) -> State[Any]:
        if state.is_running():
            self._fence.count_start()
        elif state.is_crashed() and state.name == WALLTIME_EXCEEDED:
            report(flow_state="CRASHED", cause=WALLTIME_EXCEEDED, message=state.message, told=True)
        return state


def resubmitting(message: str) -> State[Any]:
    """The flow run waits for its next submission."""
    return Pending(name=RESUBMITTING, message=message)
