"""The processes of a job: found through /proc, signalled, and none left behind. Linux only.

Standard library only (see ``local_directives``).
"""

# pathlib is not used: importing it takes as long as all else that a start does.
from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KEEPER_MARK = "HPC_BRIDGE_LOCAL_KEEPER"
"""In the environment of every job's own process: it is never part of another job."""
JOB_MARK = "HPC_BRIDGE_LOCAL_JOB"
"""In the environment of a script: the folder of its job."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> bool:
    """Orphans below this process become its children; False where that cannot be had."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which forked it, ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> bool:
    try:
        import ctypes

        arguments = [ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3]
        return int(ctypes.CDLL(None).prctl(option, *arguments)) == 0
    except (ImportError, OSError, AttributeError):
        return False  # a Python built without libffi, or another C library


def descendants(root: int) -> set[int]:
    """Every process below ``root``, zombies too, other jobs' own processes and theirs excepted.

    A job may submit a job, whose process then hangs below the first one's.
    """
    children: dict[int, list[int]] = {}
    for process in _processes():
        parent = _parent(process)
        if parent is not None:
            children.setdefault(parent, []).append(process)
    found: set[int] = set()
    unseen = [root]
    while unseen:
        for child in children.get(unseen.pop(), ()):
            if child not in found and not _is_keeper(child):
                found.add(child)
                unseen.append(child)
    return found


def marked(folder: str) -> set[int]:
    """Every process that has the environment of the job in ``folder``."""
    mark = f"{JOB_MARK}={folder}".encode()
    return {process for process in _processes() if mark in _environment(process)}


def send(processes: set[int], number: int) -> None:
    """Signal what still exists; a negative number is a process group."""
    for process in processes:
        try:
            os.kill(process, number)
        except (ProcessLookupError, PermissionError):
            continue  # gone already, or not ours any more (set-user-id)


def kill_all(find: Callable[[], set[int]]) -> dict[int, int]:
    """Kill what ``find`` finds until it finds nothing; children that ended: pid to wait status."""
    ended: dict[int, int] = {}
    while True:
        ended |= reap()
        processes = find()
        if not processes:
            return ended
        send(processes, signal.SIGKILL)
        try:
            process, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return ended  # none of them is a child: nothing to wait for
        ended[process] = status


def reap() -> dict[int, int]:
    """Children that ended: pid to wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if process == 0:
            return ended
        ended[process] = status


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent(process: int) -> int | None:
    # proc(5): "pid (command) state ppid ..."; the command may hold blanks and parentheses.
    stat = _read(f"/proc/{process}/stat")
    fields = stat[stat.rfind(b")") + 2 :].split(b" ", 2)
    return int(fields[1]) if len(fields) > 1 else None


def _environment(process: int) -> list[bytes]:
    return _read(f"/proc/{process}/environ").split(b"\0")


def _is_keeper(process: int) -> bool:
    mark = f"{KEEPER_MARK}=".encode()
    return any(entry.startswith(mark) for entry in _environment(process))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # ended meanwhile, or somebody else's
