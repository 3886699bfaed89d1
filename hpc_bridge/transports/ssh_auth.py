"""Proving to a host who we are, inside this process: agent, key files, password, codes."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from hpc_bridge.errors import LoginRefused
from hpc_bridge.transports.ssh_config import HostSettings

Ask = Callable[[str], str]
"""Asks the user for a secret; the argument says which."""

_MOST_QUESTIONS = 3
_AGENT_VARIABLE = "SSH_AUTH_SOCK"


def ask_on_terminal(question: str) -> str:
    """Without echo. Raises LoginRefused where nobody can be asked."""
    try:
        with Path("/dev/tty").open():
            pass
    except OSError:
        raise LoginRefused(
            f"{question} was asked for, and there is no terminal to ask on. Use a key without a"
            " passphrase or an agent, or log in with `ssh -fNM` and use the openssh transport in"
            " mode 'reuse'."
        ) from None
    return getpass.getpass(f"{question}: ")


class Keyring:
    """Keys that were opened before, so that a passphrase is asked for once in a process.

    Passwords and codes are not kept: they are asked for at each login.
    """

    def __init__(self) -> None:
        self._open: dict[Path, paramiko.PKey] = {}

    def plain(self, path: Path) -> paramiko.PKey | None:
        """The key, unless it needs a passphrase; None for what is no key that we can use."""
        if path not in self._open:
            try:
                self._open[path] = paramiko.PKey.from_path(path)
            except (TypeError, paramiko.PasswordRequiredException):
                return None
            except (OSError, ValueError, paramiko.SSHException, UnsupportedAlgorithm):
                return None
        return self._open[path]

    def locked(self, path: Path, ask: Ask) -> paramiko.PKey | None:
        """The key, after asking for its passphrase; None when it is not a key after all."""
        try:
            paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            pass
        except (OSError, ValueError, paramiko.SSHException, UnsupportedAlgorithm):
            return None
        for _ in range(_MOST_QUESTIONS):
            phrase = ask(f"passphrase of {path}")
            try:
                key = paramiko.PKey.from_path(path, password=phrase.encode())  # type: ignore[arg-type]
            except (ValueError, paramiko.SSHException):
                continue
            self._open[path] = key
            return key
        raise LoginRefused(f"{path} was not opened by any of {_MOST_QUESTIONS} passphrases")


def authenticate(
    transport: paramiko.Transport, host: HostSettings, keyring: Keyring, ask: Ask
) -> None:
    """Log in by whatever the host accepts, as many steps as it wants.

    Raises LoginRefused; SSHException and EOFError when the connection breaks.
    """
    tried: list[str] = []
    allowed = _allowed(transport, host)
    while allowed:
        for way in ("publickey", "keyboard-interactive", "password"):
            if way in allowed:
                more = _WAYS[way](transport, host, keyring, ask, tried)
                if more is not None:
                    allowed = more
                    break
        else:
            raise LoginRefused(
                f"{host.name} lets nobody in like this. It accepts {', '.join(allowed)}; tried:"
                f" {', '.join(tried) or 'nothing, because there is no key and no agent'}."
                f" Try `ssh -l {host.user} {host.alias}` by hand."
            )


def _allowed(transport: paramiko.Transport, host: HostSettings) -> list[str]:
    """What the host accepts; nothing more when it asks for nothing."""
    try:
        transport.auth_none(host.user)
    except paramiko.BadAuthenticationType as refusal:
        return list(refusal.allowed_types)
    except paramiko.AuthenticationException as error:
        raise LoginRefused(f"{host.name} lets nobody in: {error}") from error
    return []


def _by_key(
    transport: paramiko.Transport, host: HostSettings, keyring: Keyring, ask: Ask, tried: list[str]
) -> list[str] | None:
    seen: set[bytes] = set()
    for name, key in _keys(host, keyring, ask):
        if key.asbytes() in seen:
            continue
        seen.add(key.asbytes())
        tried.append(name)
        try:
            return list(transport.auth_publickey(host.user, key))
        except paramiko.BadAuthenticationType:
            return None
        except paramiko.AuthenticationException:
            if not transport.is_active():  # too many keys for its taste
                break
    return None


def _keys(host: HostSettings, keyring: Keyring, ask: Ask) -> Iterator[tuple[str, paramiko.PKey]]:
    """Those that cost no question first."""
    own = {path: key for path in host.keys if (key := keyring.plain(path)) is not None}
    listed = {path.with_name(f"{path.name}.pub") for path in host.keys}
    wanted = {public for path in listed if (public := _public(path)) is not None}
    with _agent(host) as agent:
        for key in agent.get_keys() if agent is not None else ():
            if not host.only_these_keys or key.asbytes() in wanted:
                yield f"agent's {key.get_name()} {key.fingerprint}", key
        for path, opened in own.items():
            yield str(path), opened
        for path in host.keys:
            if path not in own and (unlocked := keyring.locked(path, ask)) is not None:
                yield str(path), unlocked


@contextmanager
def _agent(host: HostSettings) -> Iterator[paramiko.Agent | None]:
    where = host.agent or _AGENT_VARIABLE
    socket = os.environ.get(where.removeprefix("$"), None if where == _AGENT_VARIABLE else where)
    if where.lower() == "none" or not socket:
        yield None
        return
    before = os.environ.get(_AGENT_VARIABLE)
    # paramiko knows no other way to name an agent.
    os.environ[_AGENT_VARIABLE] = os.path.expanduser(socket)  # noqa: PTH111  paramiko reads text
    try:
        agent = paramiko.Agent()
    except paramiko.SSHException:
        yield None
        return
    finally:
        os.environ.pop(_AGENT_VARIABLE, None)
        if before is not None:
            os.environ[_AGENT_VARIABLE] = before
    try:
        yield agent
    finally:
        agent.close()


def _public(path: Path) -> bytes | None:
    import base64

    try:
        return base64.b64decode(path.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _by_answers(
    transport: paramiko.Transport, host: HostSettings, _: Keyring, ask: Ask, tried: list[str]
) -> list[str] | None:
    tried.append("keyboard-interactive")

    def answer(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        lead = " ".join(text.strip() for text in (title, instructions) if text.strip())
        return [ask(f"{host.name} {lead} {text.strip().rstrip(':')}") for text, _ in prompts]

    try:
        return list(transport.auth_interactive(host.user, answer))
    except paramiko.AuthenticationException:
        return None


def _by_password(
    transport: paramiko.Transport, host: HostSettings, _: Keyring, ask: Ask, tried: list[str]
) -> list[str] | None:
    tried.append("password")
    try:
        return list(
            transport.auth_password(host.user, ask(f"password of {host.name}"), fallback=False)
        )
    except paramiko.AuthenticationException:
        return None


_WAYS = {
    "publickey": _by_key,
    "keyboard-interactive": _by_answers,
    "password": _by_password,
}
