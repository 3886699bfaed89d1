"""A tiny flow that goes all the way: decorator, pool, job, node, state, result."""

from __future__ import annotations

import contextvars
import platform
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
from prefect import flow, tags
from prefect.client.orchestration import get_client

from hpc_bridge.decorators import pbs, slurm
from hpc_bridge.doctor.findings import Verdict, green, red, yellow
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.sites.words import in_their_words

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from hpc_bridge.decorators import BatchFlow
    from hpc_bridge.futures import BatchFlowRunFuture

TAG = "hpc-bridge-doctor"
_LOOK_SECONDS = 0.5
_RUN_SECONDS = 150.0


@flow(name="hpc-bridge-doctor", log_prints=True)
def examined() -> dict[str, str]:
    """Says where it ran."""
    print("hpc-bridge doctor was here")  # noqa: T201  and so tries the log
    return {"node": socket.gethostname(), "python": platform.python_version()}


def try_flow(subject: Subject, wait: float) -> Verdict:
    """Run the flow as any user would, waiting ``wait`` seconds for its start.

    The flow run stays on the server, tagged ``hpc-bridge-doctor``; its files are removed as any
    run's are. A run that has not ended by then, or on Ctrl-C, is cancelled.
    """
    # In whose words a person would write the options.
    asked: Any = in_their_words(subject.job_variables, subject.scheduler_name)
    decorated = pbs if subject.pool_type == "pbs" else slurm
    bound = decorated(work_pool=subject.work_pool, **asked)(examined)
    began = time.monotonic()
    future = _submitted(bound)
    submitted = time.monotonic()
    over = False
    try:
        with get_client(sync_client=True) as client:
            started = _follow(client, future, began, wait)
            state = client.read_flow_run(future.flow_run_id).state
            over = state is not None and state.is_final()
            name = client.read_flow_run(future.flow_run_id).name
        return _judge(future, state, name, (began, submitted, started), subject.queue_option)
    finally:
        if not over:
            with suppress(httpx.HTTPError):
                future.cancel()
                future.wait(timeout=20)


def _submitted(bound: BatchFlow[[], Any]) -> BatchFlowRunFuture[Any]:
    """In a thread, where Ctrl-C does not come: else it could leave a job to nobody."""

    def submit() -> BatchFlowRunFuture[Any]:
        with tags(TAG):
            return bound.submit()

    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(contextvars.copy_context().run, submit)
        try:
            return submitting.result()
        except KeyboardInterrupt:
            submitting.result().cancel()
            raise


def _follow(
    client: SyncPrefectClient, future: BatchFlowRunFuture[Any], began: float, wait: float
) -> float | None:
    """Until it is over or too late; returns when the flow was first seen to run."""
    started = None
    while True:
        state = client.read_flow_run(future.flow_run_id).state
        now = time.monotonic()
        if state is not None:
            if started is None and (state.is_running() or state.is_completed()):
                started = now
            if state.is_final():
                return started
        if now > (began + wait if started is None else started + _RUN_SECONDS):
            return started
        time.sleep(_LOOK_SECONDS)


def _judge(
    future: BatchFlowRunFuture[Any],
    state: Any,
    name: str,
    times: tuple[float, float, float | None],
    option: str,
) -> Verdict:
    began, submitted, started = times
    job = f"flow run {name!r}, job {future.job_id}"
    look = f"read its output: hpc-bridge logs {name}"
    if state is None or not state.is_final():
        word = f"{state.name}: {state.message or ''}" if state else "without a state"
        return yellow(
            f"{job} was still {word} after {time.monotonic() - began:.0f} s, and was cancelled",
            f"wait longer with --wait 600, or choose another {option}" if not started else look,
        )
    if not state.is_completed():
        return red(f"{job} ended {state.name}: {state.message}", look)
    try:
        result = future.result(timeout=30)
    except Exception as error:  # noqa: BLE001  storage of the user's own may raise anything
        return red(f"{job} is completed, but its result cannot be read: {error}", look)
    ended = time.monotonic()
    return green(
        f"{job} on {result['node']}: submitted after {submitted - began:.1f} s, started after"
        f" {(started or ended) - began:.1f} s, result after {ended - began:.1f} s"
    )
