"""From what a person types to a run directory. Everything here blocks."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from hpc_bridge.errors import RunNotFound
from hpc_bridge.journal import RunDirectory, is_submission_id

_JOB_ID = re.compile(r"(?P<job>\d+)(?:_(?P<element>\d+))?")
_SUBMISSION = re.compile(r"(?P<submission>hb[a-z2-7]{13})(?:_(?P<element>\d+))?")


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A flow run as the server knows it."""

    flow_run_id: UUID
    started: str
    """In words, for people."""


def find_run(
    text: str, shared: Path, *, named: Callable[[str], Sequence[NamedRun]] = lambda _: ()
) -> tuple[RunDirectory, int]:
    """The run directory and element of a flow run id, submission id, job id or flow run name.

    ``hb..._4`` and ``123_4`` are elements of a job array. The newest submission counts where there
    are several: ids of jobs come again, and a flow run can have had several jobs. ``named`` asks a
    server for flow runs by name; nothing else needs one. Raises RunNotFound.
    """
    if match := _SUBMISSION.fullmatch(text):
        return _by_submission(match["submission"], match["element"], shared)
    if match := _JOB_ID.fullmatch(text):
        return _by_job_id(match["job"], match["element"], shared)
    with contextlib.suppress(ValueError):
        return _by_flow_run(UUID(text), shared)
    runs = named(text)
    if not runs:
        raise RunNotFound(f"there is no flow run, submission or job {text!r}")
    if len(runs) > 1:
        lines = "\n".join(f"  {run.flow_run_id}  {run.started}" for run in runs)
        raise RunNotFound(f"there are {len(runs)} flow runs named {text!r}; give an id:\n{lines}")
    return _by_flow_run(runs[0].flow_run_id, shared)


def submissions(shared: Path) -> Iterator[tuple[RunDirectory, dict[str, Any]]]:
    """Every run directory that can be read, newest first, with its ``submission.json``."""
    with contextlib.suppress(FileNotFoundError):
        names = [path.name for path in (shared / "runs").iterdir()]
        for name in sorted(filter(is_submission_id, names), reverse=True):
            run = RunDirectory(shared / "runs" / name)
            # Being written, being removed, or damaged.
            with contextlib.suppress(OSError, json.JSONDecodeError):
                yield run, run.read_submission()


def _by_submission(submission: str, element: str | None, shared: Path) -> tuple[RunDirectory, int]:
    run = RunDirectory(shared / "runs" / submission)
    try:
        journal = run.read_submission()
    except OSError as error:
        raise RunNotFound(f"there is no submission {submission} in {shared / 'runs'}") from error
    return run, _element(journal, element, submission)


def _by_job_id(job: str, element: str | None, shared: Path) -> tuple[RunDirectory, int]:
    for run, journal in submissions(shared):
        if journal.get("job_id") == job:
            return run, _element(journal, element, job)
    raise RunNotFound(f"no submission in {shared / 'runs'} has the job id {job}")


def _by_flow_run(flow_run_id: UUID, shared: Path) -> tuple[RunDirectory, int]:
    for run, journal in submissions(shared):
        for element, of in journal.get("flow_runs", {}).items():
            if of == str(flow_run_id):
                return run, int(element)
    raise RunNotFound(
        f"flow run {flow_run_id} has no job yet, or none with its files in {shared / 'runs'}"
    )


def _element(journal: dict[str, Any], element: str | None, what: str) -> int:
    elements = journal.get("flow_runs", {"0": ""})
    if element is None and len(elements) == 1:
        element = next(iter(elements))
    if element is None:
        some = ", ".join(f"{what}_{known}" for known in list(elements)[:3])
        raise RunNotFound(f"{what} is an array of {len(elements)} flow runs; give one: {some}, ...")
    if element not in elements:
        raise RunNotFound(f"{what} has no element {element}")
    return int(element)
