"""Where jobs are submitted: the login host of a Slurm test site, or this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
    ssh_config: Path | None = None
    """Names the login host ``login``, for whoever comes from outside."""

    def run(self, argv: list[str], api_url: str | None) -> str:
        """What ``argv``, run in the checkout, prints; its stderr passes through."""
        variables = {
            "PREFECT_API_URL": f"http://{self.host}:{urlsplit(api_url or '').port or 1}/api",
            "PREFECT_HOME": f"{self.shared}-prefect",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "HPC_BRIDGE_SCHEDULER": self.scheduler,
            "HPC_BRIDGE_SHARED_DIR": str(self.shared),
            "HPC_BRIDGE_CONFIG": os.devnull,
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
        shared = Path(folder) / "shared"
        yield Place("local", "embedded scheduler", shared, host="127.0.0.1")


@contextmanager
def test_site(folder: Path | None) -> Iterator[Place]:
    """The login host of the site in ``folder``, or of a new one that ends afterwards.

    Raises NoSite.
    """
    with nullcontext(folder) if folder else _new_site() as site:
        settings = (site / "settings").read_text().splitlines()
        known = dict(line.split("=", 1) for line in settings)
        enter = (str(SITE_SCRIPTS / "enter"), "--site", str(site))
        shared = f"/shared/benchmarks-{os.getpid()}"
        try:
            yield Place(
                scheduler="slurm",
                description=f"test site, {known['version']}",
                shared=Path(shared),
                host=f"10.77.{known['net']}.254",
                enter=enter,
                ssh_config=site / "ssh_config",
            )
        finally:
            subprocess.run([*enter, "rm", "-rf", shared, f"{shared}-prefect"], check=False)


@contextmanager
def _new_site() -> Iterator[Path]:
    site = CHECKOUT / "build" / "site-benchmarks"
    command = [SITE_SCRIPTS / "up", "--site", site, "--python", sys.prefix]
    up = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if up.returncode == _CANNOT_HOST:
        raise NoSite(up.stdout.splitlines()[-1])
    if up.returncode != 0:
        raise SystemExit(f"{up.stdout}\nbenchmarks: the test site did not come up")
    try:
        yield site
    finally:
        subprocess.run([SITE_SCRIPTS / "down", "--site", site], check=True)
