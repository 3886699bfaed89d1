"""The Prefect server of the test run, asked through one client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from prefect.client.orchestration import SyncPrefectClient, get_client


@contextmanager
def server_client() -> Iterator[SyncPrefectClient]:
    """For any thread. A new client costs 35 ms of CPU, which a condition would spend every time."""
    yield _shared()


@cache
def _shared() -> SyncPrefectClient:
    return get_client(sync_client=True).__enter__()
