"""A laptop: this machine, which is outside of the site and reaches it by SSH only."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import PORT, ROOT, SITE
from tests.site.conftest import Site

KEY = "pnu_laptopmarkerkey0123456789"
PROFILE = "own-profile-of-the-laptop"
MARKER = "leaked-from-the-laptop"
HOST = "the-site"
COMMAND = str(Path(sys.executable).with_name("hpc-bridge"))


@dataclass(frozen=True)
class Laptop(Site):
    """A home on this machine, with an SSH configuration, a Prefect profile and a site profile.

    What ``Site`` does on the login host happens here.
    """

    transport: str = "paramiko"
    folder: Path = field(default_factory=Path)

    @property
    def name(self) -> str:
        """Of the site's profile, and so of the pool."""
        return f"by-{self.transport}"

    @property
    def pool(self) -> str:
        """The researcher's own."""
        return f"{self.name}-researcher"

    @property
    def text_of_profile(self) -> str:
        """The site's, as it lies here."""
        return (self.home() / f"sites/{self.name}.yaml").read_text()

    @property
    def url(self) -> str:
        """The server's address as it is good for this machine only."""
        return f"http://127.0.0.1:{PORT}/api"

    def home(self, user: str = "researcher") -> Path:
        assert user == "researcher"
        return self.folder / "home"

    def put(self, name: str, text: str, user: str = "researcher") -> Path:
        path = self.home(user) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def _enter(self, argv: Sequence[str], user: str, variables: dict[str, str]) -> list[str]:
        home = self.home(user)
        settings = {
            "HOME": str(home),
            "TMPDIR": str(self.folder / "tmp"),
            "PATH": f"{home}/bin:{Path(sys.executable).parent}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HPC_BRIDGE_SITES": str(home / "sites"),
            "HPC_BRIDGE_POLL_INTERVAL": "1",
            "MARKER": MARKER,
        } | variables
        return ["env", "-i", "-C", str(home), *map("=".join, settings.items()), *argv]

    def cases(self, *names: str, **variables: str) -> dict[str, dict[str, Any]]:
        """Cases of tests/flows/jobs.py, one after the other in one process."""
        done = self.python("jobs.py", *names, timeout=400, **variables)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
        assert [answer["case"] for answer in answers] == list(names), done.stderr
        return {answer["case"]: answer for answer in answers}

    def profile(self, folder: str = "sites", **parts: Any) -> str:
        """Write the site's profile, without the parts that are None; returns its folder."""
        profile = {
            "name": self.name,
            "scheduler": {"type": "slurm"},
            "login": {"transport": self.transport, "host": HOST, "machines": ["login"]},
            "environment": {"python": sys.prefix},
            "network": {"api_url": f"http://{self.address}:{PORT}/api"},
        } | parts
        given = {name: part for name, part in profile.items() if part is not None}
        return str(self.put(f"{folder}/{self.name}.yaml", json.dumps(given)).parent)


@contextmanager
def laptop_outside(site: Site, transport: str) -> Iterator[Laptop]:
    """One that has just been bought."""
    # A short path, for the sockets of ssh.
    folder = Path(tempfile.mkdtemp(prefix="lap-", dir="/tmp"))
    laptop = Laptop(site.address, transport, folder)
    try:
        _set_up(laptop)
        yield laptop
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _set_up(laptop: Laptop) -> None:
    home, host = laptop.home(), f"{laptop.address.rpartition('.')[0]}.1"
    for name in ("id_ed25519", "known_hosts"):
        laptop.put(f".ssh/{name}", (SITE / name).read_text()).chmod(0o600)
    lines = [
        f"Host {HOST}",
        f"HostName {host}",
        "User researcher",
        f"IdentityFile {home}/.ssh/id_ed25519",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f"UserKnownHostsFile {home}/.ssh/known_hosts",
        "GlobalKnownHostsFile /dev/null",
        f"ControlPath {home}/.ssh/cm-%C",
    ]
    config = laptop.put(".ssh/config", "\n  ".join(lines) + "\n")
    # It looks into the account's home, not into HOME.
    ssh = laptop.put("bin/ssh", f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
    ssh.chmod(0o755)
    settings = {"PREFECT_API_URL": laptop.url, "PREFECT_API_KEY": KEY}
    values = [f'{name} = "{value}"' for name, value in settings.items()]
    laptop.put(
        ".prefect/profiles.toml",
        "\n".join([f'active = "{PROFILE}"', f"[profiles.{PROFILE}]", *values]) + "\n",
    )
    laptop.put("jobs.py", (ROOT / "tests/flows/jobs.py").read_text())
    laptop.profile()
    # People do not start so many scripts a minute: here the budget of logins is never used up.
    machine = laptop.folder / "tmp" / f"hpc-bridge-{os.getuid()}"
    machine.mkdir(mode=0o700, parents=True)
    (machine / f"logins-{host}-22.json").symlink_to(os.devnull)
