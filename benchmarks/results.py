"""Results: through Prefect's result store into the block, against the bare bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from prefect import flow
from prefect.results import ResultStore

from benchmarks.rows import Row, Run, milliseconds
from hpc_bridge.storage.blocks import ClusterStorage

TITLE = "results: write and read back on the shared directory"
MIB = 2**20


@flow
def nothing() -> None:
    """Has the default serializer."""


def measure(run: Run) -> list[Row]:
    """The same random bytes both ways, in turn."""
    folder = run.shared / "results" / "benchmark"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage = ClusterStorage(site="benchmark", basepath=str(folder))
    store = ResultStore().update_for_flow(nothing.with_options(result_storage=storage))
    rows = []
    for size in (1, 10) if run.quick else (1, 10, 100):
        content = os.urandom(size * MIB)
        kept, plain = [], []
        for number in range(3 if size == 100 else 5):
            plain.append(_seconds(lambda: _through_file(folder / f"plain-{number}", content)))
            kept.append(_seconds(lambda: _through_store(store, f"stored-{number}", content)))
        for path in folder.iterdir():
            path.unlink()
        rows.append(
            Row(
                f"{size} MiB of bytes",
                milliseconds(kept),
                f"{milliseconds(plain)} plain file",
                median(kept) / median(plain),
            )
        )
    return rows


def _through_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if path.read_bytes() != content:
        raise ValueError(f"{path} does not hold what was written")


def _through_store(store: ResultStore, key: str, content: bytes) -> None:
    store.write(obj=content, key=key)
    store.cache.clear()
    record: Any = store.read(key)
    if record.result != content:
        raise ValueError(f"{key} does not hold what was written")


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
