"""The Slurm test site of the drill, as root and as the researcher."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.places import CHECKOUT, SITE_SCRIPTS, NoSite

USER = "researcher"
CANNOT_HOST = 3


@dataclass(frozen=True, slots=True)
class Site:
    """A site that is up, and a folder of the drill's own in the researcher's home."""

    folder: Path
    home: Path
    """As the site sees it."""

    @property
    def host(self) -> str:
        """Where jobs reach a server of this machine."""
        settings = (self.folder / "settings").read_text().splitlines()
        return f"10.77.{dict(line.split('=', 1) for line in settings)['net']}.254"

    @property
    def outside(self) -> Path:
        """``home`` as this machine sees it."""
        return self.folder / "root" / self.home.relative_to("/")

    def enter(self, *argv: str, user: str = USER, variables: Mapping[str, str] = {}) -> list[str]:
        """A command line for this machine that runs ``argv`` on the login host."""
        named = [word for item in variables.items() for word in ("--env", "=".join(item))]
        options = ["--user", user, "--site", str(self.folder), "--cd", str(CHECKOUT), *named]
        return [str(SITE_SCRIPTS / "enter"), *options, "--", *argv]

    def run(self, *argv: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return _run(self.enter(*argv, user=user))

    def output(self, *argv: str) -> str:
        """What root's command prints; raises RuntimeError with its error output."""
        done = self.run(*argv)
        if done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stderr.strip()}")
        return done.stdout

    def daemon(self, action: str, name: str) -> None:
        """``tests/site/daemon``; raises RuntimeError."""
        self._script("daemon", action, name)

    def node(self, action: str, name: str) -> None:
        """``tests/site/node``; raises RuntimeError."""
        self._script("node", action, name)

    def _script(self, script: str, action: str, name: str) -> None:
        done = _run([str(SITE_SCRIPTS / script), action, name, "--site", str(self.folder)])
        if done.returncode != 0:
            raise RuntimeError(f"{script} {action} {name}: {done.stdout}{done.stderr}")


@contextmanager
def drill_site(folder: Path | None, name: str) -> Iterator[Site]:
    """The site in ``folder``, or a new one that ends afterwards. Raises NoSite."""
    own = folder is None
    folder = folder or CHECKOUT / "build" / "site-drill"
    if own:
        up = _run([str(SITE_SCRIPTS / "up"), "--site", str(folder), "--python", sys.prefix])
        if up.returncode == CANNOT_HOST:
            raise NoSite(up.stdout.splitlines()[-1])
        if up.returncode != 0:
            raise RuntimeError(f"the test site did not come up: {up.stdout}{up.stderr}")
    try:
        site = Site(folder, Path("/home") / USER / name)
        made = site.run("mkdir", str(site.home), user=USER)
        if made.returncode != 0:
            raise RuntimeError(made.stderr)
        yield site
    finally:
        if own:
            _run([str(SITE_SCRIPTS / "down"), "--site", str(folder)])


def _run(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600, **options)
