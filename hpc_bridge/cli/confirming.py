"""A question to the person at the terminal."""

from __future__ import annotations

import sys


def confirmed(question: str) -> bool:
    """Whether the answer is yes; anything else, and no answer, is no."""
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
