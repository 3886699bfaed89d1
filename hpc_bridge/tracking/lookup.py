"""From what a person types to a run directory. Everything here blocks."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from hpc_bridge.errors import RunNotFound
from hpc_bridge.journal import SUBMISSION, RunDirectory, is_submission_id
from hpc_bridge.storage.asking import each
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles, Part

_AT_ONCE = 100
"""Journals that are read by one remote command."""

_JOB_ID = re.compile(
    r"(?P<job>\d+)(?:_(?P<element>\d+)|\[(?P<index>\d*)\])?(?P<server>\.[\w.-]+)?", re.ASCII
)
"""Slurm's ``123_4``; PBS's ``123.server``, ``123[4].server``, and without the server."""
_SUBMISSION = re.compile(r"(?P<submission>hb[a-z2-7]{13})(?:_(?P<element>\d+))?")


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A flow run as the server knows it."""

    flow_run_id: UUID
    started: str
    """In words, for people."""


def find_run(
    text: str,
    shared: Path,
    files: ClusterFiles = HERE,
    *,
    named: Callable[[str], Sequence[NamedRun]] = lambda _: (),
) -> tuple[RunDirectory, int]:
    """The run directory and element of a flow run id, submission id, job id or flow run name.

    ``hb..._4``, ``123_4`` and PBS's ``123[4]`` are elements of a job array. The newest submission
    counts where there are several: ids of jobs come again, and a flow run can have had several
    jobs. ``named`` asks a server for flow runs by name; nothing else needs one. Raises RunNotFound,
    and the CommandErrors of a connection.
    """
    if match := _SUBMISSION.fullmatch(text):
        return _by_submission(match["submission"], match["element"], shared, files)
    if match := _JOB_ID.fullmatch(text):
        return _by_job_id(match, shared, files)
    with contextlib.suppress(ValueError):
        return _by_flow_run(UUID(text), shared, files)
    runs = named(text)
    if not runs:
        raise RunNotFound(f"there is no flow run, submission or job {text!r}")
    if len(runs) > 1:
        lines = "\n".join(f"  {run.flow_run_id}  {run.started}" for run in runs)
        raise RunNotFound(f"there are {len(runs)} flow runs named {text!r}; give an id:\n{lines}")
    return _by_flow_run(runs[0].flow_run_id, shared, files)


def submissions(
    shared: Path, files: ClusterFiles = HERE
) -> Iterator[tuple[RunDirectory, dict[str, Any]]]:
    """Every run directory that can be read, newest first, with its ``submission.json``."""
    names = sorted(filter(is_submission_id, files.listings([shared / "runs"])[0] or ()))
    runs = [RunDirectory(shared / "runs" / name, files) for name in reversed(names)]
    return journals(runs, at_once=1 if files.is_here else _AT_ONCE)


def journals(
    runs: Sequence[RunDirectory], *, at_once: int = _AT_ONCE
) -> Iterator[tuple[RunDirectory, dict[str, Any]]]:
    """Those that can be read, with their ``submission.json``; all of one cluster."""
    for run, content in read_journals(runs, at_once=at_once):
        if content is None or isinstance(content, OSError):
            continue
        with contextlib.suppress(ValueError):  # being written, being removed, or damaged
            yield run, run.parse_submission(content)


def read_journals(
    runs: Sequence[RunDirectory], *, at_once: int = _AT_ONCE
) -> Iterator[tuple[RunDirectory, bytes | OSError | None]]:
    """Each with its ``submission.json``, None without one, or why it cannot be read.

    All of one cluster, which is asked for ``at_once`` of them together.
    """
    for start in range(0, len(runs), at_once):
        some = runs[start : start + at_once]
        wanted = [Part(run.path / SUBMISSION) for run in some]
        yield from zip(some, each(some[0].files.parts, wanted), strict=True)


def _by_submission(
    submission: str, element: str | None, shared: Path, files: ClusterFiles
) -> tuple[RunDirectory, int]:
    run = RunDirectory(shared / "runs" / submission, files)
    try:
        journal = run.read_submission()
    except OSError as error:
        raise RunNotFound(f"there is no submission {submission} in {shared / 'runs'}") from error
    return run, _element(journal, element, submission)


def _by_job_id(named: re.Match[str], shared: Path, files: ClusterFiles) -> tuple[RunDirectory, int]:
    job, server = named["job"], named["server"] or ""
    for run, journal in submissions(shared, files):
        noted = _JOB_ID.fullmatch(str(journal.get("job_id")))
        if noted and noted["job"] == job and (noted["server"] or "").startswith(server):
            return run, _element(journal, named["element"] or named["index"] or None, job)
    raise RunNotFound(f"no submission in {shared / 'runs'} has the job id {job}{server}")


def _by_flow_run(flow_run_id: UUID, shared: Path, files: ClusterFiles) -> tuple[RunDirectory, int]:
    for run, journal in submissions(shared, files):
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
