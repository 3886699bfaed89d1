"""``@slurm`` and ``@pbs``: a flow whose calls are batch jobs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, overload
from uuid import UUID

import httpx
from exceptiongroup import BaseExceptionGroup
from prefect.bundles import BundleLauncher
from prefect.flows import Flow, InfrastructureBoundFlow, bind_flow_to_infrastructure
from prefect.settings import get_current_settings
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.callables import get_call_parameters
from typing_extensions import TypeVar, Unpack

from hpc_bridge.deployments import bake_decorators_into_deployments, merged
from hpc_bridge.errors import HPCBridgeError, InvalidJobSpec, ServerUnreachable, SettingsError
from hpc_bridge.futures import BatchFlowRunFuture
from hpc_bridge.jobs import units
from hpc_bridge.options import JobOptions as JobOptions
from hpc_bridge.options import PBSOptions as PBSOptions
from hpc_bridge.options import SlurmOptions as SlurmOptions
from hpc_bridge.settings import PoolType, load_settings, personal_pool
from hpc_bridge.sites.choosing import check_early, check_pool_is_of_site, wanted_schedulers
from hpc_bridge.workers.base import BatchWorker
from hpc_bridge.workers.pbs import PBSWorker
from hpc_bridge.workers.slurm import SlurmWorker

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_CANCEL_SECONDS = 10.0

P = ParamSpec("P")
R = TypeVar("R")


class BatchFlow(InfrastructureBoundFlow[P, R]):
    """A flow that is bound to a pool of batch jobs.

    A direct call submits, waits, and returns the result or raises the flow's own exception.
    ``submit`` returns a future once the job is in the queue. ``submit_to_work_pool`` leaves the job
    to a running worker. The job outlives the caller in each case.
    """

    worker_cls: type[BatchWorker]

    def __call__(  # type: ignore[override]  # of Prefect's overloads only the body differs
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Any:
        """Run as a job and wait for it.

        ``return_state=True`` returns the final state instead; ``wait_for`` names futures that must
        be over before the job is submitted. Ctrl-C cancels the job and waits for its end; a second
        one leaves at once.
        """
        if inspect.iscoroutinefunction(self.fn):
            return self._call(args, dict(kwargs))
        return self._call_and_block(args, dict(kwargs))

    async def _call(self, args: Any, kwargs: dict[str, Any]) -> Any:
        return_state = kwargs.pop("return_state", False)
        for upstream in kwargs.pop("wait_for", None) or ():
            await asyncio.to_thread(upstream.wait)
        submitting = asyncio.ensure_future(self._submit(args, kwargs))
        try:
            future = await asyncio.shield(submitting)
            return await _outcome(future, return_state)
        except asyncio.CancelledError:  # which is how Ctrl-C comes to a coroutine
            future = await submitting  # else its job would be left to nobody
            _say_cancelling(future)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(future.acancel()), _CANCEL_SECONDS)
            await asyncio.shield(future.wait_async(timeout=_CANCEL_SECONDS))
            raise

    def _call_and_block(self, args: Any, kwargs: dict[str, Any]) -> Any:
        return_state = kwargs.pop("return_state", False)
        for upstream in kwargs.pop("wait_for", None) or ():
            upstream.wait()
        submitting = _uninterrupted(self._submit(args, kwargs))
        try:
            return _run(_outcome(_result(submitting), return_state))
        except KeyboardInterrupt:
            future = _result(submitting)  # else its job would be left to nobody
            _say_cancelling(future)
            with _ignoring_interrupts():
                future.cancel()
            future.wait()
            raise

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> BatchFlowRunFuture[R]:
        """Submit and return a future as soon as the job is in the queue."""
        future: BatchFlowRunFuture[R] = _run(self._submit(args, kwargs))
        return future

    async def _submit(self, args: Any, kwargs: Any) -> BatchFlowRunFuture[Any]:
        parameters = get_call_parameters(self.fn, args, kwargs)
        future: BatchFlowRunFuture[Any] = await self._with_worker(
            lambda worker: worker.submit(self, parameters, self.job_variables)
        )
        return future

    def submit_to_work_pool(self, *args: P.args, **kwargs: P.kwargs) -> BatchFlowRunFuture[R]:
        """Make a flow run that a worker of the pool submits."""
        parameters = get_call_parameters(self.fn, args, kwargs)
        future: BatchFlowRunFuture[R] = _run(
            self._with_worker(
                lambda worker: worker.submit_to_work_pool(self, parameters, self.job_variables)
            )
        )
        return future

    async def retry(self, flow_run: FlowRun) -> Any:
        """Do a flow run again, as a new job with its first parameters, and wait for it."""
        future = await self._with_worker(
            lambda worker: worker.submit(self, job_variables=self.job_variables, flow_run=flow_run)
        )
        return await future.aresult()

    async def adeploy(  # type: ignore[override]
        self, name: str, work_pool_name: str | None = None, **options: Any
    ) -> UUID:
        """As ``deploy``."""
        pool = work_pool_name or self.work_pool
        own = self.worker_cls.job_configuration.in_our_words(options.get("job_variables") or {})
        variables = merged(self.job_variables, own)
        options["job_variables"] = variables
        # Entering the worker makes the pool, or completes it.
        await self._with_worker(lambda worker: worker.check_deployment(variables), pool)
        return await super().adeploy(name, pool, **options)

    def deploy(  # type: ignore[override]
        self, name: str, work_pool_name: str | None = None, **options: Any
    ) -> Any:
        """As Prefect's, on this flow's pool and with its decorator's job variables by default."""
        deploying = self.adeploy(name, work_pool_name, **options)
        return deploying if _in_event_loop() else _run(deploying)

    async def _with_worker(
        self, use: Callable[[BatchWorker], Awaitable[Any]], pool: str | None = None
    ) -> Any:
        url = get_current_settings().api.url
        if not url:
            raise SettingsError(
                "there is no Prefect server: set PREFECT_API_URL to the shared server, or start one"
                " with `prefect server start`"
            )
        self.worker_cls.job_configuration.check_wanted(self.job_variables)
        try:
            entered = self.worker_cls(work_pool_name=pool or self.work_pool)
            entered.asked = self.job_variables
            async with entered as worker:
                if not worker.is_ready:
                    raise ServerUnreachable(_unreachable(url))
                return await use(worker)
        except httpx.TransportError as error:
            raise ServerUnreachable(_unreachable(url)) from error
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    def with_options(self, **options: Any) -> BatchFlow[P, R]:
        """As Prefect's; ``job_variables`` add to the decorator's own and win over them.

        Another ``site`` takes the flow from the personal pool to that of the site. Raises
        InvalidJobSpec and SiteError.
        """
        changes = options.pop("job_variables", None)
        if changes is not None:
            own = self.worker_cls.job_configuration.in_our_words(changes, only_own=True)
            asked = merged(self.job_variables, own)
            options["job_variables"] = _checked(asked, self.worker_cls)
        bound = _batch_flow(super().with_options(**options))
        kind = self.worker_cls.job_configuration.pool_type
        if self.work_pool == _pool(None, self.job_variables, kind):
            bound.work_pool = _pool(None, bound.job_variables, kind)
        return bound


