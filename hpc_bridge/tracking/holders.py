"""Processes that look after submissions, as their files tell of them to other processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that looks after submissions."""

    id: str
    host: str
    pid: int
    worker: str | None
    """``<pool>/<name>`` of a worker; None for any other process."""
    place: str
    pid_started: str

    def __str__(self) -> str:
        who = f"worker {self.worker!r}" if self.worker else "a process"
        return f"{who} (pid {self.pid} on {self.host})"


def read_holder(identity: str, content: bytes | None) -> Holder | None:
    """None when there is no such process, or it is of a version that says other things."""
    try:
        stored = json.loads(content or b"")
        return Holder(
            identity,
            str(stored["host"]),
            int(stored["pid"]),
            stored.get("worker"),
            str(stored["place"]),
            str(stored["pid_started"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def is_gone(holder: Holder) -> bool:
    """Whether it can be seen from here that the process has ended."""
    return holder.place == place() and pid_started(holder.pid) != holder.pid_started


def place() -> str:
    """Where process ids mean the same: one boot of one machine, one namespace."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:  # not Linux; macOS says "{ sec = 1700000000, usec = 0 } Tue Nov 14 ..."
        boot = _said("sysctl", "-n", "kern.boottime").partition(",")[0]
        return f"{socket.gethostname()}/{boot}"


def pid_started(pid: int) -> str | None:
    """When a process started: ticks since boot (proc(5)), or a date; None when there is none."""
    if not (_PROC / "self").exists():
        state, _, date = _said("ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)).partition(" ")
        return None if not state or state.startswith("Z") else date.strip()
    try:
        stat = (_PROC / f"{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _said(*command: str) -> str:
    pinned = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    return subprocess.run(command, capture_output=True, text=True, env=pinned).stdout.strip()
