"""Both SSH transports and their faults: from outside, against real sshd processes of the site."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from hpc_bridge.errors import (
    CommandTimeout,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    NoSuchFile,
    TransferFailed,
    Unreachable,
)
from hpc_bridge.transports import logins
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.openssh import OpenSSHTransport
from hpc_bridge.transports.paramiko import ParamikoTransport
from hpc_bridge.transports.ssh import SSHTransport
from tests.conftest import SITE
from tests.site.conftest import Site, side_by_side
from tests.waiting import until

KINDS = ("paramiko", "openssh")
MIB = 2**20
_ports = itertools.count(20000 + os.getpid() % 400 * 100)


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


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
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


# commands


def test_a_command_is_what_it_is_on_this_machine(there: SSHTransport) -> None:
    script = r"printf 'caf\351 '; cat; echo why >&2; exit 3"
    done = there.run(["sh", "-c", script], stdin="ü".encode(), timeout=20)
    assert (done.exit_code, done.stdout, done.stderr) == (3, "caf\ufffd ü", "why\n")
    words = ["$HOME;", "*", "a\\b", "it's", "x!y", "two\nlines", "", "ü", "A=b"]
    echoed = there.run(["printf", "%s|", *words], timeout=20)
    assert echoed.stdout == "".join(f"{word}|" for word in words)
    assert there.run(["no-such-command", "x"], timeout=20).exit_code == 127
    assert there.run(["sh", "-c", "exit 255"], timeout=20).exit_code == 255
    assert there.run(["sh", "-c", "kill -9 $$"], timeout=20).exit_code == 137
    assert there.user() == "researcher"
    assert there.check() == []


def test_noise_of_the_login_shell_is_no_output(
    there: SSHTransport, site: Site, plain: Sshd, home: str
) -> None:
    usual = site.home() / ".bashrc"
    kept = usual.read_bytes()
    noise = b"printf 'Welcome \\351 \\0'; yes noise | head -n 9999; echo careful >&2\n"
    usual.write_bytes(noise + b"export SLURM_JOB_ID=7 SLURM_CONF=kept SQUEUE_FORMAT=x OTHER=1\n")
    try:
        done = there.run(["env"], timeout=20, unset=["SLURM_*", "SQUEUE_*"])
        there.put(Files(home, {"file": b"content"}))
        content = there.get(f"{home}/file")
    finally:
        usual.write_bytes(kept)
    assert done.stderr == ""
    assert "Welcome" not in done.stdout
    seen = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert seen & {"SLURM_JOB_ID", "SLURM_CONF", "SQUEUE_FORMAT", "OTHER"} == {
        "SLURM_CONF",
        "OTHER",
    }
    assert content == b"content"


@pytest.mark.parametrize("shell", ["tcsh", "fish", "zsh", "dash"])
def test_any_login_shell_will_do(
    client: Client, kind: str, site: Site, plain: Sshd, shell: str
) -> None:
    if site.run("sh", "-c", f"command -v {shell}").returncode != 0:
        pytest.skip(f"no {shell} on the site")
    before = site.shell("getent passwd colleague | cut -d: -f7")
    site.shell(f"usermod -s $(command -v {shell}) colleague", "root")
    try:
        there = client.connect(kind, client.knows(plain), user="colleague")
        words = ["it's", "x!y", "a\\'b\\\\c", "$HOME", "two\nlines", "`x`", "~", "{a,b}"]
        done = there.run(["printf", "%s|", *words], timeout=20, unset=["SLURM_*"])
        assert done.stdout == "".join(f"{word}|" for word in words)
        _ends_what_hangs(there, site, "/tmp/pids-of-colleague")
    finally:
        site.shell(f"usermod -s {before} colleague", "root")


def test_much_goes_in_and_comes_out(there: SSHTransport) -> None:
    data = os.urandom(64 * MIB)
    digest = there.run(["sha256sum"], stdin=data, timeout=60).stdout
    assert digest.split()[0] == hashlib.sha256(data).hexdigest()
    chunks = (data[start : start + MIB] for start in range(0, len(data), MIB))
    assert there.run(["wc", "-c"], stdin=chunks, timeout=60).stdout == f"{len(data)}\n"
    done = there.run(["head", "-c", str(64 * MIB), "/dev/zero"], timeout=60)
    assert (len(done.stdout), done.exit_code) == (64 * MIB, 0)
    # What the command does not read is no error.
    assert there.run(["head", "-c", "3"], stdin=b"abc" * MIB * 4, timeout=60).stdout == "abc"


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    there: SSHTransport, site: Site, home: str
) -> None:
    _ends_what_hangs(there, site, f"{home}/pids")


def _ends_what_hangs(there: SSHTransport, site: Site, pids: str) -> None:
    script = f"echo last words >&2; sleep 60 & echo $$ $! >{pids}; wait"
    with pytest.raises(CommandTimeout, match=r"no answer from .* within 1 s: sh -c") as caught:
        there.run(["sh", "-c", script], timeout=1)
    assert (caught.value.stderr, caught.value.retryable) == ("last words\n", True)
    gone = f"for p in $(cat {pids}); do [ -e /proc/$p ] && exit 1; done; true"
    until(lambda: site.run("sh", "-c", gone).returncode == 0, 10, "its processes have ended")
    site.run("rm", "-f", pids, user="root")


def test_many_threads_share_one_login(
    client: Client, kind: str, servers: Callable[..., Sshd]
) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    again = client.connect(kind, client.knows(server, name="the-same"))

    def work() -> None:
        for number in range(5):
            transport = (there, again)[number % 2]
            assert transport.run(["echo", str(number)], timeout=60).stdout == f"{number}\n"

    side_by_side(*[work] * 12)
    assert server.logins == 1
    assert len(client.tried) == 1


def test_an_end_of_input_never_follows_the_close_of_its_channel(
    client: Client, plain: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sshd ends the whole connection when something comes for a channel that it has forgotten.
    there = client.connect("paramiko", client.knows(plain))
    send, late = paramiko.Transport._send_user_message, []

    def sends(transport: Any, message: Any) -> None:
        content = message.asbytes()
        if content[:1] == paramiko.common.cMSG_CHANNEL_EOF:
            number = int.from_bytes(content[1:5], "big")
            (channel,) = (c for c in transport._channels.values() if c.remote_chanid == number)
            until(lambda: channel.closed, 10, "the other side has closed the channel")
            late.append(number)
        send(transport, message)

    monkeypatch.setattr(paramiko.Transport, "_send_user_message", sends)
    for _ in range(3):
        assert there.run(["echo", "done"], timeout=20).stdout == "done\n"
    assert len(late) == 3
    assert len(client.tried) == 1


def test_one_place_is_enough(
    client: Client, kind: str, servers: Callable[..., Sshd], site: Site, home: str
) -> None:
    server = servers("MaxSessions 1")
    there = client.connect(kind, client.knows(server))

    def work() -> None:
        for number in range(3):
            assert there.run(["echo", str(number)], timeout=60).stdout == f"{number}\n"

    side_by_side(*[work] * 12)
    assert server.logins == 1
    _ends_what_hangs(there, site, f"{home}/pids")
    assert there.run(["true"], timeout=20).exit_code == 0
    assert server.logins <= 2


# files


def test_trees_travel_both_ways(there: SSHTransport, home: str, tmp_path: Path, site: Site) -> None:
    source = tmp_path / "source"
    (source / "a folder").mkdir(parents=True)
    (source / "empty").mkdir()
    for number in range(200):
        (source / "a folder" / f"file '{number}' ü").write_bytes(os.urandom(4096))
    (source / "large").write_bytes(os.urandom(9 * MIB))
    (source / "program").write_text("#!/bin/sh\n")
    (source / "program").chmod(0o755)
    (source / "link").symlink_to("large")
    told: list[int] = []
    there.put_tree(source, f"{home}/there", progress=lambda done, _: told.append(done))
    assert told[-1] >= 9 * MIB
    modes = site.shell(f"cd {home}; stat -c %a there there/large there/program 'there/a folder'")
    assert modes.split() == ["700", "600", "700", "700"]
    there.get_tree(f"{home}/there", tmp_path / "back")
    assert subprocess.run(["diff", "-r", source, tmp_path / "back"]).returncode == 0
    assert (tmp_path / "back/link").readlink() == Path("large")
    with pytest.raises(TransferFailed, match="exists already"):
        there.put_tree(source, f"{home}/there")
    assert site.shell(f"ls -A {home}") == "there"


def test_files_travel_both_ways(there: SSHTransport, home: str, tmp_path: Path, site: Site) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(3 * MIB))
    there.put(Files(f"{home}/new/er", {"x": b"old", "sub/large": large}))
    there.put(Files(f"{home}/new/er", {"x": b"new"}))
    assert there.get(f"{home}/new/er/x") == b"new"
    there.get_file(f"{home}/new/er/sub/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert there.read_from(f"{home}/new/er/x", 1, 1) == b"e"
    assert there.read_from(f"{home}/new/er/x", 3, 100) == b""
    for read in (there.get, lambda path: there.read_from(path, 0, 1)):
        with pytest.raises(NoSuchFile, match=f"there is no {home}/none on researcher@"):
            read(f"{home}/none")
    with pytest.raises(FileNotFoundError):
        there.get_tree(f"{home}/none", tmp_path / "none")
    modes = site.shell(f"cd {home}; stat -c %a new new/er new/er/x; ls -A new/er")
    assert modes.split() == ["700", "700", "600", "sub", "x"]


def test_files_and_the_command_that_needs_them_are_one_command(
    there: SSHTransport, home: str, site: Site
) -> None:
    files = Files(f"{home}/run", {"job.sh": b"#!/bin/sh\n", "env": b"A=1\n"})
    script = b"x" * 100_000
    done = there.run(["sh", "-c", "wc -c; umask"], stdin=script, timeout=20, files=files)
    count, umask = done.stdout.split()
    assert (count, umask) == ("100000", "0022")
    assert site.shell(f"ls -A {home}/run").split() == ["env", "job.sh"]


def test_a_full_disk_takes_nothing_and_says_so(there: SSHTransport, site: Site) -> None:
    there.put(Files("/full/transports", {"x": b"old"}))
    try:
        argv = ["touch", "/tmp/was-run"]
        files = Files("/full/transports", {"x": b"new", "y": bytes(8 * MIB)})
        with pytest.raises(TransferFailed, match="No space left on device"):
            there.run(argv, timeout=60, files=files)
        assert site.run("ls", "/tmp/was-run").returncode != 0
        assert site.shell("ls -A /full/transports") == "x"
        assert there.get("/full/transports/x") == b"old"
    finally:
        site.run("rm", "-rf", "/full/transports")


# faults


def test_a_connection_that_breaks_between_commands_is_made_again(
    client: Client, kind: str, servers: Callable[..., Sshd]
) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    assert there.run(["echo", "1"], timeout=20).stdout == "1\n"
    _lose(server, there)
    assert there.run(["echo", "2"], timeout=20).stdout == "2\n"
    assert server.logins == 2


def test_a_connection_that_breaks_under_a_command_leaves_doubt(
    client: Client, kind: str, servers: Callable[..., Sshd], home: str
) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    killing = threading.Thread(target=_kill_when_there, args=(server, f"{home}/begun"))
    killing.start()
    with pytest.raises(ConnectionLost, match="is unknown: sh -c") as caught:
        there.run(["sh", "-c", f"touch {home}/begun; sleep 5"], timeout=20)
    killing.join()
    assert caught.value.retryable
    assert there.run(["echo", "2"], timeout=20).stdout == "2\n"
    assert server.logins == 2


def _lose(server: Sshd, there: SSHTransport) -> None:
    """Kill the sessions; a command in the very moment would be left in doubt."""
    server.kill_sessions()
    connection: Any = there.link._connection

    def is_noticed() -> bool:
        if isinstance(there, ParamikoTransport):
            return not connection.alive()
        return not Path(connection.path).exists()

    until(is_noticed, 10, "the loss is noticed")


def _kill_when_there(server: Sshd, path: str) -> None:
    until((SITE / f"root{path}").exists, 10, "the command has begun")
    server.kill_sessions()


def test_a_transfer_that_breaks_leaves_no_half_file(
    client: Client, kind: str, servers: Callable[..., Sshd], site: Site, home: str, tmp_path: Path
) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    there.put(Files(home, {"x": b"old"}))
    content = bytes(32 * MIB)

    def kill_half_way(done: int, _: int | None) -> None:
        if done > 12 * MIB:
            server.kill_sessions()

    with pytest.raises(ConnectionLost):
        there.put(Files(home, {"x": content}), progress=kill_half_way)
    until(lambda: site.shell(f"ls -A {home}") == "x", 10, "what was sent is removed")
    assert there.get(f"{home}/x") == b"old"
    there.put(Files(home, {"x": content}))
    with pytest.raises(ConnectionLost):
        there.get_file(f"{home}/x", tmp_path / "x", progress=kill_half_way)
    assert not [path for path in tmp_path.iterdir() if "x" in path.name]
    there.get_file(f"{home}/x", tmp_path / "x")
    assert (tmp_path / "x").stat().st_size == len(content)


def test_logins_have_a_budget(client: Client, kind: str, servers: Callable[..., Sshd]) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    for _ in range(logins.PER_MINUTE):
        there.run(["true"], timeout=20)
        _lose(server, there)
    with pytest.raises(Unreachable, match="sites ban those who do so more often") as caught:
        there.run(["true"], timeout=2)
    assert caught.value.retryable
    assert server.logins == logins.PER_MINUTE == len(client.tried)


def test_a_host_that_is_away_is_not_asked_again_and_again(
    client: Client, kind: str, servers: Callable[..., Sshd]
) -> None:
    server = servers()
    name = client.knows(server)
    server.stop()
    until(lambda: "terminating" in server.log, 10, "it has ended")
    there = client.connect(kind, name)
    for _ in range(3):
        with pytest.raises(Unreachable, match=r"(?i)refused"):
            there.run(["true"], timeout=2)
    assert len(client.tried) == 1
    assert "refused" in there.check()[0]


def test_only_some_commands_are_allowed(
    client: Client, kind: str, servers: Callable[..., Sshd]
) -> None:
    server = servers("ForceCommand echo only sbatch and squeue here; exit 1")
    there = client.connect(kind, client.knows(server))
    (said,) = there.check()
    assert "runs no commands of ours. It said: only sbatch and squeue here" in said
    assert "hpc-bridge runs `sh` there" in said
    assert "ForceCommand" in said


def test_through_a_jump_host(client: Client, kind: str, servers: Callable[..., Sshd]) -> None:
    jump, target = servers(), servers("AllowTcpForwarding no")
    first = client.knows(jump, name="jump")
    there = client.connect(kind, client.knows(target, f"ProxyJump {first}"))
    assert there.run(["echo", "there"], timeout=20).stdout == "there\n"
    assert (jump.logins, target.logins) == (1, 1)


def test_an_unknown_host_is_not_trusted(client: Client, kind: str, plain: Sshd) -> None:
    name = client.knows(plain, key="")
    with pytest.raises(HostKeyUnknown, match=f"`ssh .*{name}`") as caught:
        client.connect(kind, name).run(["true"], timeout=20)
    if kind == "paramiko":
        shown = _fingerprint((SITE / "known_hosts").read_text().split()[2])
        assert shown in str(caught.value)
        assert f"ssh-keyscan -p {plain.port} " in str(caught.value)


def test_a_changed_host_key_is_refused(
    client: Client, kind: str, plain: Sshd, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    other = (tmp_path / "other.pub").read_text().strip()
    name = client.knows(plain, key=other)
    before = plain.logins
    with pytest.raises(HostKeyChanged, match="ssh-keygen -R") as caught:
        client.connect(kind, name).run(["true"], timeout=20)
    assert _fingerprint((SITE / "known_hosts").read_text().split()[2]) in str(caught.value)
    if kind == "paramiko":
        assert _fingerprint(other.split()[1]) in str(caught.value)
    assert plain.logins == before


def _fingerprint(key: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=f"ssh-ed25519 {key}", capture_output=True, text=True
    )
    return done.stdout.split()[1]


def test_a_key_that_is_not_accepted(client: Client, kind: str, plain: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    name = client.knows(plain, f"IdentityFile {tmp_path / 'other'}")
    text = client.config.read_text().replace(f"  IdentityFile {SITE / 'id_ed25519'}\n", "")
    client.config.write_text(text)
    with pytest.raises(LoginRefused, match=r"(?s)publickey.*`ssh .*by hand") as caught:
        client.connect(kind, name).run(["true"], timeout=20)
    assert not caught.value.retryable


def test_a_key_with_a_passphrase_is_asked_for_once(
    client: Client, plain: Sshd, tmp_path: Path
) -> None:
    key = tmp_path / "locked"
    key.write_bytes((SITE / "id_ed25519").read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-qp", "-N", "open sesame", "-f", key], check=True)
    name = client.knows(plain)
    client.config.write_text(client.config.read_text().replace(str(SITE / "id_ed25519"), str(key)))
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "wrong" if len(asked) == 1 else "open sesame"

    there = client.connect("paramiko", name, ask=ask)
    there.run(["true"], timeout=20)
    there.link.close()
    there.run(["true"], timeout=20)
    assert asked == [f"passphrase of {key}"] * 2


def test_a_second_factor_is_asked_for_at_each_login(
    client: Client, servers: Callable[..., Sshd], site: Site
) -> None:
    site.shell("echo researcher:secret | chpasswd", "root")
    two = "AuthenticationMethods publickey,keyboard-interactive"
    server = servers("UsePAM yes", "KbdInteractiveAuthentication yes", two)
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "secret"

    there = client.connect("paramiko", client.knows(server), ask=ask)
    there.run(["true"], timeout=20)
    there.link.close()
    there.run(["true"], timeout=20)
    assert ["Password" in question for question in asked] == [True, True]
    assert server.logins == 2
    refused = client.connect("openssh", client.knows(server, "NumberOfPasswordPrompts 0", name="b"))
    with pytest.raises(LoginRefused, match=r"(?s)Permission denied.*use mode 'reuse'"):
        refused.run(["true"], timeout=20)


def test_a_password_is_enough_where_it_is(
    client: Client, servers: Callable[..., Sshd], site: Site
) -> None:
    site.shell("echo researcher:secret | chpasswd", "root")
    server = servers("PasswordAuthentication yes", "PubkeyAuthentication no")
    name = client.knows(server)
    there = client.connect("paramiko", name, ask=lambda _: "secret")
    assert there.run(["echo", "there"], timeout=20).stdout == "there\n"
    there.close()
    wrong = client.connect("paramiko", name, ask=lambda _: "wrong")
    with pytest.raises(LoginRefused, match="It accepts password; tried: password"):
        wrong.run(["true"], timeout=20)


def test_keys_of_an_agent(
    client: Client, kind: str, plain: Sshd, monkeypatch: pytest.MonkeyPatch, sockets: Path
) -> None:
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", sockets / "agent"], stdout=subprocess.DEVNULL
    )
    try:
        until((sockets / "agent").exists, 10, "the agent listens")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sockets / "agent"))
        subprocess.run(["ssh-add", "-q", SITE / "id_ed25519"], check=True)
        name = client.knows(plain)
        text = client.config.read_text().replace(f"  IdentityFile {SITE / 'id_ed25519'}\n", "")
        text = text.replace("  IdentityAgent none\n", "").replace("IdentitiesOnly yes", "")
        client.config.write_text(text)
        there = client.connect(kind, name)
        assert there.run(["echo", "there"], timeout=20).stdout == "there\n"
    finally:
        agent.terminate()
        agent.wait(10)


def test_a_proxy_command_leads_there(client: Client, plain: Sshd) -> None:
    """Of the openssh transport it is ssh's own."""
    first = client.knows(plain, name="first")
    proxy = f"ProxyCommand ssh -F {client.config} -W %h:%p {first}"
    there = client.connect("paramiko", client.knows(plain, proxy, "HostKeyAlias alias"))
    with client.known_hosts.open("a") as file:
        file.write(f"alias {(SITE / 'known_hosts').read_text().split(' ', 1)[1]}")
    assert there.run(["echo", "there"], timeout=20).stdout == "there\n"


