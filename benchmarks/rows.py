"""The lines of the table, and what a benchmark is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Run:
    """How a benchmark is to be run; results of all kinds go below ``shared``."""

    scheduler: Literal["slurm", "local"]
    shared: Path
    quick: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``ratio`` is measured / baseline, and ``target`` what it should be."""

    what: str
    measured: str
    baseline: str = ""
    ratio: float | None = None
    target: str = ""


def seconds(values: Sequence[float]) -> str:
    """Median and range: ``"2.31 s (2.25-2.60)"``."""
    return f"{median(values):.2f} s ({min(values):.2f}-{max(values):.2f})"


def milliseconds(values: Sequence[float]) -> str:
    """Median and range: ``"231 ms (225-260)"``."""
    middle, low, high = (1000 * value for value in (median(values), min(values), max(values)))
    return f"{middle:.0f} ms ({low:.0f}-{high:.0f})"


def table(title: str, rows: Sequence[Row]) -> str:
    """The rows as aligned text under their title."""
    cells = [("", "measured", "baseline", "ratio", "target")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3g} x"
        cells.append((row.what, row.measured, row.baseline, ratio, row.target))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([f"## {title}", *lines])


def as_dict(row: Row) -> dict[str, object]:
    """What ``Row(**...)`` takes."""
    return dataclasses.asdict(row)
