"""What ~/.ssh/config says of a host, for those who have no ssh to ask."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from hpc_bridge.errors import LoginRefused

_INCLUDE = re.compile(r"\s*include(?:\s+|\s*=\s*)(.+)", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(host|match)\b", re.IGNORECASE)
_DEEPEST = 16
_USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Of one host: where it is, and how to log in."""

    alias: str
    hostname: str
    port: int
    user: str
    keys: tuple[Path, ...]
    """Files of private keys, those that exist."""
    only_these_keys: bool
    agent: str | None
    """Socket of another agent than usual; ``none`` for no agent."""
    proxy_command: str | None
    jumps: tuple[str, ...]
    known_hosts: tuple[Path, ...]
    known_as: str
    """The name in the files of known hosts."""
    keepalive: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.user}@{self.hostname}:{self.port}"


class UserConfig:
    """A file of the user's, with what it includes."""

    def __init__(self, path: Path | None = None) -> None:
        self._home = Path.home() / ".ssh"
        path = path or self._home / "config"
        lines = list(_lines(path, self._home)) if path.exists() else []
        try:
            self._config = paramiko.SSHConfig.from_text("\n".join(lines))
        except paramiko.SSHException as error:
            raise LoginRefused(f"{path} cannot be read: {error}") from error

    def host(self, alias: str, *, user: str | None = None, port: int | None = None) -> HostSettings:
        """What holds for ``alias``, or ``user@alias:port``, as in a ProxyJump."""
        named_user, alias, named_port = _parts(alias)
        try:
            found: Mapping[str, Any] = self._config.lookup(alias)
        except (paramiko.SSHException, ImportError) as error:
            raise LoginRefused(f"the SSH configuration of {alias}: {error}") from error
        where = str(found.get("hostname", alias))
        number = port or named_port or int(found.get("port", 22))
        known_as = found.get("hostkeyalias") or (where if number == 22 else f"[{where}]:{number}")
        return HostSettings(
            alias=alias,
            hostname=where,
            port=number,
            user=user or named_user or str(found.get("user") or getpass.getuser()),
            keys=self._keys(found),
            only_these_keys=_is_yes(found.get("identitiesonly")),
            agent=found.get("identityagent"),
            proxy_command=found.get("proxycommand"),
            jumps=_jumps(found),
            known_hosts=self._known_hosts(found),
            known_as=known_as,
            keepalive=int(found.get("serveraliveinterval") or 0),
        )

    def _keys(self, found: Mapping[str, Any]) -> tuple[Path, ...]:
        named = found.get("identityfile")
        paths = (
            [Path(name).expanduser() for name in named]
            if named
            else [self._home / name for name in _USUAL_KEYS]
        )
        return tuple(path for path in paths if path.is_file())

    def _known_hosts(self, found: Mapping[str, Any]) -> tuple[Path, ...]:
        own = found.get("userknownhostsfile") or f"{self._home}/known_hosts"
        everybodys = found.get("globalknownhostsfile") or "/etc/ssh/ssh_known_hosts"
        paths = (Path(name.strip('"')).expanduser() for name in f"{own} {everybodys}".split())
        return tuple(path for path in paths if path.is_file())


def _lines(path: Path, home: Path, depth: int = 0) -> Iterator[str]:
    """Those of the file and of what it includes; after an include its own block goes on."""
    block = "Host *"
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if _BLOCK.match(line):
            block = line
        if (match := _INCLUDE.match(line)) is None:
            yield line
            continue
        for pattern in match[1].split():
            name = str(Path(pattern.strip('"')).expanduser())
            if depth < _DEEPEST:
                root = Path("/") if name.startswith("/") else home
                for included in sorted(root.glob(name.lstrip("/"))):
                    yield from _lines(included, home, depth + 1)
        yield block


def _parts(text: str) -> tuple[str | None, str, int | None]:
    """``[user@]host[:port]``."""
    user, _, rest = text.rpartition("@")
    match = re.fullmatch(r"(?:\[(.+)\]|([^:]+))(?::(\d+))?", rest.removeprefix("ssh://"))
    if match is None:
        return user or None, rest, None
    return user or None, match[1] or match[2], int(match[3]) if match[3] else None


def _jumps(found: Mapping[str, Any]) -> tuple[str, ...]:
    # Of both the first in the file would count; a file that has both for a host is not met.
    text = str(found.get("proxyjump") or "none")
    if text.lower() == "none" or found.get("proxycommand"):
        return ()
    return tuple(hop.strip() for hop in text.split(","))


def _is_yes(value: object) -> bool:
    return str(value).lower() in ("yes", "true")
