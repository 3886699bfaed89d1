"""How a cluster's login side is reached: a value, and the transport that it stands for."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Literal

from hpc_bridge import load
from hpc_bridge.errors import CommandError
from hpc_bridge.transports.base import Transport
from hpc_bridge.transports.local import LocalTransport

TransportName = Literal["local", "openssh", "paramiko"]
Master = Literal["reuse", "manage"]


@dataclass(frozen=True, slots=True)
class Login:
    """Equal ones share a connection."""

    transport: TransportName = "local"
    host: str | None = None
    """As in ``ssh host``: a name, or an alias of the user's own SSH configuration."""
    user: str | None = None
    """On the cluster; as the SSH configuration says when None."""
    master: Master = "manage"
    """Of ``openssh``: whether its master is the user's own, or one that is opened and kept."""

    def __str__(self) -> str:
        if self.transport == "local":
            return "this machine"
        return f"{self.user}@{self.host}" if self.user else str(self.host)


LOCAL = Login()
_transports: dict[Login, Transport] = {}
_opening = threading.Lock()


def transport_to(login: Login) -> Transport:
    """The process's transport to a login host; nothing is connected yet.

    Raises CommandError when there is no ssh here or its configuration is wrong, and naming the
    extra when paramiko is not installed.
    """
    with _opening:
        if login not in _transports:
            _transports[login] = _open(login)
        return _transports[login]


def _open(login: Login) -> Transport:
    if login.transport == "local":
        return LocalTransport()
    host = login.host or ""
    if login.transport == "openssh":
        from hpc_bridge.transports.openssh import OpenSSHTransport

        return OpenSSHTransport(host, mode=login.master, user=login.user, on_login=load.count_login)
    try:
        from hpc_bridge.transports.paramiko import ParamikoTransport
    except ImportError as error:
        raise CommandError(str(error)) from error
    return ParamikoTransport(host, user=login.user, on_login=load.count_login)


def _forget() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_forget)
