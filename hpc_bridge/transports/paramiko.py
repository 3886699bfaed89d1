"""SSH inside this process: no ssh binary, one login, a few milliseconds a command."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

try:
    import paramiko
except ImportError:  # the extra `ssh` is not installed
    raise ImportError(
        "the paramiko transport needs paramiko: pip install 'hpc-bridge[ssh]'"
    ) from None

from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.link import (
    Broken,
    ChannelRefused,
    Connection,
    Link,
    NothingRun,
    TimedOut,
)
from hpc_bridge.transports.logins import OnLogin
from hpc_bridge.transports.paramiko_login import Login, close_all
from hpc_bridge.transports.remote_shell import Exchange
from hpc_bridge.transports.ssh import SSHTransport
from hpc_bridge.transports.ssh_auth import Ask, ask_on_terminal
from hpc_bridge.transports.ssh_config import UserConfig

_READ = 2**18
_OPEN_SECONDS = 30.0
_AFTER_SIGNAL_SECONDS = 1.0
_AFTER_CLOSE_SECONDS = 5.0
# What a server takes without being asked to read on first.
_WITHOUT_WAITING = 2**15


class ParamikoTransport(SSHTransport):
    """Logs in by agent, key file, password or codes; see ``ssh_auth`` for what is asked when."""

    def __init__(
        self,
        host: str,
        *,
        user: str | None = None,
        port: int | None = None,
        config: str | None = None,
        ask: Ask = ask_on_terminal,
        on_login: OnLogin | None = None,
    ) -> None:
        """``host`` as in ``ssh host``; ``config`` is a file to use instead of the user's own."""
        settings = UserConfig(Path(config) if config else None)
        self._host = settings.host(host, user=user, port=port)
        self._login = Login(self._host, settings, ask, on_login)
        super().__init__((self._host.user, self._host.hostname, self._host.port))

    def _make_link(self) -> Link:
        return Link(
            self._host.name, lambda deadline: ParamikoConnection(self._login.connect(deadline))
        )


class ParamikoConnection(Connection):
    """A login; the last of the transports that lead there."""

    def __init__(self, way: list[paramiko.Transport]) -> None:
        self._way = way
        self._transport = way[-1]
        self._owner = os.getpid()
        # Before the interpreter ends: threads of paramiko's cannot be joined after.
        atexit.register(self.close)

    def alive(self) -> bool:
        return self._transport.is_active()

    def close(self) -> None:
        atexit.unregister(self.close)
        if os.getpid() == self._owner:
            close_all(self._way)

    def carry(self, exchange: Exchange, deadline: Deadline) -> None:
        channel = self._open(deadline)
        pumping = _Pumping(channel, exchange)
        try:
            self._begin(channel, exchange)
            pumping.run(deadline)
        except TimedOut:
            _kill(channel, exchange)
            raise
        finally:
            pumping.close()
        if exchange.end is not None:
            return
        if not self._transport.is_active():
            raise Broken("it was closed by the other side")
        if not exchange.started and channel.exit_status == -1 and not exchange.unasked:
            raise ChannelRefused  # the request itself: no shell has been started

    def _open(self, deadline: Deadline) -> paramiko.Channel:
        seconds = min(_OPEN_SECONDS, max(0.1, deadline.remaining()))
        try:
            return self._transport.open_session(timeout=seconds)
        except (OSError, EOFError, paramiko.SSHException) as error:
            if not self._transport.is_active():
                raise NothingRun(str(error) or "it was closed by the other side") from error
            if "Timeout" in str(error):
                raise NothingRun("it does not answer any more") from error
            # With several threads a refusal may come as a bare SSHException.
            raise ChannelRefused from error

    def _begin(self, channel: paramiko.Channel, exchange: Exchange) -> None:
        # As exec_command, which would wait for the answer: that is one more journey to a host far
        # away. The mark says as much, and after a refusal paramiko closes the channel.
        try:
            _request(channel, "exec", exchange.line, wants_reply=True)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Broken(str(error) or "it was closed by the other side") from error


class _Wake(threading.Event):
    """Set whenever one of two outputs has something; only its reader clears it."""

    def clear(self) -> None:
        """paramiko would clear it when one of the two is empty."""

    def reset(self) -> None:
        """By the reader, before it looks."""
        super().clear()


