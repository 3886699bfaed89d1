"""What is wrong for a while is said once, and then now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

AGAIN_SECONDS = 600.0


class Complaint:
    """For something that is tried again and again, and says each time why it fails.

    The words may differ a little each time, by a number of seconds for instance.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kind: type[BaseException] | None = None
        self._said = 0.0

    def level(self, error: BaseException, loud: int = logging.WARNING) -> int:
        """``loud`` when it is to be said, else DEBUG."""
        now = self._clock()
        if type(error) is self._kind and now - self._said < AGAIN_SECONDS:
            return logging.DEBUG
        self._kind, self._said = type(error), now
        return loud

    def over(self) -> None:
        """It has worked."""
        self._kind = None
