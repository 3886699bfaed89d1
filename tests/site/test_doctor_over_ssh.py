"""``hpc-bridge doctor``, ``queue`` and ``render`` on a laptop, for a real Slurm over SSH."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PORT
from tests.site.conftest import Site, side_by_side
from tests.site.sshd import Client, Sshd
from tests.waiting import HUNG

COMMAND = str(Path(sys.executable).with_name("hpc-bridge"))
PYTHON = Path(sys.executable).parents[1]
FORCED = 'ForceCommand sh -c "echo only Slurm commands here >&2; exit 1"'
NOISY = 'ForceCommand sh -c "echo Welcome; exec sh -c \\"\\$SSH_ORIGINAL_COMMAND\\""'
FLOW = """
from prefect import flow
from hpc_bridge import slurm

@slurm(site="far", partition="cpu")
@flow
def train(): ...
"""


@dataclass(frozen=True)
class Laptop:
    """A home on this machine whose SSH configuration knows hosts, and a profile of the site."""

    home: Path
    site: Site
    short: Path
    """For what needs a short path."""

    def run(self, host: str, *arguments: str, transport: str, master: str, **variables: str) -> Any:
        """The command of ours there; each time as if nobody had logged in before."""
        sites = Path(tempfile.mkdtemp(dir=self.home))
        profile = {
            "name": "far",
            "scheduler": {"type": "slurm"},
            "login": {"transport": transport, "host": host, "master": master},
            "environment": {"python": str(PYTHON)},
            "partitions": [{"name": "cpu"}, {"name": "gpu", "groups": ["somebody"]}],
        }
        (sites / "far.yaml").write_text(json.dumps(profile))
        environment = {
            "HOME": str(self.home),
            "TMPDIR": tempfile.mkdtemp(dir=self.short),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api",
            "HPC_BRIDGE_SITES": str(sites),
            "HPC_BRIDGE_API_URL": f"http://{self.site.address}:{PORT}/api",
        } | variables
        return subprocess.run(
            [COMMAND, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=HUNG,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # without a terminal that somebody could be asked on
        )

    def doctor(
        self,
        host: str,
        *arguments: str,
        transport: str = "paramiko",
        master: str = "manage",
        **variables: str,
    ) -> dict[str, dict[str, Any]]:
        """Findings by their step."""
        done = self.run(
            *(host, "doctor", "far", "--json", *arguments),
            transport=transport,
            master=master,
            **variables,
        )
        assert done.stdout, done.stderr
        return {finding["step"]: finding for finding in json.loads(done.stdout)}

    def the_only_red(self, host: str, **options: str) -> tuple[str, str, str]:
        """Step, message and advice, without a job."""
        found = self.doctor(host, "--no-job", **options)
        reds = [finding for finding in found.values() if finding["status"] == "red"]
        assert len(reds) == 1, found
        return reds[0]["step"], reds[0]["message"], reds[0]["advice"]


@pytest.fixture
def laptop(client: Client, site: Site, tmp_path: Path) -> Iterator[Laptop]:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / ".ssh").symlink_to(client.folder)
    ssh = home / "bin" / "ssh"  # which does not look at HOME
    ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {client.config} "$@"\n')
    ssh.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="lap-", dir="/tmp") as short:
        yield Laptop(home, site, Path(short))


def all_is_green(laptop: Laptop, host: str) -> None:
    found = laptop.doctor(host)
    statuses = {step: finding["status"] for step, finding in found.items()}
    assert statuses.pop("containers") == "skipped"  # the profile has none
    assert set(statuses.values()) == {"green"}, found
    is_connected(found, host, "paramiko")
    assert "/home/researcher/.hpc-bridge: a file went" in found["shared"]["message"]
    assert laptop.site.address in found["server-from-node"]["message"]
    assert f"logins to {host}: 1" in found["load"]["message"]


def a_connection_of_its_own(laptop: Laptop, host: str) -> None:
    found = laptop.doctor(host, "--no-job", transport="openssh")
    assert {finding["status"] for finding in found.values()} == {"green", "skipped"}, found
    is_connected(found, host, "openssh")


def is_connected(found: dict[str, dict[str, Any]], host: str, transport: str) -> None:
    message = found["transport"]["message"]
    assert message.startswith(transport)
    assert "as researcher" in message
    assert "logins: 1 of 6 a minute" in message
    assert found["shared-directory"]["title"] == f"shared directory, on {host}"
    assert "GiB free" in found["shared-directory"]["message"]


def the_users_own_connection(laptop: Laptop, host: str) -> None:
    ssh = str(laptop.home / "bin" / "ssh")
    reuse = {"transport": "openssh", "master": "reuse"}
    step, message, advice = laptop.the_only_red(host, **reuse)
    assert (step, message) == ("transport", f"no open connection to {host}")
    assert f"run `ssh -fNM {host}`" in advice
    subprocess.run([ssh, "-fNM", host], check=True)
    try:
        found = laptop.doctor(host, "--no-job", **reuse)
    finally:
        subprocess.run([ssh, "-O", "exit", host], check=True, stderr=subprocess.DEVNULL)
    assert found["transport"]["status"] == found["shared-directory"]["status"] == "green"
    assert "never logs in" in found["transport"]["message"]


def hosts_that_let_nobody_in(laptop: Laptop, hosts: dict[str, str]) -> None:
    words = {
        "unknown": ("is not known: ED25519 SHA256:", "accept it with `ssh "),
        "closed to us": ("lets nobody in like this", "ask the site which keys"),
        "nothing there": ("Connection refused", "host and port may be wrong"),
        "forced": ("It said: only Slurm commands here", "ask the site for an account or key"),
    }
    for name, (said, advised) in words.items():
        step, message, advice = laptop.the_only_red(hosts[name])
        assert step == "transport"
        assert said in message
        assert advised in advice
        assert "id -un" not in message + advice


def noise_is_only_worth_knowing_and_the_servers_address_is_not_this_machines(
    laptop: Laptop, host: str
) -> None:
    """It was set for this machine only, as a tunnel or a server on the laptop makes it."""
    found = laptop.doctor(host, "--no-job", HPC_BRIDGE_API_URL="")
    assert found["transport"]["status"] == "yellow"
    assert "print 'Welcome' before" in found["transport"]["message"]
    assert found["shared-directory"]["status"] == "green"
    assert found["server-from-node"]["status"] == "red"
    assert "PREFECT_API_URL is only used here" in found["server-from-node"]["message"]
    for own in ("127.0.0.1", "localhost", socket.gethostname()):
        assert own not in found["server-from-node"]["advice"]


def the_cluster_is_asked(laptop: Laptop, host: str) -> None:
    way = {"transport": "paramiko", "master": "manage"}
    answer = laptop.run(host, "queue", "far", "--json", **way)
    queues = {queue["name"]: queue for queue in json.loads(answer.stdout)["queues"]}
    assert queues["cpu"]["usable"]
    assert (queues["gpu"]["usable"], queues["gpu"]["because"]) == (
        False,
        "only for members of somebody",
    )
    (laptop.home / "flows.py").write_text(FLOW)
    script = laptop.run(host, "render", "flows.py:train", **way).stdout
    assert "#SBATCH --chdir=/home/researcher/.hpc-bridge/runs/hb" in script
    assert str(laptop.home) not in script


def a_path_that_needs_no_answer_needs_no_connection(laptop: Laptop, host: str) -> None:
    (laptop.home / "flow.py").write_text(FLOW)
    given = ("flow.py:train", "--set", "shared_dir=/gpfs/far")
    done = laptop.run(host, "render", *given, transport="paramiko", master="manage")
    assert "run_dir=/gpfs/far/runs/hb" in done.stdout, done.stderr


def test_a_cluster_is_examined_from_a_laptop(
    laptop: Laptop, client: Client, servers: Callable[..., Sshd], plain: Sshd, site: Site
) -> None:
    good = client.knows(plain, f"ControlPath {laptop.short}/cm-%C")
    refusing = servers("AuthorizedKeysFile none")
    forced, noisy = servers(FORCED), servers(NOISY)
    gone = servers()
    gone.stop()
    hosts = {
        "unknown": client.knows(plain, "UserKnownHostsFile /dev/null", name="unknown"),
        "closed to us": client.knows(refusing),
        "nothing there": client.knows(gone),
        "forced": client.knows(forced),
    }
    noisy_host = client.knows(noisy)
    side_by_side(
        partial(all_is_green, laptop, good),
        partial(a_connection_of_its_own, laptop, good),
        partial(the_users_own_connection, laptop, good),
        partial(hosts_that_let_nobody_in, laptop, hosts),
        partial(
            noise_is_only_worth_knowing_and_the_servers_address_is_not_this_machines,
            *(laptop, noisy_host),
        ),
        partial(the_cluster_is_asked, laptop, good),
        partial(a_path_that_needs_no_answer_needs_no_connection, laptop, hosts["nothing there"]),
    )
    assert site.shell("squeue --noheader") == ""
