"""The system's ssh, with the user's own configuration: whatever `ssh host` does works here."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Literal

from hpc_bridge.errors import CommandError
from hpc_bridge.transports.link import Connection, Link
from hpc_bridge.transports.logins import Logins, OnLogin
from hpc_bridge.transports.openssh_master import Destination, OwnMaster, users_master
from hpc_bridge.transports.ssh import SSHTransport

Mode = Literal["reuse", "manage"]
_SECONDS = 20.0


class OpenSSHTransport(SSHTransport):
    """``reuse``: only the master that the user has opened; never logs in, whatever happens, so it
    suits hosts with two factors. ``manage``: opens a master of its own and keeps it."""

    def __init__(
        self,
        host: str,
        *,
        mode: Mode = "reuse",
        user: str | None = None,
        port: int | None = None,
        config: str | None = None,
        program: str = "ssh",
        on_login: OnLogin | None = None,
    ) -> None:
        """``host`` as in ``ssh host``; ``config`` is a file to use instead of the user's own.

        Raises CommandError when there is no ssh here, or its configuration is wrong.
        """
        options = [
            *(["-F", config] if config else []),
            *(["-l", user] if user else []),
            *(["-p", str(port)] if port else []),
        ]
        self._destination = Destination(program, tuple(options), host)
        self._mode = mode
        self._on_login = on_login
        self._settings = _settings(self._destination)
        name, where = self._settings["user"], self._settings["hostname"]
        super().__init__((mode, name, where, self._settings["port"]))
        self._name = f"{name}@{where}:{self._settings['port']}"

    def _make_link(self) -> Link:
        if self._mode == "reuse":
            path = self._settings.get("controlpath", "none")

            def connect(_: object) -> Connection:
                return users_master(self._destination, None if path == "none" else path)

            return Link(self._name, connect)
        where = f"{self._settings['hostname']}-{self._settings['port']}"
        return Link(self._name, OwnMaster(self._destination, Logins(where), self._on_login).connect)


def configured(host: str) -> Mapping[str, str]:
    """What ssh makes of the user's configuration for a host; nothing is connected.

    Raises CommandError as ``OpenSSHTransport`` does.
    """
    return _settings(Destination("ssh", (), host))


def _settings(destination: Destination) -> Mapping[str, str]:
    """What ssh makes of the user's configuration for this host."""
    command = destination.argv("-G")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise CommandError(
            f"there is no {destination.program} on this machine; install OpenSSH's client, or use"
            " the paramiko transport",
            command=command,
        ) from None
    except subprocess.TimeoutExpired:
        raise CommandError(
            "ssh does not read its configuration in time", command=command, retryable=True
        ) from None
    if done.returncode != 0:
        raise CommandError(
            f"ssh cannot use its configuration: {done.stderr.strip()}",
            command=command,
            exit_code=done.returncode,
            stderr=done.stderr,
        )
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs}
