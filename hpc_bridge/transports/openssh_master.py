"""Masters of OpenSSH: the user's own, which is only used, and ours, which is opened and kept."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hpc_bridge.errors import (
    CommandError,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    Unreachable,
)
from hpc_bridge.machine_files import machine_folder
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.link import Connection
from hpc_bridge.transports.logins import Logins, OnLogin
from hpc_bridge.transports.openssh_client import MasterConnection

# A socket's path may have 104 bytes on some systems, and ssh first makes one 17 bytes longer.
_LONGEST_FOLDER = 70
_CHECK_SECONDS = 10.0
_LOGIN_SECONDS, _TYPING_SECONDS = 90.0, 300.0
# Without a process of ours, which would have closed it, a master ends itself.
_IDLE_SECONDS = 600
_KEEPALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3")
_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_UNKNOWN = "Host key verification failed"
_REFUSED = ("Permission denied", "Too many authentication failures")


@dataclass(frozen=True, slots=True)
class Destination:
    """A host as the user would name it to ssh."""

    program: str
    options: tuple[str, ...]
    host: str

    def argv(self, *more: str) -> list[str]:
        """The command with further options."""
        return [self.program, *self.options, *more, "--", self.host]

    def words(self, *more: str) -> str:
        """For people to type."""
        return " ".join([self.program, *self.options, *more, self.host])


def users_master(destination: Destination, path: str | None) -> Connection:
    """The master at the user's own ControlPath. Raises Unreachable; never logs in."""
    if path is None:
        raise Unreachable(
            f"ssh keeps no connection to {destination.host} that could be used: add"
            f" `ControlPath ~/.ssh/cm-%C` to the part of this host in ~/.ssh/config, then run"
            f" `{destination.words('-fNM')}`"
        )
    connection = MasterConnection(destination.argv, path)
    if not connection.answers(_CHECK_SECONDS):
        raise Unreachable(
            f"no open connection to {destination.host}: run `{destination.words('-fNM')}`, log in"
            " there, and leave it open. hpc-bridge does not log in by itself in mode 'reuse'."
        )
    return connection


class OwnMaster:
    """Opens masters, one after the other, within the budget of logins."""

    def __init__(
        self, destination: Destination, logins: Logins, on_login: OnLogin | None = None
    ) -> None:
        self._destination = destination
        self._logins = logins
        self._on_login = on_login
        self._asked = False

    def connect(self, deadline: Deadline) -> Connection:
        """A new one. Raises Unreachable, LoginRefused, HostKeyUnknown, HostKeyChanged."""
        self._logins.wait_for_turn(deadline)
        if self._on_login is not None:
            self._on_login(self._destination.host)
        folder = _socket_folder()
        try:
            self._open(folder / "m")
        except CommandError as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._logins.failed(error)
            raise
        self._logins.succeeded()
        return _OwnConnection(self._destination, folder / "m")

    def _open(self, path: Path) -> None:
        # Host keys are checked as the user's configuration says; without a terminal to ask on,
        # ssh refuses those that it does not know.
        batch = "no" if _terminal() and not self._asked else "yes"
        self._asked = True
        command = self._destination.argv(
            *("-f", "-N", "-M", "-T", "-x", "-a", "-S", str(path)),
            *("-o", f"ControlPersist={_IDLE_SECONDS}", "-o", f"BatchMode={batch}"),
            *("-o", "ConnectTimeout=30", "-o", "ClearAllForwardings=yes"),
            *("-o", "PermitLocalCommand=no", *_KEEPALIVE),
        )
        seconds = _LOGIN_SECONDS if batch == "yes" else _TYPING_SECONDS
        # A file, because the master keeps it open when it goes to the background.
        with tempfile.TemporaryFile() as said:
            try:
                code = subprocess.run(
                    command,
                    stdin=None if batch == "no" else subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    timeout=seconds,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise Unreachable(
                    f"{self._destination.host} lets nobody in within {seconds:.0f} s",
                    command=command,
                ) from None
            said.seek(0)
            words = said.read().decode(errors="replace")
        if code != 0:
            raise self._refusal(words, command, code)

    def _refusal(self, said: str, command: list[str], code: int) -> CommandError:
        host, by_hand = self._destination.host, self._destination.words()
        kind: type[LoginRefused] | type[Unreachable] = Unreachable
        advice = ""
        if _CHANGED in said:
            kind = HostKeyChanged
            advice = (
                "\nAsk the site whether its key was changed; if so, remove the old one with"
                " `ssh-keygen -R`, and accept the new one by"
                f" running `{by_hand}` once."
            )
        elif _UNKNOWN in said:
            kind = HostKeyUnknown
            advice = f"\nRun `{by_hand}` once, compare the fingerprint with the site's, and accept."
        elif any(words in said for words in _REFUSED):
            kind = LoginRefused
            advice = (
                f"\nTry `{by_hand}` by hand. Where that asks for a password or a code, open the"
                f" connection yourself with `{self._destination.words('-fNM')}` and use mode"
                " 'reuse'."
            )
        words = said.strip()[-1500:] or f"ssh ended with exit code {code}"
        return kind(
            f"no login to {host}: {words}{advice}", command=command, exit_code=code, stderr=said
        )


class _OwnConnection(MasterConnection):
    """A master in a private folder, which goes with it."""

    def __init__(self, destination: Destination, path: Path) -> None:
        super().__init__(destination.argv, str(path))
        self._folder = path.parent
        self._owner = os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        atexit.unregister(self.close)
        if os.getpid() != self._owner:
            return
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            self.control("exit", _CHECK_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


def _socket_folder() -> Path:
    """A new one, 0700, with a short path; those that dead processes left are removed."""
    parent = machine_folder()
    if len(os.fsencode(parent)) > _LONGEST_FOLDER - 20:
        return Path(tempfile.mkdtemp(prefix="hpcb", dir="/tmp"))
    for left in parent.glob("m*-*"):
        number = left.name[1:].partition("-")[0]
        if number.isdigit() and not _runs(int(number)) and _is_old(left):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"m{os.getpid()}-", dir=parent))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_old(folder: Path) -> bool:
    """Whether a master without a client has ended by now."""
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > 2 * _IDLE_SECONDS
    return False


def _terminal() -> bool:
    """Whether ssh could ask somebody."""
    try:
        with Path("/dev/tty").open():
            return os.isatty(0)
    except OSError:
        return False
