"""What Prefect's runner does for a flow's process, inside that process: cancellation.

A thread listens for the run's Cancelling state and starts the engine's own cancellation, so that
the flow's ``on_cancellation`` hooks run and its tasks end. These are internals of Prefect 3.8 (its
runner does the same from outside, over a socket); the version is capped for their sake.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from uuid import UUID

from prefect._internal import control_listener
from prefect.exceptions import TerminationSignal
from prefect.logging import get_logger
from prefect.utilities import engine

logger = get_logger("hpc_bridge.cancellation")

_ARM_INTERVAL = 0.2
_POLL_SECONDS = 10.0


def deliver_sigterm_once(on_first: Callable[[], None]) -> None:
    """Let only the first SIGTERM reach the engine, after ``on_first``.

    Slurm signals every process of a job, and the supervisor hands the same signal on: the second
    would interrupt the crash handling that the first began.
    """
    seen = threading.Event()

    def handler(number: int, _frame: object) -> None:
        if not seen.is_set():
            seen.set()
            on_first()
            raise TerminationSignal(signal=number)

    engine._prefect_sigterm_handler = handler  # type: ignore[assignment]


def start(flow_run_id: UUID, on_cancelling: Callable[[], None]) -> None:
    """Listen in a daemon thread, once the flow runs."""
    threading.Thread(
        target=_listen, args=(flow_run_id, on_cancelling), name="hpc-bridge-cancel", daemon=True
    ).start()


def _listen(flow_run_id: UUID, on_cancelling: Callable[[], None]) -> None:
    # The engine's start-up has the processor to itself; nothing can be cancelled before.
    pause = threading.Event()
    while not _engine_is_armed():
        pause.wait(_ARM_INTERVAL)
    while True:
        try:
            asyncio.run(_wait_for_cancelling(flow_run_id))
        except Exception:
            logger.warning("Listening for cancellation failed; trying again", exc_info=True)
            pause.wait(_POLL_SECONDS)
        else:
            break
    on_cancelling()
    while not _cancel():
        pause.wait(_ARM_INTERVAL)


def _engine_is_armed() -> bool:
    return signal.getsignal(signal.SIGTERM) is engine._prefect_sigterm_handler


async def _wait_for_cancelling(flow_run_id: UUID) -> None:
    from prefect._internal.observers import FlowRunCancellingObserver
    from prefect.client.orchestration import get_client

    noticed = asyncio.Event()
    observer = FlowRunCancellingObserver(
        on_cancelling=lambda _: noticed.set(), polling_interval=_POLL_SECONDS
    )
    observer.add_in_flight_flow_run_id(flow_run_id)
    async with observer, get_client() as client:
        # It may have been set before anybody listened.
        state = (await client.read_flow_run(flow_run_id)).state
        if state is None or not state.is_cancelling():
            await noticed.wait()


def _cancel() -> bool:
    """Commit the intent, as the runner's control channel does, then send the signal."""
    committed = engine.commit_control_intent_and_ack(
        commit_intent=lambda: control_listener._set_intent("cancel"),
        clear_intent=control_listener.clear_intent,
        send_ack=lambda: None,
    )
    if committed:
        os.kill(os.getpid(), signal.SIGTERM)
    return committed
