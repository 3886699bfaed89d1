"""What the flow's process tells the supervisor. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from hpc_bridge.node.attempt import REPORTS


def report(**what: Any) -> None:
    """Tell the supervisor, when there is one; that it cannot be told is no failure of the flow."""
    reports = os.environ.get(REPORTS)
    if reports is None:
        return
    with contextlib.suppress(OSError):
        pipe = os.open(reports, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, (json.dumps(what) + "\n").encode())
        finally:
            os.close(pipe)