@overload
def slurm(flow: Flow[P, R], /) -> BatchFlow[P, R]: ...


@overload
def slurm(
    *,
    work_pool: str | None = None,
    launcher: BundleLauncher | None = None,
    include_files: Sequence[str] | None = None,
    include_files_base_dir: Path | str | None = None,
    **options: Unpack[SlurmOptions],
) -> Callable[[Flow[P, R]], BatchFlow[P, R]]: ...


def slurm(
    flow: Flow[P, R] | None = None,
    /,
    *,
    work_pool: str | None = None,
    launcher: BundleLauncher | None = None,
    include_files: Sequence[str] | None = None,
    include_files_base_dir: Path | str | None = None,
    **options: Unpack[SlurmOptions],
) -> BatchFlow[P, R] | Callable[[Flow[P, R]], BatchFlow[P, R]]:
    """Run a flow's calls as Slurm jobs.

    ``site`` names the cluster by its profile, and defaults to ``HPC_BRIDGE_SITE`` or the only one
    that is known. ``work_pool`` defaults to ``HPC_BRIDGE_WORK_POOL``, else to the site's personal
    pool ``<site>-<login name>``; it is made on first use. ``launcher``, ``include_files`` and
    ``include_files_base_dir`` are Prefect's. Raises InvalidJobSpec naming every option that is
    unknown or wrong, or that the site would not take, and SiteError.

        @slurm(partition="gpu", gpus=1, memory="16G", walltime="2h")
        @flow
        def train(dataset: str) -> float: ...
    """
    travelling = _travelling(launcher, include_files, include_files_base_dir)
    decorator: _Decorator[P, R] = _Decorator(SlurmWorker, work_pool, dict(options), travelling)
    return decorator if flow is None else decorator(flow)


@overload
def pbs(flow: Flow[P, R], /) -> BatchFlow[P, R]: ...


@overload
def pbs(
    *,
    work_pool: str | None = None,
    launcher: BundleLauncher | None = None,
    include_files: Sequence[str] | None = None,
    include_files_base_dir: Path | str | None = None,
    **options: Unpack[PBSOptions],
) -> Callable[[Flow[P, R]], BatchFlow[P, R]]: ...


def pbs(
    flow: Flow[P, R] | None = None,
    /,
    *,
    work_pool: str | None = None,
    launcher: BundleLauncher | None = None,
    include_files: Sequence[str] | None = None,
    include_files_base_dir: Path | str | None = None,
    **options: Unpack[PBSOptions],
) -> BatchFlow[P, R] | Callable[[Flow[P, R]], BatchFlow[P, R]]:
    """Run a flow's calls as jobs of OpenPBS or PBS Pro; all else is as with ``slurm``.

    The embedded scheduler takes no such job: it reads Slurm's scripts.

        @pbs(queue="gpuq", gpus=1, memory="16G", walltime="2h")
        @flow
        def train(dataset: str) -> float: ...
    """
    travelling = _travelling(launcher, include_files, include_files_base_dir)
    decorator: _Decorator[P, R] = _Decorator(PBSWorker, work_pool, dict(options), travelling)
    return decorator if flow is None else decorator(flow)