def test_a_network_that_swallows_everything(
    client: Client, kind: str, servers: Callable[..., Sshd], site: Site
) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    there.run(["true"], timeout=20)
    processes = f"$(for m in $(ps -o pid= --ppid {server.pid}); do ps -o pid= --ppid $m; done)"
    site.shell(f"kill -STOP {processes}", "root")
    began = time.monotonic()
    with pytest.raises((CommandTimeout, Unreachable)):
        there.run(["true"], timeout=3)
    assert time.monotonic() - began < 20
    assert there.run(["echo", "again"], timeout=20).stdout == "again\n"


# the user's own master


def test_reuse_never_logs_in(client: Client, servers: Callable[..., Sshd], sockets: Path) -> None:
    server = servers("MaxSessions 2")
    with_path = client.knows(server, f"ControlPath {sockets}/%C", "ControlMaster auto")
    there = client.connect("openssh", with_path, mode="reuse")
    by_hand = ["ssh", "-F", str(client.config), "-fNM", with_path]
    with pytest.raises(Unreachable) as caught:
        there.run(["true"], timeout=20)
    assert f"run `{' '.join(by_hand)}`" in str(caught.value)
    assert server.logins == 0
    subprocess.run(by_hand, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    side_by_side(*[lambda: there.run(["echo", "there"], timeout=60)] * 8)
    _lose(server, there)
    with pytest.raises(Unreachable, match=r"no open connection to .*: run `ssh "):
        there.run(["true"], timeout=20)
    subprocess.run(by_hand, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert there.run(["echo", "again"], timeout=20).stdout == "again\n"
    assert server.logins == 2
    there.close()
    stop = [*by_hand[:3], "-O", "exit", with_path]
    assert subprocess.run(stop, capture_output=True).returncode == 0, "the user's own stays open"


def test_reuse_says_what_to_configure(client: Client, plain: Sshd) -> None:
    there = client.connect("openssh", client.knows(plain), mode="reuse")
    with pytest.raises(Unreachable, match="add `ControlPath"):
        there.run(["true"], timeout=20)


def test_our_own_master_ends_with_us(client: Client, servers: Callable[..., Sshd]) -> None:
    server = servers()
    there = client.connect("openssh", client.knows(server))
    there.run(["true"], timeout=20)
    there.close()
    until(lambda: "Disconnected from user" in server.log, 10, "the connection has ended")
    began = time.monotonic()
    there.run(["true"], timeout=20)
    assert time.monotonic() - began < 15
