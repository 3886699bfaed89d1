"""How often this user's processes ask the schedulers: kept for a day, on this machine.

One file per cluster, counts by minute. A process adds what it has counted every few seconds and at
its end, so that counting costs next to nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, BinaryIO

from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.machine_files import locked, machine_folder, read_text, write_json

logger = logging.getLogger(__name__)

LOGIN = "login"
"""The kind of a login over SSH; the others are those of ``Cluster.counters``."""
FORMAT = 1
_KEPT_MINUTES = 24 * 60
_FLUSH_SECONDS = 5.0
_PREFIX = "load-"

_Minutes = dict[int, Counter[str]]


class Counts:
    """What this process has counted and not stored yet. Any thread may count."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a child: what its parent has counted is the parent's to store."""
        self._new: defaultdict[str, _Minutes] = defaultdict(lambda: defaultdict(Counter))
        self._counting = threading.Lock()
        self._stored_at = float("-inf")

    def add(self, place: str, kind: str) -> None:
        """Count one; store what there is unless that was done a moment ago."""
        with self._counting:
            self._new[place][_minute()][kind] += 1
            is_due = time.monotonic() - self._stored_at >= _FLUSH_SECONDS
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Store what was counted; a disk that takes nothing is no reason to fail."""
        with self._counting:
            new, self._new = self._new, defaultdict(lambda: defaultdict(Counter))
            self._stored_at = time.monotonic()
        try:
            for place, minutes in new.items():
                with locked(machine_folder() / f"{_PREFIX}{place}.json") as file:
                    _add(file, minutes)
        except (OSError, HPCBridgeError) as error:
            logger.debug("Commands could not be counted: %s", error)


_counts = Counts()
atexit.register(_counts.flush)
os.register_at_fork(after_in_child=_counts.forget)


def count(place: str, kind: str) -> None:
    """Count a command of the cluster ``place``: ``Connection.place``."""
    _counts.add(place, kind)


def count_login(host: str) -> None:
    """Count a login over SSH."""
    _counts.add(f"{LOGIN}-{''.join(c if c.isalnum() or c in '.-' else '_' for c in host)}", LOGIN)


def flush() -> None:
    """Store now what this process has counted."""
    _counts.flush()


def recent(hours: float = 1.0, place: str | None = None) -> dict[str, int]:
    """How many commands of each kind, and logins, in the last ``hours`` (at most 24) to the minute.

    Those of all of this user's processes on this machine, on all clusters unless ``place`` names
    one; logins are of all hosts. ``login`` is always there, the other kinds when there were any.
    """
    flush()
    since = _minute() - int(min(hours * 60, _KEPT_MINUTES))
    total: Counter[str] = Counter()
    with contextlib.suppress(OSError, HPCBridgeError):
        for path in sorted(machine_folder().glob(f"{_PREFIX}*.json")):
            name = path.name.removeprefix(_PREFIX).removesuffix(".json")
            if place is None or name == place or name.startswith(f"{LOGIN}-"):
                for minute, counts in _stored(path).items():
                    if minute > since:
                        total.update(counts)
    return {LOGIN: 0, **total}


def _stored(path: Path) -> _Minutes:
    with locked(path) as file:
        return _read(file)


def _add(file: BinaryIO, new: _Minutes) -> None:
    minutes = _read(file)
    for minute, counts in new.items():
        minutes.setdefault(minute, Counter()).update(counts)
    now = _minute()
    kept = {
        m: dict(counts) for m, counts in sorted(minutes.items()) if 0 <= now - m < _KEPT_MINUTES
    }
    write_json(file, {"format": FORMAT, "minutes": kept})


def _read(file: BinaryIO) -> _Minutes:
    """Nothing when the file is new, of another format, or damaged."""
    try:
        stored: dict[str, Any] = json.loads(read_text(file))
        if stored["format"] != FORMAT:
            return {}
        return {
            int(minute): Counter({str(kind): int(n) for kind, n in counts.items()})
            for minute, counts in stored["minutes"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _minute() -> int:
    return int(time.time() // 60)
