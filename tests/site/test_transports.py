"""Commands over both SSH transports: from outside, against real sshd processes of the site."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from hpc_bridge.errors import (
    Unreachable,
)
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.ssh import SSHTransport
from tests.site.conftest import Site, side_by_side
from tests.site.sshd import MIB, Client, Sshd, ends_what_hangs, lose
from tests.waiting import until


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
        ends_what_hangs(there, site, "/tmp/pids-of-colleague")
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
    ends_what_hangs(there, site, f"{home}/pids")


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
    ends_what_hangs(there, site, f"{home}/pids")
    assert there.run(["true"], timeout=20).exit_code == 0
    assert server.logins <= 2


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
    lose(server, there)
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
