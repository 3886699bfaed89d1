"""Collects what the server, the scheduler, the run directories and the flows have written down."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drill.judge import Attempt, Evidence, JobRow, Line
from drill.server import Server

SACCT = (
    *("sacct", "--noheader", "--parsable2", "--duplicates", "--allocations"),
    "--format=JobID,JobName,State,Submit,Start",
)
_ELEMENTS = re.compile(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]")


@dataclass(slots=True)
class Element:
    """One flow run of a submission, as its run directory has it."""

    submission: str
    number: int
    job: str | None
    attempts: list[Attempt] = field(default_factory=list)


def read_rows(text: str) -> list[tuple[str, JobRow]]:
    """(start, row) for each line that ``SACCT`` printed; array elements one by one."""
    rows = []
    for line in text.splitlines():
        job, name, state, submit, start = line.split("|")
        when = submit if start in ("Unknown", "None", "") else start
        rows += [(when, JobRow(name, one, state.split()[0])) for one in _expanded(job)]
    return sorted(rows, key=lambda item: item[0])


def _expanded(job: str) -> Iterable[str]:
    match = _ELEMENTS.fullmatch(job)
    if match is None:
        return [job]
    found = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        found += [f"{match[1]}_{n}" for n in range(int(first), int(last or first) + 1)]
    return found


def read_elements(shared: Path) -> dict[str, list[Element]]:
    """By flow run, what was submitted for it, oldest first; ids of submissions sort by time."""
    found: dict[str, list[Element]] = defaultdict(list)
    for folder in sorted((shared / "runs").glob("hb*")):
        try:
            journal = json.loads((folder / "submission.json").read_bytes())
        except FileNotFoundError:
            continue  # killed before anything was submitted
        flow_runs, job = journal["flow_runs"], journal.get("job_id")
        for number, flow_run in flow_runs.items():
            own = job if job is None or len(flow_runs) == 1 else f"{job}_{number}"
            element = Element(folder.name, int(number), own)
            element.attempts = _attempts(folder, number)
            found[flow_run].append(element)
    return found


def _attempts(folder: Path, element: str) -> list[Attempt]:
    attempts = []
    for path in (folder / element).glob("[0-9]*"):
        try:
            record = json.loads((path / "exit.json").read_bytes())
        except FileNotFoundError:
            attempts.append(Attempt(folder.name, int(path.name), None))
            continue
        attempts.append(
            Attempt(
                folder.name,
                int(path.name),
                record.get("flow_state", ""),
                record.get("cause", ""),
            )
        )
    return sorted(attempts, key=lambda attempt: attempt.number)


def read_lines(path: Path) -> dict[str, list[Line]]:
    """By flow run, what the flow left, in order."""
    found: dict[str, list[Line]] = defaultdict(list)
    for text in path.read_text().splitlines() if path.exists() else ():
        line = json.loads(text)
        found[line["flow_run"]].append(
            Line(line["what"], line["submission"], line["job"], line["attempt"], line.get("step"))
        )
    return found


def gather(
    kinds: Mapping[str, str],
    faults: Mapping[str, list[str]],
    *,
    server: Server,
    sacct: str,
    shared: Path,
    effects: Path,
) -> list[Evidence]:
    """The evidence of each flow run of ``kinds``, by id."""
    rows, elements, lines = read_rows(sacct), read_elements(shared), read_lines(effects)
    states = server.states(list(kinds))
    evidence = []
    for flow_run, kind in kinds.items():
        own = elements.get(flow_run, [])
        state: Mapping[str, Any] = states.get(flow_run) or {"type": "", "name": "deleted"}
        evidence.append(
            Evidence(
                flow_run,
                kind,
                state["type"],
                state["name"],
                server.history(flow_run),
                tuple(faults.get(flow_run, ())),
                [row for element in own for _, row in rows if _is_of(row, element)],
                [attempt for element in own for attempt in element.attempts],
                lines.get(flow_run, []),
                submitted=any(element.job is not None for element in own),
            )
        )
    return evidence


def _is_of(row: JobRow, element: Element) -> bool:
    if row.submission != element.submission:
        return False
    index = row.job.partition("_")[2]
    return int(index) == element.number if index else True


def strays(sacct: str, shared: Path) -> list[str]:
    """Jobs of unknown names, and submissions that have two jobs or whose end is not told."""
    submissions = {element.submission for own in read_elements(shared).values() for element in own}
    jobs: dict[str, set[str]] = defaultdict(set)
    for _, row in read_rows(sacct):
        jobs[row.submission].add(row.job.partition("_")[0])
    problems = [
        f"job {min(jobs[name])} ({name}) has no run directory" for name in jobs.keys() - submissions
    ]
    problems += [
        f"doubled: {name} was submitted as jobs {', '.join(sorted(found))}"
        for name, found in jobs.items()
        if len(found) > 1
    ]
    problems += [f"{path.name} is still marked as live" for path in (shared / "live").glob("hb*")]
    return sorted(problems)
