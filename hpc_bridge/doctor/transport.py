"""The connection over which commands run on the login side."""

from __future__ import annotations

import platform
import secrets
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_bridge.doctor.findings import Verdict, green, one_line, red, worst, yellow
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import CommandError, CommandTimeout, LoginRefused, Unreachable
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.login import LOCAL, Login, transport_to
from hpc_bridge.transports.logins import PER_HOUR, PER_MINUTE, used_logins
from hpc_bridge.transports.remote_shell import Exchange
from hpc_bridge.transports.ssh import SSHTransport

_SECONDS = 60.0
_TIMED = 5
_MOST_NOISE = 80
_NEARLY = 0.8


@dataclass(frozen=True, slots=True)
class Connected:
    """What a connection is like that has been made."""

    name: str
    """user@host:port"""
    user: str
    """As the other side says."""
    missing: Sequence[str]
    """Commands without which files do not travel, in sentences."""
    noise: str
    """What start-up files print before a command's own output."""
    seconds: float
    """For a command that does nothing."""
    logins: tuple[int, int]
    """In the last minute and the last hour, of all processes of this user."""


def check_transport(subject: Subject) -> Verdict:
    """Whether commands run on the login side, wherever that is."""
    login = subject.login
    try:
        transport = transport_to(login)
    except CommandError as error:
        if isinstance(error.__cause__, ImportError):
            return red(str(error), "pip install 'hpc-bridge[ssh]', or use the openssh transport")
        return judge_refusal(error, login)
    if not isinstance(transport, SSHTransport):
        user = transport.user()
        return green(f"commands run on this machine, {platform.node()}, as {user}")
    try:
        return judge_connected(_connected(transport), login)
    except CommandError as error:
        return judge_refusal(error, login)


def _connected(transport: SSHTransport) -> Connected:
    user = transport.user()
    missing = transport.check()
    exchange = Exchange("true", secrets.token_hex(8))
    transport.link.carry(exchange, Deadline(total=_SECONDS))
    return Connected(
        transport.link.name,
        user,
        missing,
        exchange.noise.decode(errors="replace").strip(),
        statistics.median(_time_of_a_command(transport) for _ in range(_TIMED)),
        used_logins(transport.place),
    )


def recent_logins(login: Login) -> int:
    """Those to that host in the last hour, of all processes of this user on this machine."""
    transport = transport_to(login)
    return used_logins(transport.place)[1] if isinstance(transport, SSHTransport) else 0


def _time_of_a_command(transport: SSHTransport) -> float:
    began = time.monotonic()
    transport.run(["true"], timeout=_SECONDS)
    return time.monotonic() - began


def judge_refusal(error: CommandError, login: Login) -> Verdict:
    """The verdict on a connection that is not made: its own words, the last of them as advice."""
    said = str(error)
    if error.command:
        said = said.removesuffix(f": {' '.join(error.command)}")
    # ssh frames what is important in rows of @.
    lines = [line for one in said.splitlines() if (line := one.strip("@ \t"))]
    if len(lines) > 1:
        return red(one_line(CommandError("\n".join(lines[:-1]))), lines[-1])
    if isinstance(error, Unreachable) and is_reused(login):
        message, _, advice = said.partition(": ")
        return red(message, advice or said)
    if isinstance(error, LoginRefused):
        advice = f"`ssh -v {login.host}` shows what is offered; ask the site which keys it takes"
    elif isinstance(error, Unreachable | CommandTimeout):
        advice = (
            f"try `ssh {login.host}` by hand: host and port may be wrong, or a VPN be needed; they"
            " are in your part of the site, ~/.ssh/config and the profile's login.host"
        )
    else:
        advice = "do as it says, then run hpc-bridge doctor again"
    return red(said, advice)


def judge_connected(found: Connected, login: Login) -> Verdict:
    """The verdict on a connection that is there."""
    if found.missing:
        return red(
            "; ".join(found.missing),
            f"ask the site to install it on {login.host}, or name another login host",
        )
    verdicts = [
        green(
            f"{way(login)} to {found.name} as {found.user}; {_host_key(login)};"
            f" {found.seconds * 1000:.0f} ms a command"
        )
    ]
    if found.noise:
        first = found.noise.splitlines()[0][:_MOST_NOISE]
        verdicts.append(
            yellow(
                f"start-up files there print {first!r} before every command, which hpc-bridge"
                " leaves out",
                f"let your start-up files on {login.host} print only for people: [ -t 1 ] && echo"
                " ...",
            )
        )
    return worst([*verdicts, judge_logins(found.logins, login)])


def judge_logins(used: tuple[int, int], login: Login) -> Verdict:
    """The verdict on the budget of logins."""
    if is_reused(login):
        return green("hpc-bridge never logs in by itself (reuse)")
    minute, hour = used
    message = f"logins: {minute} of {PER_MINUTE} a minute, {hour} of {PER_HOUR} an hour"
    if minute < PER_MINUTE and hour < PER_HOUR * _NEARLY:
        return green(message)
    return yellow(
        message,
        "more than that have to wait; each process logs in once: start fewer of them, or open one"
        f" connection for all with `ssh -fNM {login.host}` and the openssh transport (master:"
        " reuse)",
    )


def way(login: Login) -> str:
    """How, in words, and who else uses the connection."""
    if login == LOCAL:
        return "on this machine"
    if login.transport == "paramiko":
        return "paramiko, one login shared by all of this process,"
    if is_reused(login):
        return "openssh, over the connection that you have opened,"
    return "openssh, over a connection of this process's own,"


def _host_key(login: Login) -> str:
    if login.transport == "paramiko":
        return "its host key is known"
    return "its host key was checked as your SSH configuration says"


def is_reused(login: Login) -> bool:
    """Whether the connection is the user's own."""
    return login.transport == "openssh" and login.master == "reuse"
