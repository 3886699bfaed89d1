"""``hpc-bridge logs``: the job's output file itself, unchanged."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from hpc_bridge.cli.here import Here
from hpc_bridge.cli.server_access import is_final, named_runs
from hpc_bridge.errors import CommandError, ServerUnreachable
from hpc_bridge.journal import SETTLED, RunDirectory
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles, Part
from hpc_bridge.tracking.lookup import find_run

POLL_SECONDS = 0.5
POLL_ELSEWHERE_SECONDS = 2.0
"""Over a connection, where it is a command on the login host."""
_ASK_SECONDS = 5.0
_PIECE = 1024 * 1024
_LAST_PIECES = (64 * 1024, 256 * 1024, _PIECE)
"""Read backwards for the last lines: most often one is enough."""


def show_output(text: str, here: Here, *, follow: bool, lines: int | None) -> None:
    """Write the output of a run to standard output.

    Raises RunNotFound, ServerUnreachable, and the CommandErrors of a connection.
    """
    run, element = find_run(text, here.shared, here.files, named=named_runs)
    out = sys.stdout.buffer
    try:
        path = _output(run, element)
        position = None if path is None else copy(path, out, lines, files=here.files)
        if follow:
            follow_output(run, element, position or 0, out, over=_Over(run, element))
        elif not position:
            where = path or run.outputs(element)[1]
            sys.stderr.write(f"hpc-bridge: the job has printed nothing yet ({where})\n")
    except BrokenPipeError:
        # Whoever read it has enough; the interpreter's own flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def copy(
    path: Path,
    out: BinaryIO,
    lines: int | None = None,
    start: int = 0,
    *,
    files: ClusterFiles = HERE,
) -> int | None:
    """Copy the file from ``start``, or its last lines; returns where it ended, None without one.

    A file that has become shorter is copied from its start.
    """
    if lines is not None:
        entry = files.entry(path)
        if entry is None:
            return None
        start = _last_lines(path, entry.size, lines, files)
    position = start
    while True:
        # With the byte before: without any, the file has become shorter than it was.
        before = min(position, 1)
        (piece,) = files.parts([Part(path, position - before, _PIECE + before)])
        if piece is None:
            return None
        if len(piece) < before:
            position = 0
            continue
        out.write(piece[before:])
        position += len(piece) - before
        if len(piece) < _PIECE + before:
            out.flush()
            return position


def follow_output(
    run: RunDirectory, element: int, position: int, out: BinaryIO, *, over: Callable[[], bool]
) -> None:
    """Go on copying until the run is over and nothing more comes.

    A connection that breaks is waited for.
    """
    pause = POLL_SECONDS if run.files.is_here else POLL_ELSEWHERE_SECONDS
    last_look = has_told = False
    path: Path | None = None
    while True:
        try:
            path = path or _output(run, element)
            if path is not None:
                position = copy(path, out, start=position, files=run.files) or position
            if last_look:
                return
            last_look = over()
        except CommandError as error:
            if not error.retryable:
                raise
            if not has_told:
                sys.stderr.write(f"hpc-bridge: {error}\n")
            has_told = True
        time.sleep(pause)


def _output(run: RunDirectory, element: int) -> Path | None:
    """Where the job prints; None while it has printed nothing."""
    paths = run.outputs(element)
    listings = run.files.listings([path.parent for path in paths])
    found = zip(paths, listings, strict=True)
    return next((path for path, listing in found if path.name in (listing or ())), None)


def _last_lines(path: Path, size: int, lines: int, files: ClusterFiles) -> int:
    """Where the last lines begin, reading backwards."""
    start, wanted = size, lines
    pieces = iter(_LAST_PIECES)
    while start > 0 and lines > 0:
        length = min(next(pieces, _PIECE), start)
        (block,) = files.parts([Part(path, start - length, length)])
        block = block or b""
        # A line break at the very end belongs to the last line.
        end = len(block) - (1 if start == size and block.endswith(b"\n") else 0)
        while (end := block.rfind(b"\n", 0, end)) >= 0:
            wanted -= 1
            if wanted == 0:
                return start - length + end + 1
        start -= length
    return start


class _Over:
    """Whether a run has ended: its end is told, or the server says so.

    Without a server its own exit record must do, although a requeued job goes on after one.
    """

    def __init__(self, run: RunDirectory, element: int) -> None:
        self._run, self._element = run, element
        self._flow_run_id = UUID(run.read_submission()["flow_runs"][str(element)])
        self._asked = -_ASK_SECONDS
        self._server_answers = True

    def __call__(self) -> bool:
        # Elsewhere it is one more command on the login host, for what the server knows as well.
        looks = self._run.files.is_here
        if looks and self._run.settled(self._element) is not None:
            return True
        if time.monotonic() - self._asked >= _ASK_SECONDS:
            try:
                if is_final(self._flow_run_id):
                    return True
                self._server_answers = True
            except ServerUnreachable:
                self._server_answers, looks = False, True
            self._asked = time.monotonic()
        return looks and not self._server_answers and self._has_ended()

    def _has_ended(self) -> bool:
        (listing,) = self._run.files.listings([self._run.element(self._element)], depth=2)
        is_over = self._run.traces_in(self._element, listing).is_over
        return is_over or SETTLED in (listing or ())
