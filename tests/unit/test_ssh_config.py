"""What is read of ~/.ssh without ssh: the configuration, the known hosts, the questions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import paramiko
import pytest

from hpc_bridge.errors import HostKeyChanged, HostKeyUnknown, LoginRefused
from hpc_bridge.transports import ssh_auth
from hpc_bridge.transports.known_hosts import KnownHosts
from hpc_bridge.transports.paramiko_login import Login
from hpc_bridge.transports.ssh_config import HostSettings, UserConfig


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's ~/.ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".ssh"
    folder.mkdir()
    return folder


def host(home: Path, text: str, name: str = "hpc", **options: object) -> HostSettings:
    (home / "config").write_text(text)
    return UserConfig().host(name, **options)  # type: ignore[arg-type]


def test_a_host_is_where_the_configuration_says(home: Path) -> None:
    (home / "key").touch()
    found = host(
        home,
        "Host hpc\n HostName login.site\n Port 2222\n User me\n IdentityFile ~/.ssh/key\n"
        " IdentityFile ~/.ssh/none\n IdentitiesOnly yes\n ProxyCommand none\n"
        "Host *\n User somebody\n ServerAliveInterval 7\n",
    )
    assert (found.name, found.known_as) == ("me@login.site:2222", "[login.site]:2222")
    assert (found.keys, found.only_these_keys) == ((home / "key",), True)
    assert (found.proxy_command, found.jumps, found.keepalive) == (None, (), 7)


def test_without_a_configuration_the_usual_keys_are_tried(home: Path) -> None:
    (home / "id_rsa").touch()
    found = UserConfig().host("me@login.site")
    assert (found.name, found.keys) == ("me@login.site:22", (home / "id_rsa",))


def test_what_the_caller_says_comes_first(home: Path) -> None:
    found = host(home, "Host hpc\n Port 1\n User a\n", user="b", port=2)
    assert (found.user, found.port) == ("b", 2)


def test_included_files_count(home: Path) -> None:
    (home / "conf.d").mkdir()
    (home / "conf.d" / "site").write_text("Host hpc\n HostName a.site\n")
    (home / "more").write_text("Host other\n HostName b.site\n")
    text = "Include conf.d/*\nInclude ~/.ssh/more\nPort 7\nHost hpc\n Include none\n User me\n"
    assert host(home, text).name == "me@a.site:7"
    assert host(home, text, "other").hostname == "b.site"


@pytest.mark.parametrize(
    ("text", "hops"),
    [
        ("Host hpc\n ProxyJump a,me@b:7\n", ["a:22", "b:7", "hpc:22"]),
        ("Host hpc\n ProxyJump a\nHost a\n ProxyJump b\n HostName a.site\n",
         ["b:22", "a.site:22", "hpc:22"]),
        ("Host hpc\n ProxyJump none\n", ["hpc:22"]),
    ],
)  # fmt: skip
def test_the_way_leads_over_all_jump_hosts(home: Path, text: str, hops: list[str]) -> None:
    found = host(home, text)
    login = Login(found, UserConfig(), ask=str)
    assert [f"{hop.hostname}:{hop.port}" for hop in login._hops(found, 0)] == hops


def test_jump_hosts_in_a_circle_are_refused(home: Path) -> None:
    found = host(home, "Host hpc\n ProxyJump a\nHost a\n ProxyJump hpc\n")
    with pytest.raises(LoginRefused, match="lead in a circle"):
        Login(found, UserConfig(), ask=str)._hops(found, 0)


def test_a_file_that_is_no_configuration(home: Path) -> None:
    with pytest.raises(LoginRefused, match="config cannot be read"):
        host(home, "banana\n")


# known hosts


def key(folder: Path, name: str, kind: str = "ed25519") -> tuple[paramiko.PKey, str]:
    """A public key as a host shows it, and as ``ssh-keygen -l`` tells it."""
    path = folder / name
    subprocess.run(["ssh-keygen", "-qt", kind, "-N", "", "-f", path], check=True)
    told = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True)
    return paramiko.PKey.from_path(path), told.stdout.split()[1]


def known(home: Path, text: str, port: int = 22) -> KnownHosts:
    (home / "known_hosts").write_text(text)
    return KnownHosts(host(home, "", "login.site", port=port))


def line(home: Path, name: str) -> str:
    return (home / f"{name}.pub").read_text()


def test_the_key_that_is_known_is_the_host(home: Path) -> None:
    shown, _ = key(home, "a")
    known(home, f"other,login.site {line(home, 'a')}").check(shown)
    known(home, f"[login.site]:7 {line(home, 'a')}", port=7).check(shown)
    hashed = f"login.site {line(home, 'a')}"
    (home / "known_hosts").write_text(hashed)
    subprocess.run(["ssh-keygen", "-qHf", home / "known_hosts"], check=True, capture_output=True)
    KnownHosts(host(home, "", "login.site")).check(shown)


def test_another_key_of_the_same_kind_is_a_change(home: Path) -> None:
    (shown, print_shown), (_, print_known) = key(home, "a"), key(home, "b")
    with pytest.raises(HostKeyChanged) as caught:
        known(home, f"login.site {line(home, 'b')}").check(shown)
    said = str(caught.value)
    assert f"shown ED25519 {print_shown}" in said
    assert f"known ED25519 {print_known}" in said
    assert "ssh-keygen -R 'login.site'" in said


def test_no_key_is_not_trusted(home: Path) -> None:
    shown, print_shown = key(home, "a")
    with pytest.raises(HostKeyUnknown) as caught:
        known(home, "", port=7).check(shown)
    said = str(caught.value)
    assert f"ED25519 {print_shown}" in said
    assert "`ssh-keyscan -p 7 login.site >> ~/.ssh/known_hosts`" in said


def test_the_host_is_asked_for_the_kind_that_is_known(home: Path) -> None:
    key(home, "a", "rsa")
    kinds = known(home, f"login.site {line(home, 'a')}").first_wanted(
        ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")
    )
    assert kinds == ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]


# questions


def test_nobody_is_asked_without_a_terminal() -> None:
    program = (
        "from hpc_bridge.transports.ssh_auth import ask_on_terminal\n"
        "from hpc_bridge.errors import LoginRefused\n"
        "try: ask_on_terminal('password of me@host')\n"
        "except LoginRefused as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
    )
    assert done.stdout.startswith("password of me@host was asked for, and there is no terminal")


def test_a_passphrase_is_asked_for_again_when_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "right", "-f", path], check=True)
    keyring, answers = ssh_auth.Keyring(), iter(["wrong", "right"])
    assert keyring.plain(path) is None
    assert keyring.locked(path, lambda _: next(answers)) is not None
    assert keyring.plain(path) is not None
    with pytest.raises(LoginRefused, match="not opened by any of 3 passphrases"):
        ssh_auth.Keyring().locked(path, lambda _: "wrong")


def test_what_is_no_key_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("banana")
    keyring = ssh_auth.Keyring()
    assert keyring.plain(path) is None
    assert keyring.locked(path, lambda _: pytest.fail("asked")) is None