class _Pumping:
    """Moves bytes between a channel and an exchange, and closes the channel.

    paramiko's own thread would answer the other side's close by itself, even between another
    thread's look whether the channel is open and its sending of data or their end. sshd ends the
    whole connection when something comes for a channel that it has forgotten, and it forgets one
    with that answer; so here the answer waits for whoever sends.
    """

    def __init__(self, channel: paramiko.Channel, exchange: Exchange) -> None:
        channel._close_internal = self._closed  # type: ignore[attr-defined]
        self._channel = channel
        self._exchange = exchange
        self._wake = _Wake()
        self._sender: threading.Thread | None = None
        self._sending_failed: BaseException | None = None
        self._is_sending = False
        self._sent = 0

    def run(self, deadline: Deadline) -> None:
        """Until both outputs have ended. Raises TimedOut, and what the exchange raises."""
        out, err = self._channel.in_buffer, self._channel.in_stderr_buffer
        out.set_event(self._wake)
        err.set_event(self._wake)
        sent = 0
        while True:
            self._wake.reset()
            moved = self._take()
            if self._exchange.started and not self._is_sending:
                self._send()
            if self._sending_failed is not None:
                raise self._sending_failed
            if moved or self._sent != sent:
                sent = self._sent
                deadline.touch()
            if not moved and self._channel.eof_received | self._channel.closed:
                if not self._take():
                    return
                continue
            if deadline.passed:
                raise TimedOut
            if not moved:
                # A sender that moves bytes does not wake anybody.
                longest = 1.0 if self._sender is not None else 60.0
                self._wake.wait(min(longest, deadline.remaining()))

    def close(self) -> None:
        """Nothing is sent over the channel after this."""
        with self._channel.lock:
            self._closed()
        if self._sender is not None:
            self._sender.join(_AFTER_CLOSE_SECONDS)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            _send(self._channel, paramiko.common.cMSG_CHANNEL_CLOSE)

    def _closed(self) -> tuple[None, None]:
        # The messages that paramiko is to send: none.
        if not self._channel.closed:
            self._channel._set_closed()  # type: ignore[attr-defined]
        return None, None

    def _take(self) -> bool:
        moved = False
        while self._channel.recv_ready():
            self._exchange.on_stdout(_received(self._channel.recv))
            moved = True
        while self._channel.recv_stderr_ready():
            self._exchange.on_stderr(_received(self._channel.recv_stderr))
            moved = True
        return moved

    def _send(self) -> None:
        self._is_sending = True
        first = next(self._exchange.stdin, None)
        self._channel.settimeout(None)
        if first is None:
            self._finish()
        elif (
            len(first) <= _WITHOUT_WAITING and (second := next(self._exchange.stdin, None)) is None
        ):
            self._put(first)
            self._finish()
        else:
            chunks = [first] if len(first) > _WITHOUT_WAITING else [first, second or b""]
            self._sender = threading.Thread(target=self._feed, args=(chunks,), daemon=True)
            self._sender.start()

    def _feed(self, chunks: list[bytes]) -> None:
        try:
            for chunk in chunks:
                self._put(chunk)
            for chunk in self._exchange.stdin:
                self._put(chunk)
            self._finish()
        except (OSError, EOFError, paramiko.SSHException):
            pass  # the command has ended, or the connection: the reader will see which
        except BaseException as error:  # noqa: BLE001 - raised by the thread that reads
            self._sending_failed = error
        finally:
            self._wake.set()

    def _put(self, chunk: bytes) -> None:
        for start in range(0, len(chunk), _WITHOUT_WAITING):
            part = chunk[start : start + _WITHOUT_WAITING]
            self._channel.sendall(part)
            self._sent += len(part)

    def _finish(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()


def _received(receive: Callable[[int], bytes]) -> bytes:
    """To receive is to send too: that there is room again. Raises Broken."""
    try:
        return receive(_READ)
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise Broken(str(error) or "it was closed by the other side") from error


def _kill(channel: paramiko.Channel, exchange: Exchange) -> None:
    """By the channel itself (RFC 4254, 6.9; OpenSSH since 7.9), which needs no second one."""
    if exchange.started:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            _request(channel, "signal", "KILL", wants_reply=False)
            channel.status_event.wait(_AFTER_SIGNAL_SECONDS)


def _request(channel: paramiko.Channel, kind: str, value: str, *, wants_reply: bool) -> None:
    _send(channel, paramiko.common.cMSG_CHANNEL_REQUEST, kind, wants_reply, value)


def _send(channel: paramiko.Channel, kind: bytes, *values: str | bool) -> None:
    message = paramiko.Message()
    message.add_byte(kind)
    message.add_int(channel.remote_chanid)
    for value in values:
        if isinstance(value, bool):
            message.add_boolean(value)
        else:
            message.add_string(value.encode(errors="surrogateescape"))
    channel.transport._send_user_message(message)  # type: ignore[union-attr]
