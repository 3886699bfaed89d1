"""Where jobs are submitted: the login host of a Slurm test site, or this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).parent.parent
SITE_SCRIPTS = CHECKOUT / "tests" / "site"
_CANNOT_HOST = 3


class NoSite(Exception):
    """This machine cannot host a test site; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A scheduler and the way to run a program where its commands are."""

    scheduler: Literal["slurm", "local"]
    description: str
    shared: Path
    host: str
    """Under which jobs reach a server of this machine."""
    enter: tuple[str, ...] = ()

    def run(self, argv: list[str], api_url: str | None) -> str:
        """What ``argv``, run in the checkout, prints; its stderr passes through."""
        variables = {
            "PREFECT_API_URL": f"http://{self.host}:{urlsplit(api_url or '').port or 1}/api",
            "PREFECT_HOME": f"{self.shared}/prefect",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "HPC_BRIDGE_SCHEDULER": self.scheduler,
            "HPC_BRIDGE_SHARED_DIR": str(self.shared),
            "HPC_BRIDGE_CONFIG": f"{self.shared}/no-user-file.toml",
        }
        if self.enter:
            named = [word for item in variables.items() for word in ("--env", "=".join(item))]
            argv = [*self.enter, "--cd", str(CHECKOUT), *named, *argv]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "HPC_BRIDGE_"))
        }
        done = subprocess.run(
            argv, env=environment | variables, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout}\nbenchmarks: exit code {done.returncode} of {argv}")
        return done.stdout


@contextmanager
def this_machine() -> Iterator[Place]:
    """The embedded scheduler in a new folder."""
    with tempfile.TemporaryDirectory(prefix="hpc-bridge-benchmarks-") as folder:
        yield Place("local", "embedded scheduler", Path(folder) / "shared", "127.0.0.1")


@contextmanager
def test_site(folder: Path | None) -> Iterator[Place]:
    """The login host of the site in ``folder``, or of a new one that ends afterwards.

    Raises NoSite.
    """
    if folder is not None:
        yield _site_place(folder)
        return
    folder = CHECKOUT / "build" / "site-benchmarks"
    command = [SITE_SCRIPTS / "up", "--site", folder, "--python", sys.prefix]
    up = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if up.returncode == _CANNOT_HOST:
        raise NoSite(up.stdout.splitlines()[-1])
    if up.returncode != 0:
        raise SystemExit(f"{up.stdout}\nbenchmarks: the test site did not come up")
    try:
        yield _site_place(folder)
    finally:
        subprocess.run([SITE_SCRIPTS / "down", "--site", folder], check=True)


def _site_place(folder: Path) -> Place:
    settings = dict(line.split("=", 1) for line in (folder / "settings").read_text().splitlines())
    shared = Path("/shared") / f"benchmarks-{os.getpid()}"
    enter = (str(SITE_SCRIPTS / "enter"), "--site", str(folder))
    return Place(
        "slurm", f"test site, {settings['version']}", shared, f"10.77.{settings['net']}.254", enter
    )