def _travelling(
    launcher: BundleLauncher | None,
    include_files: Sequence[str] | None,
    include_files_base_dir: Path | str | None,
) -> dict[str, Any]:
    """What goes to the node with a flow, for Prefect's binding."""
    if isinstance(include_files, str):
        raise InvalidJobSpec(f"include_files: give a list of patterns, [{include_files!r}]")
    return {
        "launcher": launcher,
        "include_files": include_files,
        "include_files_base_dir": include_files_base_dir,
    }


class _Decorator(Generic[P, R]):
    """Binds flows to one pool; all that can be known to be wrong is told when it is made."""

    def __init__(
        self,
        worker_cls: type[BatchWorker],
        work_pool: str | None,
        options: dict[str, Any],
        travelling: dict[str, Any],
    ) -> None:
        configuration = worker_cls.job_configuration
        self._worker_cls = worker_cls
        self._travelling = travelling
        self._variables = _checked(configuration.in_our_words(options, only_own=True), worker_cls)
        self._pool = _pool(work_pool, self._variables, configuration.pool_type)

    def __call__(self, flow: Flow[P, R]) -> BatchFlow[P, R]:
        _check_flow(flow, self._worker_cls.type)
        bound = bind_flow_to_infrastructure(
            flow,
            work_pool=self._pool,
            worker_cls=self._worker_cls,
            job_variables=self._variables,
            **self._travelling,
        )
        return _batch_flow(bound)


def _pool(work_pool: str | None, variables: dict[str, Any], kind: PoolType) -> str:
    """The named pool, else that of the site."""
    site = variables.get("site")
    if site is None:
        wanted = wanted_schedulers(variables.get("scheduler"), kind)
        return work_pool or load_settings().pool_for(wanted, kind)
    if work_pool is None:
        return personal_pool(site)
    check_pool_is_of_site(work_pool, site)
    return work_pool


def _check_flow(flow: Any, decorator: str) -> None:
    if not isinstance(flow, Flow):
        raise InvalidJobSpec(
            f"{getattr(flow, '__name__', flow)!r} is not a flow; write @{decorator} above @flow"
        )
    if flow.isgenerator:
        raise InvalidJobSpec(
            f"flow {flow.name!r} is a generator, whose values a job cannot hand over one by one;"
            " return a list"
        )


bake_decorators_into_deployments(BatchFlow)


def _batch_flow(bound: InfrastructureBoundFlow[P, R]) -> BatchFlow[P, R]:
    """Prefect's binding always makes its own class."""
    batch: BatchFlow[P, R] = BatchFlow.__new__(BatchFlow)
    batch.__dict__.update(bound.__dict__)
    return batch


def _checked(options: dict[str, Any], worker_cls: type[BatchWorker]) -> dict[str, Any]:
    """The options as job variables, checked now rather than in the queue."""
    configuration = worker_cls.job_configuration
    configuration.check_values(options)
    asks_a_server = bool(get_current_settings().api.url)
    check_early(options, configuration.pool_type, asks_a_server=asks_a_server)
    walltime = options.get("walltime")
    if isinstance(walltime, timedelta):
        return options | {"walltime": units.format_walltime(units.parse_walltime(walltime))}
    return options


def _run(call: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; an error on purpose is shown without the loop's forty lines."""
    try:
        return run_coro_as_sync(call)
    except HPCBridgeError as error:
        raise error.with_traceback(None) from None


def _uninterrupted(call: Coroutine[Any, Any, Any]) -> Future[Any]:
    """Run in a thread, where Ctrl-C does not come."""
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(run_coro_as_sync(call))
        except BaseException as error:  # noqa: BLE001  whoever waits gets it
            done.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="hpc-bridge-submit", daemon=True).start()
    return done


def _result(done: Future[Any]) -> Any:
    try:
        return done.result()
    except HPCBridgeError as error:
        raise error.with_traceback(None) from None


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _outcome(future: BatchFlowRunFuture[Any], return_state: bool) -> Any:
    if return_state:
        await future.wait_async()
        return future.state
    return await future.aresult()


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """While the cancellation is sent: one Ctrl-C often comes twice, from terminal and launcher."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say_cancelling(future: BatchFlowRunFuture[Any]) -> None:
    sys.stderr.write(
        f"hpc-bridge: cancelling job {future.job_id} and waiting for its end;"
        " Ctrl-C again leaves at once\n"
    )


def _unreachable(url: str) -> str:
    return (
        f"the Prefect server at {url} does not answer; check PREFECT_API_URL and that the server"
        " runs"
    )
