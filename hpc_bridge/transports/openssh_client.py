"""One ssh process per command, over a master's socket, which can never become a login."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Callable
from typing import IO

from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.link import (
    Broken,
    ChannelRefused,
    Connection,
    NothingRun,
    TimedOut,
)
from hpc_bridge.transports.remote_shell import Exchange

# With a full or missing master ssh would silently log in by itself. Through this command it cannot,
# and leaves a trace when it tries: of itself it does not always say something.
_NO_MASTER = b"hpc-bridge: no master"
_NOWHERE = f"ProxyCommand=sh -c 'echo {_NO_MASTER.decode()} >&2'"
NEVER_LOG_IN = (
    *("-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", _NOWHERE, "-o", "ControlPersist=no"),
    *("-T", "-x", "-a", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none", "-o", "LogLevel=ERROR"),
)
_REFUSED = (b"session request failed", b"Session open refused")
# A master that ends in the very moment may have handed the command on; before that it has not.
_MAYBE_ASKED = b"mux_client_request_session: read from master failed"
_READ = 2**18
_CHECK_SECONDS = 10.0


class MasterConnection(Connection):
    """A master that somebody has opened at ``path``."""

    def __init__(self, argv: Callable[..., list[str]], path: str) -> None:
        """``argv`` makes an ssh command with further options."""
        self.path = path
        self._argv = argv
        # A percent sign would begin one of ssh's own words.
        self._options = ("-S", path.replace("%", "%%"), *NEVER_LOG_IN)

    def answers(self, seconds: float) -> bool:
        """Whether a master is there; asks the socket, not the host."""
        try:
            return self.control("check", seconds)
        except (subprocess.TimeoutExpired, OSError):
            return False

    def control(self, what: str, seconds: float) -> bool:
        """Give the master an order; whether it was taken."""
        done = subprocess.run(
            self._argv(*self._options, "-O", what),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        return done.returncode == 0

    def alive(self) -> bool:
        """Told by the next command, at no cost."""
        return True

    def close(self) -> None:
        """The user's own: it stays."""

    def carry(self, exchange: Exchange, deadline: Deadline) -> None:
        command = [*self._argv(*self._options), exchange.line]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        try:
            _Pumping(process, exchange).run(deadline)
            if exchange.end is None:  # its exit code says why
                process.wait(max(1.0, deadline.remaining()))
        except subprocess.TimeoutExpired:
            raise TimedOut from None
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            process.wait()
        if exchange.end is None:
            self._explain(exchange, process.returncode)

    def _explain(self, exchange: Exchange, code: int) -> None:
        """Raise what it means that the command has not ended by itself.

        Returns when the remote shell has: it was killed, or has refused.
        """
        said = exchange.unasked.encode()
        if exchange.started:
            if code == 255 and not self.answers(_CHECK_SECONDS):
                raise Broken("its master has ended")
            return
        if any(words in said for words in _REFUSED):
            raise ChannelRefused
        if code != 255:
            return
        is_there = self.answers(_CHECK_SECONDS)
        if _MAYBE_ASKED in said or (not is_there and _NO_MASTER not in said):
            raise Broken("its master has ended")
        if not is_there:
            raise NothingRun("its master has ended")
        if _NO_MASTER in said:
            raise ChannelRefused


class _Pumping:
    """Moves bytes between an ssh process and an exchange, in one thread."""

    def __init__(self, process: subprocess.Popen[bytes], exchange: Exchange) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("all three are pipes")
        self._stdin: IO[bytes] | None = process.stdin
        self._exchange = exchange
        self._pending = memoryview(b"")
        self._selector = selectors.DefaultSelector()
        self._selector.register(process.stdout, selectors.EVENT_READ, exchange.on_stdout)
        self._selector.register(process.stderr, selectors.EVENT_READ, exchange.on_stderr)
        os.set_blocking(process.stdin.fileno(), False)
        self._is_sending = False
        self._open = 2

    def run(self, deadline: Deadline) -> None:
        """Until both outputs have ended. Raises TimedOut."""
        with self._selector:
            while self._open:
                if self._exchange.started and not self._is_sending:
                    self._begin_to_send()
                events = self._selector.select(deadline.remaining())
                if not events and deadline.passed:
                    raise TimedOut
                for key, _ in events:
                    if key.data is None:
                        self._send()
                    else:
                        self._receive(key)
                deadline.touch()
                if deadline.passed:
                    raise TimedOut

    def _receive(self, key: selectors.SelectorKey) -> None:
        if data := os.read(key.fd, _READ):
            key.data(data)
        else:
            self._selector.unregister(key.fileobj)
            self._open -= 1

    def _begin_to_send(self) -> None:
        self._is_sending = True
        if self._stdin is not None:
            self._selector.register(self._stdin, selectors.EVENT_WRITE, None)

    def _send(self) -> None:
        if self._stdin is None:
            return
        while not self._pending:
            chunk = next(self._exchange.stdin, None)
            if chunk is None:
                self._end_of_input()
                return
            self._pending = memoryview(chunk)
        try:
            self._pending = self._pending[os.write(self._stdin.fileno(), self._pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command has read enough
            self._end_of_input()

    def _end_of_input(self) -> None:
        if self._stdin is not None:
            self._selector.unregister(self._stdin)
            self._stdin.close()
            self._stdin = None
