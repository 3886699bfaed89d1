"""Says on the server how an attempt ended whose own process no longer could.

``python -m hpc_bridge.node.report`` in the environment of the attempt; its exit record comes on
standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runner._hook_runner import HookRunner
from prefect.states import Cancelled, Crashed

from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.attempt import FLOW_RUN_ID, Attempt
from hpc_bridge.node.execute import unpack
from hpc_bridge.node.fence import Fence, say_replaced
from hpc_bridge.node.records import ExitRecord
from hpc_bridge.node.states import resubmitting
from hpc_bridge.tracking.outcome import goes_on_later


async def main() -> int:
    """Set the state that the exit record calls for, then run the flow's hooks for it."""
    # Slurm signals every process of a job that it ends, and this one has its end to tell.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    attempt = Attempt.from_environment()
    record = ExitRecord(**json.loads(sys.stdin.read()))
    flow_run_id = UUID(os.environ[FLOW_RUN_ID])
    fence = Fence(attempt, flow_run_id)
    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
        reason = fence.replaced(flow_run, await asyncio.to_thread(fence.holds_claim))
        if reason is not None:
            say_replaced(reason)
            return 0
        before = flow_run.state
        if before is not None and before.is_final() and before.name != "Crashed":
            return 0
        if goes_on_later(flow_run):
            return 0
        hooks_ran = before is not None and before.is_crashed()
        hooks = HookRunner(resolve_flow=lambda _: _flow(attempt, flow_run))
        if before is not None and before.is_cancelling():
            await hooks.run_cancellation_hooks(flow_run, before)
            state: State[Any] = Cancelled(message="Cancelled; the flow's process had to be killed.")
            await client.set_flow_run_state(flow_run_id, state, force=True)
            return 0
        if record.resubmit:
            await client.set_flow_run_state(flow_run_id, resubmitting(record.message), force=True)
            return 0
        if hooks_ran and not record.cause:
            return 0
        name = record.cause or _name(record)
        output = _output(attempt)
        crashed: State[Any] = Crashed(name=name, message=message(record, output))
        # Not over an end that whoever looks after the job has told since.
        await client.set_flow_run_state(flow_run_id, crashed, force=hooks_ran)
        if not hooks_ran:
            await hooks.run_crashed_hooks(flow_run, crashed)
    return 0


def _output(attempt: Attempt) -> str:
    try:
        return RunDirectory(attempt.run_dir).output_tail(element=attempt.element)
    except OSError:
        return ""


def _name(record: ExitRecord) -> str:
    if record.terminated:
        return "Terminated"
    return "Killed" if record.signal else "Exited"


def message(record: ExitRecord, output: str) -> str:
    """A sentence about the end of the flow's process, and the last lines that it printed."""
    if record.message:
        return record.message
    if record.terminated:
        end = f"The job on {record.node} was ended by a signal from the scheduler."
    elif record.signal:
        end = f"The flow's process on {record.node} died of signal {record.signal}."
    else:
        end = f"The flow's process on {record.node} ended with exit code {record.exit_code}."
    return f"{end}\nLast lines of its output:\n{output}" if output else end


async def _flow(attempt: Attempt, flow_run: FlowRun) -> Flow[..., object]:
    bundle = attempt.bundle()
    if bundle is not None:
        return unpack(bundle)[0]
    from prefect.flows import load_flow_from_flow_run

    return await load_flow_from_flow_run(flow_run, use_placeholder_flow=False)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
