"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 4
"""How much longer than at rest a busy machine may take: a deadline is for what never comes."""
HUNG = 240.0
"""Seconds after which what ends by itself is taken for hung."""
_SHORTEST, _LONGEST = 0.05, 0.5


def until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """The condition's first true value; fails after ``seconds`` of a machine at rest.

    What takes longer is asked for less often: the server has others to serve.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    pause = _SHORTEST
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds * PATIENCE:g} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.3, _LONGEST)
