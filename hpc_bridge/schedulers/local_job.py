"""The keeper: the detached process that a job has from its submission to its end.

It waits for the job's turn, starts the script, follows orders, ends what overruns and records
the end. It holds the lock ``alive`` and is the only one that writes the record meanwhile.
Standard library only (see ``local_directives``).
"""

# pathlib is not used: importing it takes as long as all else that a start does.
from __future__ import annotations

import os
import resource
import signal
import time

from hpc_bridge.schedulers.local_processes import (
    become_subreaper,
    descendants,
    kill_all,
    marked,
    reap,
    send,
)
from hpc_bridge.schedulers.local_records import Store, iso
from hpc_bridge.schedulers.local_script import StartFailed, start_script
from hpc_bridge.schedulers.local_turn import Cancelled, Control, Turn

KILL_WAIT = 5.0
"""Seconds between SIGTERM and SIGKILL (``KillWait`` in slurm.conf(5), 30 by default)."""


def keep(store: Store, job: int, alive: int, control: int, place: tuple[int, int] | None) -> None:
    """Run a job to its end; the descriptors were made and locked by the command that submitted."""
    wanted = {0, 1, 2, alive, control, *([place[1]] if place else [])}
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor in wanted:
            os.set_inheritable(descriptor, descriptor < 3)
        elif descriptor > 2:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the one of the listing itself
    os.chdir("/")
    os.umask(0o077)
    Keeper(store, job, alive, control, place).run()


class Keeper:
    """Runs one job."""

    def __init__(
        self, store: Store, job: int, alive: int, control: int, place: tuple[int, int] | None
    ) -> None:
        self._store = store
        self._folder = store.folder(job)
        self._record = store.read(job)
        self._request = self._record.asked()
        self._control = Control(control)
        self._turn = Turn(store, self._record, self._control, alive, place, self._note)
        self._is_subreaper = become_subreaper()
        self._ending: str | None = None
        self._cancelled_by: str | None = None

    def run(self) -> None:
        waits = True
        while waits:
            try:
                self._turn.wait()
            except Cancelled as cancelled:
                self._ending, self._cancelled_by = "CANCELLED", str(cancelled)
                self._end("CANCELLED", "")
                return
            waits = self._run_script()

    def _note(self, state: str, reason: str) -> None:
        if (self._record.state, self._record.reason) != (state, reason):
            self._record.state, self._record.reason = state, reason
            self._store.write(self._record)

    def _run_script(self) -> bool:
        """Run the script to its end; True when the job was requeued and waits again."""
        started = time.time()
        self._record.started, self._ending = iso(started), None
        used = _cpu_seconds()
        self._note("RUNNING", "")
        waking, wakened = os.pipe()
        os.set_blocking(waking, False)
        os.set_blocking(wakened, False)
        signal.set_wakeup_fd(wakened, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            leader = start_script(self._record, self._request, self._folder, started)
            status = self._watch(leader, waking)
            if status is None:  # at once with its children, or it may still see them die and exit
                send({-leader}, signal.SIGKILL)
            status = kill_all(self._processes).get(leader, status)
            self._record.cpu_seconds = round(_cpu_seconds() - used, 3)
            largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            self._record.max_memory = -(-largest // 1024)
        except StartFailed as failure:
            self._record.exit_code = failure.exit_code
            self._end("FAILED", str(failure))
            return False
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(waking)
            os.close(wakened)
        return self._finish(status)

    def _watch(self, leader: int, waking: int) -> int | None:
        """Wait for the end of the script, and when it was told to end for that of its children.

        Returns its wait status, or None when its time is over and it must be killed.
        """
        begun = time.monotonic()
        ends_at = warns_at = kills_at = float("inf")
        if self._request.walltime is not None:
            ends_at = begun + self._request.walltime
            if self._request.signal is not None:
                warns_at = ends_at - self._request.signal_lead
        status: int | None = None
        while True:
            status = reap().get(leader, status)
            if status is not None and (self._ending is None or not self._processes()):
                return status
            now = time.monotonic()
            if kills_at <= now:
                return status
            if warns_at <= now:
                warns_at = float("inf")
                self._warn(leader)
            if ends_at <= now and self._ending is None:
                self._ending = "TIMEOUT"
            if self._ending is not None and kills_at == float("inf"):
                ends_at = warns_at = float("inf")
                kills_at = now + KILL_WAIT
                self._terminate(leader)
            next_at = min(ends_at, warns_at, kills_at)
            self._control.wait(None if next_at == float("inf") else max(0, next_at - now), waking)
            _drain(waking)
            for order, argument in self._control.orders():
                self._follow(order, argument)

    def _follow(self, order: str, argument: str) -> None:
        if order == "cancel":
            self._ending, self._cancelled_by = "CANCELLED", argument
        elif order == "requeue":
            self._ending = self._ending or "REQUEUED"
        elif order == "signal":
            send(self._processes(), int(argument))

    def _processes(self) -> set[int]:
        if self._is_subreaper:
            return descendants(os.getpid())
        return descendants(os.getpid()) | marked(self._folder)

    def _terminate(self, leader: int) -> None:
        self._note("COMPLETING", self._ending or "")
        for number in (signal.SIGCONT, signal.SIGTERM):
            send({-leader}, number)  # the group at once, so that none forks past it
            send({p for p in self._processes() if _group(p) != leader}, number)

    def _warn(self, leader: int) -> None:
        number = self._request.signal
        if number is not None:
            shell_only = self._request.signal_shell
            send({leader} if shell_only else self._processes() - {leader}, number)

    def _finish(self, status: int | None) -> bool:
        for order, argument in self._control.orders():
            if order == "requeue":
                self._follow(order, argument)
        if self._ending == "REQUEUED":
            self._requeue()
            return True
        code = 0 if status is None else os.waitstatus_to_exitcode(status)
        self._record.exit_code = max(code, 0)
        self._record.signal = -code if code < 0 else None
        if self._ending is not None:
            self._end(self._ending, "TimeLimit" if self._ending == "TIMEOUT" else "")
        elif code == 0:
            self._end("COMPLETED", "")
        else:
            self._end("FAILED", f"RaisedSignal:{-code}" if code < 0 else "NonZeroExitCode")
        return False

    def _requeue(self) -> None:
        self._record.restarts += 1
        self._record.started = None
        self._note("REQUEUED", "Requeued")
        self._turn.release()

    def _end(self, state: str, reason: str) -> None:
        self._record.ended = iso(time.time())
        self._record.cancelled_by = self._cancelled_by if state == "CANCELLED" else None
        self._note(state, reason)


def _cpu_seconds() -> float:
    """Of all processes that ended below this one and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _group(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def _drain(pipe: int) -> None:
    try:
        os.read(pipe, 65536)
    except BlockingIOError:
        return
