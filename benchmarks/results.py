"""Results: through Prefect's result store into our block, against the bare bytes.

Prefect's own block beside it tells what is the price of its result format: base64 within JSON.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.results import ResultStore

from benchmarks.rows import Row, Run, milliseconds
from hpc_bridge.storage.blocks import ClusterStorage

TITLE = "results: write and read back on the shared directory"
MIB = 2**20


def measure(run: Run) -> list[Row]:
    """The same random bytes all ways, in turn."""
    folder = run.shared / "results" / "benchmark"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ours = _store(ClusterStorage(site="benchmark", basepath=str(folder)))
    prefects = _store(LocalFileSystem(basepath=str(folder)))
    rows = []
    for size in (1, 10) if run.quick else (1, 10, 100):
        content = os.urandom(size * MIB)
        plain, kept, local = [], [], []
        for _ in range(5):
            plain.append(_seconds(_through_file, folder / "plain", content))
            kept.append(_seconds(_through_store, ours, "ours", content))
            local.append(_seconds(_through_store, prefects, "prefects", content))
            for path in folder.iterdir():
                path.unlink()
        rows.append(_row(f"{size} MiB of bytes", kept, plain, "plain file, with fsync"))
        rows.append(_row("", kept, local, "Prefect's LocalFileSystem block"))
    return rows


def _store(block: WritableFileSystem) -> ResultStore:
    block.save("benchmark", overwrite=True)  # a result store takes saved blocks only
    return ResultStore(result_storage=block)


def _row(what: str, kept: list[float], other: list[float], name: str) -> Row:
    measured = milliseconds(kept) if what else ""
    return Row(what, measured, f"{milliseconds(other)} {name}", median(kept) / median(other))


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
