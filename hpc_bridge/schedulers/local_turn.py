"""A job's turn: its place in the queue, then its slots.

Places are taken in order and each waits for those before it, so jobs start in the order in which
they came; only the first in the queue takes slots, so two never hold half of what both need.
Nothing sleeps or asks again: a lock is waited for by a forked child, which shares the descriptor
and so gets the lock for both, while the job's own process waits for the child and for orders.
Standard library only (see ``local_directives``).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time

from hpc_bridge.schedulers.local_processes import die_with
from hpc_bridge.schedulers.local_records import Record, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_WAIT = 3600.0
"""A clock that is set, or a laptop that slept, is noticed within this many seconds."""
_NUMBER_SIZE = 4


class Cancelled(Exception):
    """The job was cancelled before it started; the message says by whom."""


class _Held(Exception):
    """The job was held while it waited."""


class Control:
    """The pipe on which a job takes orders, one ``<order> [<argument>]`` a line."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def wait(self, timeout: float | None, *others: int) -> None:
        """Until there is an order, one of ``others`` is readable or the timeout is over.

        It may return without any of them; the caller looks at its own deadline.
        """
        poll = select.poll()
        for descriptor in (self.descriptor, *others):
            poll.register(descriptor, select.POLLIN)
        # Rounded up: a deadline must have passed when its wait is over.
        milliseconds = None if timeout is None else int(min(timeout, _LONGEST_WAIT) * 1000) + 1
        poll.poll(milliseconds)

    def orders(self) -> list[tuple[str, str]]:
        """The orders that have come; never waits."""
        try:
            lines = os.read(self.descriptor, 65536).decode("ascii", "replace").splitlines()
        except BlockingIOError:
            return []
        return [(order, argument) for order, _, argument in (line.partition(" ") for line in lines)]


class Turn:
    """Waits until a job may run, and gives back what it had then."""

    def __init__(
        self,
        store: Store,
        record: Record,
        control: Control,
        alive: int,
        place: tuple[int, int] | None,
        note: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._record = record
        self._control = control
        self._alive = alive
        self._place = place
        self._note = note
        self._held = record.asked().hold and not record.restarts
        self._slots: dict[int, int] = {}

    def wait(self) -> None:
        """Return when the job has its slots. Raises Cancelled."""
        begin = self._record.asked().begin
        while True:
            try:
                if self._held:
                    self._leave_queue()
                    self._note("HELD", "JobHeldUser")
                    self._await_orders(None)
                elif begin is not None and begin > time.time():
                    self._leave_queue()
                    self._note(self._word(), "BeginTime")
                    self._await_orders(begin - time.time())
                else:
                    self._wait_in_queue()
                    return
            except _Held:
                self.release()
            except Cancelled:
                self._leave_queue()
                raise

    def release(self) -> None:
        """Give the slots back."""
        for descriptor in self._slots.values():
            os.close(descriptor)
        self._slots = {}

    def _word(self) -> str:
        return "REQUEUED" if self._record.restarts else "PENDING"

    def _await_orders(self, timeout: float | None, *others: int) -> None:
        self._control.wait(timeout, *others)
        for order, argument in self._control.orders():
            if order == "cancel":
                raise Cancelled(argument)
            if order in ("hold", "release"):
                self._held = order == "hold"
        if self._held and self._place is not None:
            raise _Held

    # the place in the queue

    def _wait_in_queue(self) -> None:
        if self._place is None:
            lock = self._store.lock()
            self._place = self._store.enqueue()
            os.close(lock)
        mine = self._place[0]
        before = [number for number in self._store.places() if number < mine]
        # The nearest first: it waits for all the others.
        while before:
            if _is_free(self._store.place(before[-1])):
                self._store.leave(before.pop())
            else:
                self._note(self._word(), "Priority")
                self._wait_by_child(lambda report: self._await_places(before, report), 1)
        self._take_slots()
        self._await_orders(0)
        self._leave_queue()

    def _leave_queue(self) -> None:
        if self._place is not None:
            number, descriptor = self._place
            self._store.leave(number)
            os.close(descriptor)
            self._place = None

    def _await_places(self, before: list[int], report: Callable[[int], None]) -> None:
        for number in reversed(before):
            try:
                place = os.open(self._store.place(number), os.O_RDWR)
            except FileNotFoundError:
                continue
            fcntl.flock(place, fcntl.LOCK_SH)
            os.close(place)
        report(0)

    # the slots

    def _take_slots(self) -> None:
        needed = self._record.cpus
        self._slots = {
            number: os.open(self._store.slot(number), os.O_RDWR | os.O_CREAT, 0o600)
            for number in range(self._record.slots)
        }
        taken: list[int] = []
        for number, descriptor in self._slots.items():
            if len(taken) < needed and _lock_now(descriptor, fcntl.LOCK_EX):
                taken.append(number)
        if len(taken) < needed:
            self._note(self._word(), "Resources")
            busy = {n: slot for n, slot in self._slots.items() if n not in taken}
            taken += self._wait_by_child(
                lambda report: _await_locks(busy, report), needed - len(taken)
            )
        for number in set(self._slots) - set(taken):
            os.close(self._slots.pop(number))

    def _wait_by_child(
        self, work: Callable[[Callable[[int], None]], None], wanted: int
    ) -> list[int]:
        """Fork a child that does ``work``; the first ``wanted`` numbers that it reports."""
        reading, writing = os.pipe()
        keeper = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                die_with(keeper)
                os.close(self._alive)  # its lock says that the keeper lives
                os.close(reading)
                work(lambda number: _report(writing, number))
            finally:
                os._exit(0)
        os.close(writing)
        os.set_blocking(reading, False)
        numbers: list[int] = []
        try:
            while len(numbers) < wanted:
                self._await_orders(None, reading)
                numbers += _reported(reading, wanted - len(numbers))
            return numbers
        finally:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _is_free(place: str) -> bool:
    """True when whoever had the place has left it, or has died with it."""
    try:
        descriptor = os.open(place, os.O_RDWR)
    except FileNotFoundError:
        return True
    free = _lock_now(descriptor, fcntl.LOCK_SH)
    os.close(descriptor)
    return free


def _lock_now(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await_locks(descriptors: dict[int, int], report: Callable[[int], None]) -> None:
    """Wait for all of the locks at once, and report each as it comes; never returns."""
    import _thread

    def await_lock(number: int, descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        report(number)

    for number, descriptor in descriptors.items():
        _thread.start_new_thread(await_lock, (number, descriptor))
    while True:
        signal.pause()


def _report(pipe: int, number: int) -> None:
    os.write(pipe, number.to_bytes(_NUMBER_SIZE, "little"))


def _reported(pipe: int, at_most: int) -> list[int]:
    try:
        data = os.read(pipe, _NUMBER_SIZE * at_most)
    except BlockingIOError:
        return []
    if not data:
        raise RuntimeError("the process that waited for a lock has died")
    return [
        int.from_bytes(data[at : at + _NUMBER_SIZE], "little")
        for at in range(0, len(data), _NUMBER_SIZE)
    ]
