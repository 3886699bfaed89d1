"""The connection to a login host that all of a process shares; lost, and made again."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpc_bridge.errors import CommandTimeout, ConnectionLost, HPCBridgeError, Unreachable
from hpc_bridge.transports.channels import Channels, NoTimeLeft
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.remote_shell import Exchange, ending

logger = logging.getLogger(__name__)

_TO_END_SECONDS, _ALONE_SECONDS = 5.0, 2.0
_TRIES = 3


class ChannelRefused(Exception):
    """The server has no channel free; nothing was run."""


class NothingRun(Exception):
    """The connection was gone before anything was asked of it; the message says how that shows."""


class Broken(Exception):
    """The connection broke, or the remote shell was killed, while the command was under way."""


class TimedOut(Exception):
    """The deadline passed while the command was under way."""


class Connection(ABC):
    """A login. Threads use it at the same time, each for a command of its own."""

    @abstractmethod
    def carry(self, exchange: Exchange, deadline: Deadline) -> None:
        """Run one command to its end.

        Raises ChannelRefused, NothingRun, Broken or TimedOut; whatever is raised, also by the
        exchange, its channel is closed then.
        """

    @abstractmethod
    def alive(self) -> bool:
        """Whether it is worth asking; costs nothing."""

    @abstractmethod
    def close(self) -> None:
        """End it."""


Connect = Callable[[Deadline], Connection]
"""Makes a connection. Raises Unreachable or LoginRefused."""


class Link:
    """What is between this process and one account on one host."""

    def __init__(self, name: str, connect: Connect) -> None:
        self.name = name
        self.logins = 0
        """Connections that were made."""
        self._connect = connect
        self._connection: Connection | None = None
        self._channels = Channels()
        self._connecting = threading.Lock()

    def carry(self, exchange: Exchange, deadline: Deadline, *, may_log_in: bool = True) -> None:
        """Run one command to its end, connecting if need be, and if that may be.

        Raises Unreachable and LoginRefused: nothing was run; ConnectionLost; CommandTimeout when
        the deadline passed, and the command has been ended.
        """
        refusals = losses = 0
        while True:
            made = self.logins
            connection, channels = self._current(deadline, may_log_in=may_log_in)
            if self.logins != made:
                deadline.restart()
            try:
                with channels.place(deadline):
                    connection.carry(exchange, deadline)
                return
            except ChannelRefused:
                refusals += 1
                with self._nothing_run(deadline):
                    channels.refused(refusals, deadline)
            except NoTimeLeft:
                with self._nothing_run(deadline):
                    raise
            except NothingRun as error:
                self._drop(connection)
                losses += 1
                if losses == _TRIES or deadline.passed:
                    raise Unreachable(f"no connection to {self.name}: {error}") from error
            except Broken as error:
                self._drop(connection)
                raise ConnectionLost(
                    f"the connection to {self.name} broke while a command was under way ({error});"
                    " whether it took effect is unknown"
                ) from error
            except TimedOut:
                ended = self._end(connection, exchange, may_log_in=may_log_in)
                raise CommandTimeout(
                    f"no answer from {self.name} within {deadline.seconds:g} s"
                    + ("" if ended else "; what was started there could not be ended"),
                    stderr=exchange.stderr.decode(errors="replace"),
                ) from None

    @contextmanager
    def _nothing_run(self, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except NoTimeLeft:
            raise Unreachable(
                f"no channel to {self.name} was free within {deadline.seconds:g} s; nothing was run"
            ) from None

    def close(self) -> None:
        """End the connection; the next command makes a new one."""
        if self._connection is not None:
            self._drop(self._connection)

    def forget(self) -> None:
        """In a forked child: the connection is the parent's."""
        _parents.append(self._connection)
        self._connection = None
        self._channels = Channels()
        self._connecting = threading.Lock()

    def _current(
        self, deadline: Deadline, *, may_log_in: bool = True
    ) -> tuple[Connection, Channels]:
        if not self._connecting.acquire(timeout=max(0.01, deadline.remaining())):
            raise Unreachable(f"another thread is still logging in to {self.name}")
        try:
            if self._connection is not None and not self._connection.alive():
                self._close(self._connection)
                self._connection = None
            if self._connection is None:
                if not may_log_in:
                    raise Unreachable(f"there is no connection to {self.name} any more")
                self._connection = self._connect(deadline)
                self._channels = Channels()
                self.logins += 1
            return self._connection, self._channels
        finally:
            self._connecting.release()

    def _drop(self, connection: Connection) -> None:
        with self._connecting:
            if self._connection is connection:
                self._connection = None
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        try:
            connection.close()
        except (OSError, HPCBridgeError) as error:
            logger.debug("%s does not close: %s", self.name, error)

    def _end(self, connection: Connection, late: Exchange, *, may_log_in: bool) -> bool:
        """End what a command has started; whether that was possible."""
        if self._ended(connection, late):
            return late.pid is not None
        # Nothing goes through any more, or the late command holds the only channel there is.
        alone = self._channels.limit == 1
        self._drop(connection)
        if not (alone and may_log_in):
            return False
        with contextlib.suppress(HPCBridgeError):
            again = self._current(Deadline(total=_TO_END_SECONDS))[0]
            return self._ended(again, late) and late.pid is not None
        return False

    def _ended(self, connection: Connection, late: Exchange) -> bool:
        alone = self._channels.limit == 1
        deadline = Deadline(total=_ALONE_SECONDS if alone else _TO_END_SECONDS)
        for attempt in range(1, 100):
            # What has not even begun has no process that is known; others may do well beside it.
            program = ":" if late.pid is None else ending(late.pid, late.leftover)
            exchange = Exchange(program, secrets.token_hex(8))
            try:
                with self._channels.place(deadline):
                    connection.carry(exchange, deadline)
                return exchange.end is not None
            except ChannelRefused:
                with contextlib.suppress(NoTimeLeft):
                    self._channels.refused(attempt, deadline)
                    continue
                return False
            except (NoTimeLeft, NothingRun, Broken, TimedOut):
                return False
        return False


_links: dict[tuple[object, ...], tuple[Link, int]] = {}
_sharing = threading.Lock()
_parents: list[Connection | None] = []


def shared(key: tuple[object, ...], make: Callable[[], Link]) -> Link:
    """The link of that key, made by the first who asks."""
    with _sharing:
        link, users = _links.get(key) or (make(), 0)
        _links[key] = link, users + 1
        return link


def release(key: tuple[object, ...]) -> None:
    """One user less; the last one closes."""
    with _sharing:
        link, users = _links.pop(key)
        if users > 1:
            _links[key] = link, users - 1
            return
    link.close()


def _forget() -> None:
    global _sharing
    _sharing = threading.Lock()
    for link, _ in _links.values():
        link.forget()


os.register_at_fork(after_in_child=_forget)
