"""The flow's own process: one interpreter that imports Prefect once and runs one flow run.

``python -m hpc_bridge.node.execute [--key KEY]`` is also the pool's bundle execution step; the key
names the bundle that the worker has put into the run directory.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.records import read_exit_record
from hpc_bridge.node.reports import report

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

    from hpc_bridge.node.fence import Fence
    from hpc_bridge.node.states import Gate


class CannotRun(Exception):
    """The flow cannot be run here; ``cause`` becomes the state's name."""

    def __init__(self, cause: str, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.cause = cause
        self.exit_code = exit_code


def main() -> int:
    """Run the attempt's flow run; returns the exit code, 0 only for a flow that did not fail."""
    # Until the engine installs its own handler, and again after it: leave through the interpreter's
    # exit, which sends the last logs.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    attempt = Attempt.from_environment()
    flow_run_id = UUID(attempt.submission()["flow_runs"][str(attempt.element)])
    try:
        return _run(attempt, flow_run_id)
    except CannotRun as error:
        print(f"hpc-bridge: {error}", file=sys.stderr, flush=True)
        report(cause=error.cause, message=str(error))
        return error.exit_code


def _run(attempt: Attempt, flow_run_id: UUID) -> int:
    bundle = attempt.bundle()
    if bundle is not None:
        _check_versions(bundle["hpc_bridge"])
    import prefect.flow_engine  # the one import of Prefect: nearly all of the start-up time

    from hpc_bridge.node import cancellation, console
    from hpc_bridge.node.fence import Fence
    from hpc_bridge.node.states import Gate

    console.mark_run_logs()
    fence = Fence(attempt, flow_run_id)
    flow_run = _claim_flow_run(attempt, fence)
    if flow_run is None:
        return 0
    sys.path.insert(0, str(Path.cwd()))
    if bundle is None:
        flow, context, parameters = _from_deployment(flow_run), None, None
    else:
        _extract_files(attempt.archive())
        flow, context, parameters = unpack(bundle)

    gate = Gate(fence)
    gate.install()
    fence.watch()
    cancellation.deliver_sigterm_once(gate.terminated)
    cancellation.start(flow_run_id, on_cancelling=lambda: report(cancelling=True))
    arguments = {"flow_run": flow_run, "parameters": parameters, "context": context}
    return _run_flow(prefect.flow_engine.run_flow, flow, gate, arguments)


def _check_versions(packed: dict[str, str]) -> None:
    from importlib.metadata import PackageNotFoundError, version

    # Of Prefect this package uses what is internal to one minor version.
    for package, parts in (("prefect", 2), ("cloudpickle", 1)):
        theirs = packed[package]
        try:
            ours = version(package)
        except PackageNotFoundError:
            raise CannotRun(
                "VersionMismatch",
                f"{package} is not installed in {sys.executable} on this node; set 'python' to an"
                f" environment with {package} {theirs}",
                78,
            ) from None
        if ours.split(".")[:parts] != theirs.split(".")[:parts]:
            same = ".".join(theirs.split(".")[:parts])
            raise CannotRun(
                "VersionMismatch",
                f"the flow was packed with {package} {theirs} but {sys.executable} on this node has"
                f" {package} {ours}; install {package} {same}.x on both sides",
                78,
            )


def _claim_flow_run(attempt: Attempt, fence: Fence) -> FlowRun | None:
    """The flow run, ready to run; None when it has been cancelled, is over or is another's."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import get_current_settings
    from prefect.states import Cancelled, Pending

    from hpc_bridge.node.fence import REPLACED, say_replaced

    flow_run_id = fence.flow_run_id
    try:
        with get_client(sync_client=True) as client:
            flow_run = client.read_flow_run(flow_run_id)
            fence.count_from(flow_run)
            reason = fence.replaced(flow_run, fence.holds_claim())
            if reason is not None:
                say_replaced(reason)
                report(flow_state=REPLACED)
                return None
            state = flow_run.state
            if state is None:
                return flow_run
            if state.is_cancelling():
                message = "Cancelled before the flow started."
                client.set_flow_run_state(flow_run_id, Cancelled(message=message), force=True)
                report(flow_state="CANCELLED")
                return None
            restarted = attempt.number > 0
            if state.is_cancelled() or (
                state.is_final() and not (restarted and state.is_crashed())
            ):
                print(
                    f"hpc-bridge: the flow run is {state.name} already; not running it", flush=True
                )
                report(flow_state=state.type.value)
                return None
            if restarted and not state.is_pending():
                requeued: State[Any] = Pending(name="Requeued", message=_why_requeued(attempt))
                client.set_flow_run_state(flow_run_id, requeued, force=True)
                flow_run = client.read_flow_run(flow_run_id)
            return flow_run
    except ObjectNotFound:
        raise CannotRun("FlowRunGone", f"flow run {flow_run_id} has been deleted") from None
    except httpx.TransportError as error:
        url = get_current_settings().api.url
        raise CannotRun(
            "ServerUnreachable",
            f"the Prefect server at {url} cannot be reached from {os.uname().nodename}"
            f" ({error}); set HPC_BRIDGE_API_URL or the job variable api_url to an address that"
            " compute nodes reach",
            69,
        ) from error
    except httpx.HTTPStatusError as error:
        raise CannotRun(
            "ServerRefused", f"the Prefect server refused the job's request: {error}", 77
        ) from error


def _why_requeued(attempt: Attempt) -> str:
    """A sentence; no scheduler tells the job itself why it was requeued."""
    from hpc_bridge.node.fence import REPLACED

    try:
        before = read_exit_record(attempt.before.exit_record)
    except (OSError, ValueError):
        before = None
    if before is None:
        why = "the attempt before left no record, as when its node fails"
    elif before.flow_state == REPLACED:
        why = f"the attempt before lived on alone on {before.node} and has ended itself"
    elif before.terminated:
        why = f"the scheduler had ended the attempt before on {before.node}"
    else:
        why = f"the attempt before on {before.node} ended with exit code {before.exit_code}"
    return f"Attempt {attempt.number + 1}: the job was requeued; {why}."


def _from_deployment(flow_run: FlowRun) -> Flow[..., Any]:
    from prefect.flow_engine import load_flow

    try:
        return load_flow(flow_run)
    except Exception as error:
        import traceback

        traceback.print_exc()
        raise CannotRun(
            "FlowNotLoaded",
            f"the deployment's flow cannot be loaded: {type(error).__name__}: {error}",
        ) from error


def _extract_files(archive: Path) -> None:
    if not archive.exists():
        return
    from prefect.bundles._zip_extractor import ZipExtractor

    ZipExtractor(archive).extract()


def unpack(bundle: dict[str, Any]) -> tuple[Flow[..., Any], dict[str, Any], dict[str, Any]]:
    """(flow, context, parameters) of a bundle. Runs code from the bundle."""
    from prefect.bundles import _deserialize_bundle_object, extract_flow_from_bundle

    try:
        context = _deserialize_bundle_object(bundle["context"])
        flow = extract_flow_from_bundle(bundle)  # type: ignore[arg-type]
    except Exception as error:
        raise CannotRun(
            "BundleUnreadable",
            f"the flow cannot be unpacked with {sys.executable}: {type(error).__name__}: {error};"
            " install what the flow imports on the node, or put it into include_files",
        ) from error
    return flow, context, context.pop("hpc_bridge")["parameters"]


def _run_flow(run_flow: Any, flow: Flow[..., Any], gate: Gate, arguments: dict[str, Any]) -> int:
    from prefect.engine import _drive_run_flow_result
    from prefect.exceptions import Abort, Pause, TerminationSignal

    flow_run = arguments["flow_run"]
    try:
        if flow.isgenerator:
            _drive_run_flow_result(flow, run_flow(flow, **arguments))
        else:
            state = run_flow(flow, return_type="state", **arguments)
            if asyncio.iscoroutine(state):
                state = asyncio.run(state)
            return _ended(state)
    except Pause as error:
        print(f"hpc-bridge: the run is paused: {error}", flush=True)
        report(flow_state="PAUSED")  # also when it has been resumed by now, and is another job's
        return 0
    except Abort as error:
        print(f"hpc-bridge: the run was stopped by the server: {error}", flush=True)
        state = _server_state(flow_run)
        # Whatever it is, another process has set it, and it is not for this one to change.
        report(flow_state=state.type.value if state else "UNKNOWN")
        return 0 if state is not None and state.is_paused() else 1
    except TerminationSignal as error:
        if not gate.goes_on(flow_run):
            _ended(_server_state(flow_run))
        return 128 + error.signal
    except SystemExit:
        _ended(_server_state(flow_run))
        raise
    except BaseException:  # noqa: BLE001  the engine has said its part; the exit code is ours
        import traceback

        traceback.print_exc()
        _ended(_server_state(flow_run))
        return 1
    return _ended(_server_state(flow_run))


def _server_state(flow_run: FlowRun) -> State[Any] | None:
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run.id).state
    except httpx.HTTPError:
        return None


def _ended(state: State[Any] | None) -> int:
    """Report a state that needs nobody else to set it; returns the exit code that goes with it."""
    if state is None or state.is_running() or state.is_pending() or state.is_cancelling():
        return 1
    report(flow_state=state.type.value)
    return 1 if state.is_failed() or state.is_crashed() else 0


if __name__ == "__main__":
    sys.exit(main())
