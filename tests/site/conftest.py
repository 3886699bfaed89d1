"""The real Slurm site, brought up once a run, and the people on it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PORT, ROOT, SITE, run_site_script
from tests.waiting import until

CANNOT_HOST = 3
OF_SITE = ("--site", str(SITE))


@dataclass(frozen=True)
class Site:
    """A login host and three nodes."""

    address: str
    """Of this machine, as the nodes see it."""

    def run(
        self, *argv: str, user: str = "researcher", timeout: float = 120, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the login host, in the user's home, with a clean environment."""
        return subprocess.run(
            self._enter(argv, user, variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def start(
        self, *argv: str, user: str = "researcher", variables: Any = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """As ``run``, without waiting for the end; ``options`` are Popen's."""
        return subprocess.Popen(self._enter(argv, user, variables or {}), **options)

    def _enter(self, argv: Sequence[str], user: str, variables: dict[str, str]) -> list[str]:
        settings = {
            "PREFECT_API_URL": f"http://{self.address}:{PORT}/api",
            "HPC_BRIDGE_POLL_INTERVAL": "1",
        } | variables
        options = [part for item in settings.items() for part in ("--env", "=".join(item))]
        return [str(ROOT / "tests/site/enter"), *OF_SITE, "--user", user, *options, "--", *argv]

    def shell(self, command: str, user: str = "researcher") -> str:
        """Standard output of a shell command that must work."""
        done = self.run("bash", "-c", command, user=user)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def python(
        self, *argv: str, user: str = "researcher", timeout: float = 120, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the interpreter of this test run there."""
        return self.run(sys.executable, *argv, user=user, timeout=timeout, **variables)

    def case(self, case: str, *, user: str = "researcher", **variables: str) -> dict[str, Any]:
        """One case of tests/flows/jobs.py, as a script in the user's home."""
        done = self.python("jobs.py", case, user=user, **variables)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def home(self, user: str = "researcher") -> Path:
        """The user's home as this machine sees it."""
        return SITE / "root" / "home" / user

    def put(self, name: str, text: str, user: str = "researcher") -> Path:
        """Write a file into the user's home."""
        path = self.home(user) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.shell(f"chown -R {user}: /home/{user}/{shlex.quote(name.split('/')[0])}", user="root")
        return path


@pytest.fixture(scope="session")
def site(server: str) -> Iterator[Site]:
    """The site; it stays up when it was up before."""
    assert server
    was_up = run_site_script("enter", *OF_SITE, "true").returncode == 0
    done = run_site_script("up", *OF_SITE, "--reuse", "--python", sys.prefix)
    if done.returncode == CANNOT_HOST:
        pytest.skip(f"no Slurm test site: {done.stdout.splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    gateway = subprocess.run(
        [str(ROOT / "tests/site/enter"), *OF_SITE, "getent", "hosts", "hosthost"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[0]
    site = Site(gateway)
    for user in ("researcher", "colleague"):
        site.put("jobs.py", (ROOT / "tests/flows/jobs.py").read_text(), user)
    try:
        yield site
    finally:
        if not was_up:
            run_site_script("down", *OF_SITE)


@pytest.fixture(scope="session")
def site_worker(site: Site) -> Iterator[str]:
    """The researcher's own worker on the personal pool."""
    log = site.home() / "worker.log"
    site.run("rm", "-f", "worker.log")
    process = site.start(
        "bash",
        "-c",
        f"exec {sys.executable} -m prefect worker start --pool slurm-researcher --type slurm"
        " > worker.log 2>&1",
        variables={"PREFECT_WORKER_QUERY_SECONDS": "1"},
        start_new_session=True,
    )
    try:
        until(
            lambda: process.poll() is None and log.exists() and "started!" in log.read_text(),
            60,
            "the worker starts",
        )
        yield "slurm-researcher"
    finally:
        process.terminate()
        process.wait(30)
