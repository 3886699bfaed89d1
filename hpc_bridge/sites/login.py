"""How a site's login side is reached from this machine, and who the user is there."""

from __future__ import annotations

import fnmatch
import getpass
import socket
from collections.abc import Iterable
from functools import lru_cache

from hpc_bridge.errors import CommandError, SiteError
from hpc_bridge.settings import load_settings, on_compute_node
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.user_part import UserPart
from hpc_bridge.transports.login import LOCAL, Login


def login_to(profile: SiteProfile, user: UserPart) -> Login:
    """What HPC_BRIDGE_TRANSPORT says, else the user's part, else the profile.

    LOCAL within a job, for the embedded scheduler, and, unless HPC_BRIDGE_TRANSPORT says otherwise,
    on a login node. Raises SiteError for SSH without a host.
    """
    if on_compute_node() or profile.scheduler.type == "local":
        return LOCAL
    part, forced = profile.login, load_settings().transport
    transport = forced or user.transport or part.transport
    if transport == "local":
        return LOCAL
    hosts = [host for host in (user.host, part.host) if host]
    if forced is None and is_this_machine((*hosts, *part.machines)):
        return LOCAL
    if not hosts:
        raise SiteError(
            f"site {profile.name} is to be reached by {transport}, but no login host is known: set"
            f" 'host' in your part of the site (hpc-bridge site show {profile.name} --mine), or"
            " login.host in its profile"
        )
    return Login(transport, hosts[0], user.user, user.master or part.master)


def is_this_machine(hosts: Iterable[str]) -> bool:
    """Whether one of these names or patterns is this machine's; no name server is asked."""
    return is_one_of(socket.gethostname(), hosts)


def is_one_of(machine: str, hosts: Iterable[str]) -> bool:
    """Whether one of these names or patterns is that of a machine, in a long or short form."""
    return any(_is_same(_plain(machine), _plain(host)) for host in hosts)


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _is_same(here: str, pattern: str) -> bool:
    if fnmatch.fnmatchcase(here, pattern):
        return True
    label, dot, _ = pattern.partition(".")
    # One of the two is short; the first label of '*.example.org' says nothing of a machine.
    if ("." in here) == bool(dot) or not label.strip("*?"):
        return False
    return fnmatch.fnmatchcase(here.partition(".")[0], label)


def name_on_cluster(login: Login) -> str:
    """The account there, by the user's part or SSH configuration; nothing is connected.

    The name on this machine where neither says one.
    """
    if login.user is not None:
        return login.user
    return getpass.getuser() if login.transport == "local" else _configured(login)[0]


def host_of(login: Login) -> str:
    """The login host by its own name, where the user's SSH configuration has another for it."""
    return _configured(login)[1]


def _configured(login: Login) -> tuple[str, str]:
    """User and host as the SSH configuration has them; what cannot be read says nothing.

    It is the first command there that tells what is wrong.
    """
    try:
        return _read(login)
    except (CommandError, ImportError, OSError):
        return getpass.getuser(), login.host or ""


@lru_cache(maxsize=32)
def _read(login: Login) -> tuple[str, str]:
    alias = login.host or ""
    if login.transport == "openssh":
        from hpc_bridge.transports.openssh import configured

        said = configured(alias)
        return said["user"], said["hostname"]
    from hpc_bridge.transports.ssh_config import UserConfig

    settings = UserConfig().host(alias)
    return settings.user, settings.hostname


def reached(profile: SiteProfile, user: UserPart) -> str:
    """How the cluster is reached from this machine, or why it is not, for people."""
    try:
        login = login_to(profile, user)
    except SiteError as error:
        return f"not reached: {error}"
    if login.transport == "local":
        return "commands run on this machine"
    reuses = login.transport == "openssh" and login.master == "reuse"
    kept = ", by the connection that you have opened" if reuses else ""
    return f"over SSH as {name_on_cluster(login)}@{login.host} ({login.transport}{kept})"
