"""sshd processes of the site and people who reach them from outside: the transports' fixtures."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpc_bridge.errors import CommandTimeout
from hpc_bridge.transports import logins
from hpc_bridge.transports.openssh import OpenSSHTransport
from hpc_bridge.transports.paramiko import ParamikoTransport
from hpc_bridge.transports.ssh import SSHTransport
from tests.conftest import SITE
from tests.waiting import until

if TYPE_CHECKING:
    from tests.site.conftest import Site

KINDS = ("paramiko", "openssh")
MIB = 2**20
# Below those that the kernel gives to connections: sshd would then listen for IPv6 alone.
_ports = itertools.count(20000 + os.getpid() % 120 * 100)


class Sshd:
    """One more sshd on the login host, with a configuration and a log of its own."""

    def __init__(self, site: Site, *lines: str, sftp: bool = True) -> None:
        """``lines`` come first, and so win over the site's own."""
        self.site = site
        self.address = f"{site.address.rpartition('.')[0]}.1"
        self.port = next(_ports)
        self.name = f"sshd-{self.port}"
        usual = (SITE / "root/etc/site/sshd_config").read_text().splitlines()
        left_out = ("Port ", "PidFile ", *(() if sftp else ("Subsystem ",)))
        kept = [line for line in usual if not line.startswith(left_out)]
        folder = SITE / "root/etc/site"
        (folder / self.name).write_text("\n".join([f"Port {self.port}", *lines, *kept]) + "\n")
        command = f"setsid /usr/sbin/sshd -D -E /var/log/slurm/{self.name}.log"
        self.pid = site.shell(
            f"{command} -f /etc/site/{self.name} </dev/null >/dev/null 2>&1 & echo $!", "root"
        )
        until(lambda: "listening" in self.log, 10, "sshd listens")

    @property
    def log(self) -> str:
        """What it has written."""
        path = SITE / f"root/var/log/slurm/{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def logins(self) -> int:
        """How often somebody was let in."""
        return self.log.count("Accepted ")

    def kill_sessions(self) -> None:
        """As a crash of the login host would: both processes of each login, not its commands."""
        self.site.shell(
            f"for m in $(ps -o pid= --ppid {self.pid}); do"
            " kill -9 $(ps -o pid= --ppid $m) $m; done",
            "root",
        )

    def stop(self) -> None:
        """The process that listens; sessions live on."""
        self.site.run("kill", self.pid, user="root")


class Client:
    """A user's own ~/.ssh elsewhere: a configuration that knows the site and its servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config"
        self.known_hosts = folder / "known_hosts"
        self.transports: list[SSHTransport] = []
        self.tried: list[str] = []
        folder.mkdir(mode=0o700)
        self.known_hosts.touch()
        self.config.write_text("")

    def knows(self, server: Sshd, *lines: str, name: str = "", key: str | None = None) -> str:
        """Name the server in the configuration, and its host key unless another is given."""
        name = name or f"{self.folder.name}-{server.port}"
        address = f"[{server.address}]:{server.port}"
        shown = (SITE / "known_hosts").read_text().split(" ", 1)[1]
        with self.known_hosts.open("a") as file:
            file.write(f"{address} {shown if key is None else key}\n" if key != "" else "")
        options = [
            *lines,
            f"HostName {server.address}",
            f"Port {server.port}",
            "User researcher",
            f"IdentityFile {SITE / 'id_ed25519'}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
        ]
        with self.config.open("a") as file:
            file.write("\n  ".join([f"Host {name}", *options]) + "\n")
        return name

    def connect(self, kind: str, name: str, **options: Any) -> SSHTransport:
        """A transport, closed at the end of the test."""
        options = {"config": str(self.config), "on_login": self.tried.append} | options
        transport: SSHTransport
        if kind == "paramiko":
            transport = ParamikoTransport(name, **options)
        else:
            transport = OpenSSHTransport(name, **{"mode": "manage"} | options)
        self.transports.append(transport)
        return transport


@pytest.fixture(scope="module")
def servers(site: Site) -> Iterator[Callable[..., Sshd]]:
    """Starts servers, which end with the module."""
    started: list[Sshd] = []

    def start(*lines: str, **options: Any) -> Sshd:
        started.append(Sshd(site, *lines, **options))
        return started[-1]

    yield start
    for server in started:
        server.kill_sessions()
        server.stop()


@pytest.fixture(scope="module")
def plain(servers: Callable[..., Sshd]) -> Sshd:
    """A server like the site's own, without SFTP, with a banner and few places."""
    banner = SITE / "root/etc/site/banner"
    banner.write_text("*** Authorised users only ***\n" * 20)
    return servers("Banner /etc/site/banner", sftp=False)


@pytest.fixture(name="client")
def client_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    # A budget of its own for each test.
    monkeypatch.setattr(logins, "machine_folder", lambda: tmp_path)
    client = Client(tmp_path / "ssh")
    yield client
    for transport in client.transports:
        transport.close()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a path that is short enough."""
    with tempfile.TemporaryDirectory(prefix="cm-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def there(client: Client, kind: str, plain: Sshd) -> SSHTransport:
    """A transport to a healthy host."""
    return client.connect(kind, client.knows(plain))


@pytest.fixture
def home(site: Site) -> Iterator[str]:
    """An empty folder of the researcher's."""
    folder = "/home/researcher/transports"
    site.shell(f"rm -rf {folder}; mkdir {folder}")
    yield folder
    site.run("rm", "-rf", folder)


# helpers


def ends_what_hangs(there: SSHTransport, site: Site, pids: str) -> None:
    script = f"echo last words >&2; sleep 60 & echo $$ $! >{pids}; wait"
    with pytest.raises(CommandTimeout, match=r"no answer from .* within 1 s: sh -c") as caught:
        there.run(["sh", "-c", script], timeout=1)
    assert (caught.value.stderr, caught.value.retryable) == ("last words\n", True)
    gone = f"for p in $(cat {pids}); do [ -e /proc/$p ] && exit 1; done; true"
    until(lambda: site.run("sh", "-c", gone).returncode == 0, 10, "its processes have ended")
    site.run("rm", "-f", pids, user="root")


def lose(server: Sshd, there: SSHTransport) -> None:
    """Kill the sessions; a command in the very moment would be left in doubt."""
    server.kill_sessions()
    connection: Any = there.link._connection

    def is_noticed() -> bool:
        if isinstance(there, ParamikoTransport):
            return not connection.alive()
        return not Path(connection.path).exists()

    until(is_noticed, 10, "the loss is noticed")


def kill_when_there(server: Sshd, path: str) -> None:
    until((SITE / f"root{path}").exists, 10, "the command has begun")
    server.kill_sessions()
