"""From nothing to a connection that is logged in: sockets, jump hosts, host keys."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
from collections.abc import Callable

import paramiko

from hpc_bridge.errors import CommandError, LoginRefused, Unreachable
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.known_hosts import KnownHosts
from hpc_bridge.transports.logins import Logins, OnLogin
from hpc_bridge.transports.ssh_auth import Ask, Keyring, authenticate
from hpc_bridge.transports.ssh_config import HostSettings, UserConfig

_CONNECT_SECONDS = 30.0
_AUTH_SECONDS = 120.0
_KEEPALIVE_SECONDS = 15
_UNACKNOWLEDGED_MS = 60_000
_MOST_JUMPS = 8
_PROXY_SECONDS = 5.0
_WIRE = "hpc_bridge.transports.wire"

# paramiko prints tracebacks of what is raised here anyway.
logging.getLogger(_WIRE).setLevel(logging.CRITICAL)


class Login:
    """Logs in to a host, over those that are on the way."""

    def __init__(
        self,
        host: HostSettings,
        config: UserConfig,
        ask: Ask,
        on_login: OnLogin | None = None,
        *,
        logins: Callable[[str], Logins] = Logins,
    ) -> None:
        self._host = host
        self._config = config
        self._ask = ask
        self._on_login = on_login
        self._keyring = Keyring()
        self._make_logins = logins
        self._logins: dict[str, Logins] = {}

    def connect(self, deadline: Deadline) -> list[paramiko.Transport]:
        """The connections to all hosts on the way, the last one to the host itself.

        Raises Unreachable, LoginRefused, HostKeyUnknown, HostKeyChanged.
        """
        way: list[paramiko.Transport] = []
        try:
            for hop in self._hops(self._host, 0):
                way.append(self._log_in(hop, way[-1] if way else None, deadline))
        except BaseException:
            close_all(way)
            raise
        return way

    def _hops(self, host: HostSettings, depth: int) -> list[HostSettings]:
        """Hosts to log in to one after the other. A jump host may have one of its own."""
        if depth > _MOST_JUMPS:
            raise LoginRefused(f"the jump hosts of {self._host.alias} lead in a circle")
        before: list[HostSettings] = []
        for number, name in enumerate(host.jumps):
            hop = self._config.host(name)
            # Only the first is reached by its own configuration, as ssh does it.
            before += self._hops(hop, depth + 1) if number == 0 else [hop]
        return [*before, host]

    def _log_in(
        self, host: HostSettings, through: paramiko.Transport | None, deadline: Deadline
    ) -> paramiko.Transport:
        place = f"{host.hostname}-{host.port}"
        logins = self._logins.setdefault(place, self._make_logins(place))
        logins.wait_for_turn(deadline)
        if self._on_login is not None:
            self._on_login(host.hostname)
        try:
            transport = self._try(host, through)
        except CommandError as error:
            logins.failed(error)
            raise
        logins.succeeded()
        return transport

    def _try(self, host: HostSettings, through: paramiko.Transport | None) -> paramiko.Transport:
        try:
            transport = paramiko.Transport(_socket(host, through))
        except (OSError, paramiko.SSHException) as error:
            raise Unreachable(f"no connection to {host.name}: {error}") from error
        try:
            transport.set_log_channel(_WIRE)
            transport.auth_timeout = _AUTH_SECONDS
            known = KnownHosts(host)
            options = transport.get_security_options()
            options.key_types = known.first_wanted(tuple(options.key_types))
            transport.start_client(timeout=_CONNECT_SECONDS)
            known.check(transport.get_remote_server_key())
            authenticate(transport, host, self._keyring, self._ask)
            transport.set_keepalive(host.keepalive or _KEEPALIVE_SECONDS)
        except (OSError, EOFError, paramiko.SSHException) as error:
            close(transport)
            if isinstance(error, CommandError):
                raise
            raise Unreachable(
                f"no connection to {host.name}: {str(error) or 'it was closed by the other side'}"
            ) from error
        except BaseException:
            close(transport)
            raise
        return transport


class _Proxy(paramiko.ProxyCommand):
    """paramiko would send a signal to its process after that has ended, and so to any other."""

    def close(self) -> None:
        """A process that has ended is left alone."""
        self.process.terminate()


def _socket(
    host: HostSettings, through: paramiko.Transport | None
) -> socket.socket | paramiko.Channel | paramiko.ProxyCommand:
    if through is not None:
        return through.open_channel(
            "direct-tcpip", (host.hostname, host.port), ("127.0.0.1", 0), timeout=_CONNECT_SECONDS
        )
    if host.proxy_command:
        return _Proxy(host.proxy_command)
    plain = socket.create_connection((host.hostname, host.port), timeout=_CONNECT_SECONDS)
    # Without it each command waits 40 ms for an acknowledgement.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The keepalive is not answered in a way that paramiko looks at; the kernel notices.
    with contextlib.suppress(AttributeError, OSError):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    return plain


def close_all(way: list[paramiko.Transport]) -> None:
    """The last first."""
    for transport in reversed(way):
        close(transport)


def close(transport: paramiko.Transport) -> None:
    """With the process of a proxy command, which paramiko ends and does not wait for."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        transport.close()
    if isinstance(transport.sock, paramiko.ProxyCommand):
        with contextlib.suppress(subprocess.TimeoutExpired):
            transport.sock.process.communicate(timeout=_PROXY_SECONDS)
