"""The drill's table: one line for each flow run, then what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from drill.judge import Evidence, Verdict

_HEAD = (
    "flow run",
    "kind",
    "hit by",
    "submissions",
    "starts",
    "job",
    "expected",
    "state",
    "effects",
    "verdict",
)


def table(results: Sequence[tuple[Evidence, Verdict]]) -> str:
    """Aligned text."""
    cells = [_HEAD, *(_line(run, verdict) for run, verdict in results)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _line(run: Evidence, verdict: Verdict) -> tuple[str, ...]:
    hits = ", ".join(f"{what} {n}x" if n > 1 else what for what, n in Counter(run.faults).items())
    good = "right, cut" if verdict.cut else "right"
    return (
        run.flow_run[:8],
        run.kind,
        hits,
        str(len({row.submission for row in run.rows})),
        str(len(run.of("start"))),
        run.rows[-1].state if run.rows else "unrecorded" if run.submitted else "none",
        " or ".join(sorted(verdict.expected)) or "nothing",
        run.state_name,
        str(len(run.of("effect"))),
        "; ".join(verdict.problems) or good,
    )


def summary(results: Sequence[tuple[Evidence, Verdict]], faults: Mapping[str, int]) -> str:
    """The counts."""
    states = Counter(run.state_name for run, _ in results)
    effects = sum(bool(run.of("effect")) for run, _ in results)
    wrong = [verdict for _, verdict in results if verdict.problems]
    unrecorded = sum(run.submitted and not run.rows for run, _ in results)
    words = " ".join(problem for verdict in wrong for problem in verdict.problems)
    lines = [
        f"faults: {_counted(faults)}",
        f"flow runs: {len(results)}: {_counted(states)}",
        f"jobs started {sum(len(run.rows) for run, _ in results)} times,"
        f" flows {sum(len(run.of('start')) for run, _ in results)} times",
        f"jobs that the accounting has lost: {unrecorded}",
        f"effects: {effects} flow runs have theirs, {sum(v.cut for _, v in results)} cut from their"
        " report by an end from outside",
        f"wrong: {len(wrong)}, lost: {words.count('lost:')}, doubled: {words.count('doubled:')}",
    ]
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
