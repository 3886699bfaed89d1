"""Results: through Prefect's result store into the block, against the bare bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from prefect.results import ResultStore

from benchmarks.rows import Row, Run, milliseconds
from hpc_bridge.storage.blocks import ClusterStorage

TITLE = "results: write and read back on the shared directory"
MIB = 2**20


def measure(run: Run) -> list[Row]:
    """The same random bytes both ways, in turn."""
    folder = run.shared / "results" / "benchmark"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage = ClusterStorage(site="benchmark", basepath=str(folder))
    store = ResultStore(result_storage=storage)
    rows = []
    for size in (1, 10) if run.quick else (1, 10, 100):
        content = os.urandom(size * MIB)
        kept, plain = [], []
        for number in range(5):
            plain.append(_seconds(_through_file, folder / f"plain-{number}", content))
            kept.append(_seconds(_through_store, store, f"stored-{number}", content))
        for path in folder.iterdir():
            path.unlink()
        rows.append(
            Row(
                f"{size} MiB of bytes (median of {len(kept)})",
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


def _seconds(call: Callable[..., None], *args: Any) -> float:
    began = time.perf_counter()
    call(*args)
    return time.perf_counter() - began
