"""Processes of a job, found by their session in /proc, and detached ones of the server. Linux."""

from __future__ import annotations

import os
import signal


def stat_fields(process: int) -> list[str]:
    """Fields 3 and on of proc(5) stat; empty when it is gone."""
    try:
        with open(f"/proc/{process}/stat") as file:
            stat = file.read()
    except OSError:
        return []
    return stat[stat.rfind(")") + 2 :].split()


def birth(process: int) -> int | None:
    """Start time in clock ticks, which tells a process from a later one of the same number.

    None when it is gone, and for one that nobody has waited for.
    """
    fields = stat_fields(process)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def of_session(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for name in os.listdir("/proc"):
        fields = stat_fields(int(name)) if name.isdecimal() else []
        if fields and int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(name))
    return found


def memory_kb(processes: list[int]) -> int:
    """Resident memory of all together."""
    pages = [fields[21] for p in processes if (fields := stat_fields(p))]
    return sum(int(number) for number in pages) * os.sysconf("SC_PAGE_SIZE") // 1024


def send(processes: list[int], number: int) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except OSError:
            continue


def detach() -> bool:
    """Fork twice; True in the new process, which has no terminal, no files and no parent."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, 4096)
    return True
