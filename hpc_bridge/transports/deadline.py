"""How long something may take: in all, or without anything happening."""

from __future__ import annotations

import time


class Deadline:
    """Counts from its making (``total``), or from the last ``touch`` (``stall``)."""

    def __init__(self, *, total: float | None = None, stall: float | None = None) -> None:
        self.seconds = total if total is not None else stall or 0.0
        self._moves = total is None
        self._ends = time.monotonic() + self.seconds

    def touch(self) -> None:
        """Something has happened."""
        if self._moves:
            self.restart()

    def restart(self) -> None:
        """What has passed so far does not count."""
        self._ends = time.monotonic() + self.seconds

    def remaining(self) -> float:
        """Seconds; 0 when it has passed."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether there is no time left."""
        return self.remaining() == 0
