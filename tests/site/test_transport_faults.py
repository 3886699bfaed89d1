"""Faults of connections and logins, over both SSH transports and on real sshd processes."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_bridge.errors import (
    CommandTimeout,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    Unreachable,
)
from hpc_bridge.transports import logins
from tests.conftest import SITE
from tests.site.conftest import Site
from tests.site.sshd import Client, Sshd, kill_when_there, lose
from tests.waiting import until


def test_a_connection_that_breaks_between_commands_is_made_again(
    client: Client, kind: str, servers: Callable[..., Sshd]
) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    assert there.run(["echo", "1"], timeout=20).stdout == "1\n"
    lose(server, there)
    assert there.run(["echo", "2"], timeout=20).stdout == "2\n"
    assert server.logins == 2


def test_a_connection_that_breaks_under_a_command_leaves_doubt(
    client: Client, kind: str, servers: Callable[..., Sshd], home: str
) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    killing = threading.Thread(target=kill_when_there, args=(server, f"{home}/begun"))
    killing.start()
    with pytest.raises(ConnectionLost, match="is unknown: sh -c") as caught:
        there.run(["sh", "-c", f"touch {home}/begun; sleep 5"], timeout=20)
    killing.join()
    assert caught.value.retryable
    assert there.run(["echo", "2"], timeout=20).stdout == "2\n"
    assert server.logins == 2


def test_logins_have_a_budget(client: Client, kind: str, servers: Callable[..., Sshd]) -> None:
    server = servers()
    there = client.connect(kind, client.knows(server))
    for _ in range(logins.PER_MINUTE):
        there.run(["true"], timeout=20)
        lose(server, there)
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
