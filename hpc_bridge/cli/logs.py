"""``hpc-bridge logs``: the job's output file itself, unchanged."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from hpc_bridge.cli.server_access import is_final, named_runs
from hpc_bridge.errors import ServerUnreachable
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.lookup import find_run

POLL_SECONDS = 0.5
_ASK_SECONDS = 5.0
_BLOCK = 64 * 1024


def show_output(text: str, shared: Path, *, follow: bool, lines: int | None) -> None:
    """Write the output of a run to standard output. Raises RunNotFound, ServerUnreachable."""
    run, element = find_run(text, shared, named=named_runs)
    out = sys.stdout.buffer
    try:
        position = copy(run.output(element), out, lines)
        if follow:
            follow_output(run, element, position or 0, out, over=_Over(run, element))
        elif not position:
            sys.stderr.write(
                f"hpc-bridge: the job has printed nothing yet ({run.output(element)})\n"
            )
    except BrokenPipeError:
        # Whoever read it has enough; the interpreter's own flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def copy(path: Path, out: BinaryIO, lines: int | None = None, start: int = 0) -> int | None:
    """Copy the file from ``start``, or its last lines; returns where it ended, None without one.

    A file that has become shorter is copied from its start.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(_last_lines(file, size, lines) if lines is not None else start * (start <= size))
        while block := file.read(_BLOCK):
            out.write(block)
        out.flush()
        return file.tell()
    return None


def follow_output(
    run: RunDirectory, element: int, position: int, out: BinaryIO, *, over: Callable[[], bool]
) -> None:
    """Go on copying until the run is over and nothing more comes."""
    last_look = False
    while True:
        position = copy(run.output(element), out, start=position) or position
        if last_look:
            return
        last_look = over()
        time.sleep(POLL_SECONDS)


def _last_lines(file: BinaryIO, size: int, lines: int) -> int:
    """Where the last lines begin, reading backwards."""
    start, wanted = size, lines
    while start > 0:
        length = min(_BLOCK, start)
        file.seek(start - length)
        block = file.read(length)
        # A line break at the very end belongs to the last line.
        end = len(block) - (1 if start == size and block.endswith(b"\n") else 0)
        while wanted > 0 and (end := block.rfind(b"\n", 0, end)) >= 0:
            wanted -= 1
            if wanted == 0:
                return start - length + end + 1
        if lines == 0:
            return size
        start -= length
    return 0


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
        if self._run.settled(self._element) is not None:
            return True
        now = time.monotonic()
        if now - self._asked >= _ASK_SECONDS:
            try:
                if is_final(self._flow_run_id):
                    return True
                self._server_answers = True
            except ServerUnreachable:
                self._server_answers = False
            self._asked = time.monotonic()
        return not self._server_answers and self._run.exit_record(self._element) is not None
