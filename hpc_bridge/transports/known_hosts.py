"""Whether a host is the one that is known: strict, and nothing is ever added."""

from __future__ import annotations

import paramiko

from hpc_bridge.errors import HostKeyChanged, HostKeyUnknown
from hpc_bridge.transports.ssh_config import HostSettings

_RSA = ("rsa-sha2-512", "rsa-sha2-256")


class KnownHosts:
    """The keys that are known of one host."""

    def __init__(self, host: HostSettings) -> None:
        self._host = host
        self._keys: list[paramiko.PKey] = []
        self._files = [str(path) for path in host.known_hosts]
        for path in self._files:
            known = paramiko.HostKeys()
            known.load(path)
            for kind, key in (known.lookup(host.known_as) or {}).items():
                if kind and key is not None:
                    self._keys.append(key)

    def first_wanted(self, kinds: tuple[str, ...]) -> list[str]:
        """Kinds of keys to ask the host for: first those that are known of it."""
        known = {name for key in self._keys for name in _names(key)}
        return sorted(kinds, key=lambda kind: kind not in known)

    def check(self, shown: paramiko.PKey) -> None:
        """Raises HostKeyUnknown or HostKeyChanged, both with what to do."""
        if any(key == shown for key in self._keys):
            return
        host, port = self._host.hostname, self._host.port
        at = f"-p {port} " if port != 22 else ""
        scan = f"ssh-keyscan {at}{host} >> ~/.ssh/known_hosts"
        print_of = f"{_short(shown)} {shown.fingerprint}"
        if known := [key for key in self._keys if _short(key) == _short(shown)]:
            raise HostKeyChanged(
                f"{self._host.known_as} shows another host key than before, so nobody logs in:\n"
                f"  shown {print_of}\n  known {_short(known[0])} {known[0].fingerprint}\n"
                "Ask the site whether its key was changed. If so, remove the old one with"
                f" `ssh-keygen -R '{self._host.known_as}'` and accept the new one with `ssh"
                f" {self._host.alias}` once, or `{scan}`."
            )
        others = ", ".join(sorted({_short(key) for key in self._keys}))
        raise HostKeyUnknown(
            f"the host key of {self._host.known_as} is not known"
            f"{f' (only its {others} is)' if others else ''}: {print_of}\n"
            "Compare this fingerprint with the one that the site publishes, and accept it with"
            f" `ssh {self._host.alias}` once, or `{scan}`. Looked for in:"
            f" {', '.join(self._files) or 'no file, because there is none'}."
        )


def _short(key: paramiko.PKey) -> str:
    """ED25519, ECDSA or RSA."""
    return key.get_name().removeprefix("ssh-").split("-")[0].upper()


def _names(key: paramiko.PKey) -> tuple[str, ...]:
    return _RSA if key.get_name() == "ssh-rsa" else (key.get_name(),)
