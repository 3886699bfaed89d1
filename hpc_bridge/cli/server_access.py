"""Questions to the Prefect server, for commands that also work without one.

Prefect is imported when it is needed, because that takes longer than all else that they do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from hpc_bridge.errors import ServerUnreachable
from hpc_bridge.tracking.lookup import NamedRun

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient, SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

Answer = TypeVar("Answer")

TIMEOUT_SECONDS = 10.0
_PAGE = 200


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """A client that gives up soon. Raises ServerUnreachable, also for errors within the block."""
    from prefect.client.orchestration import get_client

    with (
        _impatient(TIMEOUT_SECONDS) as settings,
        get_client(httpx_settings=settings, sync_client=True) as client,
    ):
        yield client


def ask(
    question: Callable[[PrefectClient], Coroutine[Any, Any, Answer]],
    *,
    timeout: float = TIMEOUT_SECONDS,
) -> Answer:
    """What the server answers to a coroutine function. Raises ServerUnreachable."""
    import asyncio

    from prefect.client.orchestration import get_client

    async def asked() -> Answer:
        async with asyncio.timeout(timeout), get_client(httpx_settings=settings) as client:
            return await question(client)

    with _impatient(timeout) as settings:
        return asyncio.run(asked())


@contextmanager
def _impatient(timeout: float) -> Iterator[dict[str, Any]]:
    import httpx
    from prefect.settings import (
        PREFECT_CLIENT_MAX_RETRIES,
        get_current_settings,
        temporary_settings,
    )

    url = get_current_settings().api.url
    if not url:  # Prefect would start a server of its own
        raise ServerUnreachable("no Prefect server is set; set PREFECT_API_URL")
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            yield {"timeout": timeout}
    except (httpx.HTTPError, TimeoutError) as error:
        words = str(error) or type(error).__name__
        raise ServerUnreachable(f"the Prefect server at {url} does not answer: {words}") from error


def named_runs(name: str) -> list[NamedRun]:
    """The newest flow runs of that name. Raises ServerUnreachable."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    of_that_name = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
    with server() as client:
        runs = client.read_flow_runs(
            flow_run_filter=of_that_name, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=20
        )
    return [NamedRun(run.id, _started(run)) for run in runs]


def flow_runs(ids: Collection[UUID]) -> dict[UUID, FlowRun]:
    """Those that the server has. Raises ServerUnreachable."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    found: dict[UUID, FlowRun] = {}
    wanted = list(ids)
    for start in range(0, len(wanted), _PAGE):
        page = FlowRunFilter(id=FlowRunFilterId(any_=wanted[start : start + _PAGE]))
        with server() as client:
            runs = client.read_flow_runs(flow_run_filter=page, limit=_PAGE)
            found |= {run.id: run for run in runs}
    return found


def is_final(flow_run_id: UUID) -> bool:
    """Whether the flow run has ended, or has been deleted. Raises ServerUnreachable."""
    run = flow_runs([flow_run_id]).get(flow_run_id)
    return run is None or (run.state is not None and run.state.is_final())


def _started(run: FlowRun) -> str:
    state = run.state.name if run.state else "no state"
    if run.start_time is None:
        return f"{state}, not started"
    return f"{state}, started {run.start_time.astimezone():%Y-%m-%d %H:%M:%S}"
