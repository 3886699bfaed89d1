"""Files over both SSH transports, to and from the site."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_bridge.errors import (
    ConnectionLost,
    NoSuchFile,
    TransferFailed,
)
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.ssh import SSHTransport
from tests.site.conftest import Site
from tests.site.sshd import MIB, Client, Sshd
from tests.waiting import until


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
