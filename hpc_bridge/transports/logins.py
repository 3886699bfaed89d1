"""How often this user logs in to a host: sites ban those who knock too fast.

The budget is shared by all processes of the user on this machine, through a locked file; the
pause after a failure is a process's own, so that whoever mends a key need not wait for it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hpc_bridge.errors import CommandError, Unreachable
from hpc_bridge.machine_files import locked, machine_folder, read_text, write_json
from hpc_bridge.transports.deadline import Deadline

logger = logging.getLogger(__name__)

PER_MINUTE, PER_HOUR = 6, 60
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
_MINUTE, _HOUR = 60.0, 3600.0
_SAID_ABOVE_SECONDS = 2.0

OnLogin = Callable[[str], None]
"""Called with the host after each login that was tried."""


class Logins:
    """Says when the next login to one host may be tried; any thread may ask."""

    def __init__(
        self,
        host: str,
        *,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._host = host
        self._file = _file_name(host)
        self._folder = folder
        self._clock = clock
        self._sleep = sleep
        self._failures = 0
        self._not_before = 0.0
        self._why: CommandError | None = None
        self._asking = threading.Lock()

    def wait_for_turn(self, deadline: Deadline) -> None:
        """Return when a login may be tried, and count it.

        When that is after the deadline, raises Unreachable with the time from which it may be, or
        the error of the last login that failed.
        """
        while (seconds := self._ask()) > 0:
            if seconds > deadline.remaining():
                raise self._not_yet(seconds)
            if seconds > _SAID_ABOVE_SECONDS:
                words = "The next login to %s waits %.0f s: %s"
                logger.warning(words, self._host, seconds, self._reason)
            self._sleep(seconds)

    @property
    def _reason(self) -> str:
        if self._why is not None:
            return f"the last one failed ({self._why})"
        return f"no more than {PER_MINUTE} a minute and {PER_HOUR} an hour, lest the site bans them"

    def failed(self, why: CommandError) -> None:
        """A login was tried and failed: the next one waits 5 s, then twice as long each time."""
        with self._asking:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 20))
            self._failures += 1
            self._not_before, self._why = self._clock() + pause, why

    def succeeded(self) -> None:
        """The host has let us in."""
        with self._asking:
            self._failures, self._not_before, self._why = 0, 0.0, None

    def _ask(self) -> float:
        """Seconds to wait; 0 when the login is granted, and counted."""
        with self._asking:
            now = self._clock()
            if now < self._not_before <= now + LONGEST_PAUSE:
                return self._not_before - now
        with locked((self._folder or machine_folder()) / self._file) as file:
            # A clock that was set back leaves times of the future.
            times = [t for t in _times(read_text(file)) if now - _HOUR < t <= now]
            waits = [
                times[-count] + span - now
                for count, span in ((PER_MINUTE, _MINUTE), (PER_HOUR, _HOUR))
                if len(times) >= count
            ]
            if waits and max(waits) > 0:
                return max(waits)
            write_json(file, {"logins": [*times, now]})
        return 0.0

    def _not_yet(self, seconds: float) -> CommandError:
        if self._why is not None:
            return type(self._why)(f"{self._why}\nThe next login is tried in {seconds:.0f} s.")
        return Unreachable(
            f"no connection to {self._host}: your processes have logged in {PER_MINUTE} times in a"
            f" minute or {PER_HOUR} times in an hour, and sites ban those who do so more often."
            f" The next login is possible in {seconds:.0f} s."
        )


def used_logins(host: str) -> tuple[int, int]:
    """How many of the budget's logins to a host are spent, in the last minute and hour."""
    now = time.time()
    with locked(machine_folder() / _file_name(host)) as file:
        times = _times(read_text(file))
    minute, hour = (sum(now - span < t <= now for t in times) for span in (_MINUTE, _HOUR))
    return minute, hour


def _file_name(host: str) -> str:
    return f"logins-{re.sub(r'[^A-Za-z0-9.-]', '_', host)}.json"


def _times(text: str) -> list[float]:
    """None when the file is new or damaged."""
    try:
        return sorted(float(t) for t in json.loads(text)["logins"])
    except (ValueError, KeyError, TypeError):
        return []
