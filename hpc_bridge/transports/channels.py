"""How many commands go over one connection at a time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_bridge.transports.deadline import Deadline

MOST = 4
"""sshd's MaxSessions is 10 by default, and refuses from 6-8 short commands at a time on, because it
frees a place late."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0


class NoTimeLeft(Exception):
    """The deadline passed while waiting for a turn."""


class Channels:
    """Places for commands; fewer after each refusal, down to one."""

    def __init__(self, most: int = MOST) -> None:
        self.limit = most
        self.refusals = 0
        self._taken = 0
        self._free = threading.Condition()

    @contextmanager
    def place(self, deadline: Deadline) -> Iterator[None]:
        """Wait for a place and hold it. Raises NoTimeLeft."""
        with self._free:
            while self._taken >= self.limit:
                if not self._free.wait(deadline.remaining()) and deadline.passed:
                    raise NoTimeLeft
            self._taken += 1
        try:
            yield
        finally:
            with self._free:
                self._taken -= 1
                self._free.notify()

    def refused(self, attempt: int, deadline: Deadline) -> None:
        """The server has no channel for this command: ask for fewer, and wait. Raises NoTimeLeft.

        ``attempt`` counts the refusals of one command; those of a server with a single session,
        which frees it late, are over soon.
        """
        with self._free:
            self.refusals += 1
            self.limit = max(1, self.limit // 2)
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 10))
        pause *= random.uniform(0.5, 1.5)  # noqa: S311 - several threads should not ask at once
        if pause >= deadline.remaining():
            raise NoTimeLeft
        time.sleep(pause)
