"""Shows somebody who waits how far a large transfer is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.logging import get_logger

from hpc_bridge.transports.base import Progress

logger = get_logger("hpc_bridge")

_LINE_SECONDS = 10.0
_MIB = 2**20
# Two bars would overwrite each other.
_bar_is_taken = threading.Lock()


@contextmanager
def shown(what: str) -> Iterator[Progress]:
    """A callback for a transfer: a bar on a terminal, a line in the log every 10 s elsewhere.

    Transports do not call it for what is small, and nothing is shown then.
    """
    with ExitStack() as stack:
        show: Progress | None = None

        def on_progress(done: int, total: int | None) -> None:
            nonlocal show
            if show is None:
                if sys.stderr.isatty() and _bar_is_taken.acquire(blocking=False):
                    stack.callback(_bar_is_taken.release)
                    show = stack.enter_context(_bar(what))
                else:
                    show = Lines(what)
            show(done, total)

        yield on_progress


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield show


class Lines:
    """A transfer as lines in the log; ``clock`` is monotonic."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._began: float | None = None
        self._told = 0.0
        self._from = self._last = 0

    def __call__(self, done: int, total: int | None) -> None:
        """Say it, unless it was said a moment ago."""
        now = self._clock()
        if self._began is None or done < self._last:  # it begins, or begins again
            self._began, self._from, self._told = now, done, now
        self._last = done
        if now - self._told < _LINE_SECONDS:
            return
        self._told = now
        of = "" if total is None else f" of {total / _MIB:.0f}"
        rate = (done - self._from) / _MIB / (now - self._began)
        logger.info("%s: %.0f%s MiB, %.1f MiB/s", self._what, done / _MIB, of, rate)
