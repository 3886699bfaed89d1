"""Who asks: the account, or whoever ``FAKE_PBS_AS`` says; ``FAKE_PBS_MANAGER`` makes a manager."""

from __future__ import annotations

import os
import pwd
import sys


def name() -> str:
    return os.environ.get("FAKE_PBS_AS") or pwd.getpwuid(os.geteuid()).pw_name


def is_manager() -> bool:
    """Managers may rerun jobs and touch those of others. The account root alone is none."""
    return "FAKE_PBS_MANAGER" in os.environ


def raw(text: str) -> str:
    """An argument or a variable as bytes in a ``str``."""
    return os.fsencode(text).decode("latin-1")


def say(text: str) -> None:
    """To standard output, byte by byte."""
    sys.stdout.buffer.write(text.encode("latin-1"))
    sys.stdout.buffer.flush()


def complain(text: str) -> None:
    """To standard error, a line."""
    sys.stderr.buffer.write(text.encode("latin-1") + b"\n")
    sys.stderr.buffer.flush()
