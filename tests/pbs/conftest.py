"""The fixtures of tests/site on PBS: here the same tests run on it.

By default that is the fake of tests/fake_pbs, which runs jobs on this machine as whoever runs the
tests. A real OpenPBS or PBS Pro takes its place with

    HPC_BRIDGE_TEST_PBS=[ACCOUNT@]FOLDER pytest tests/pbs

where ``qsub`` and its like are on PATH. FOLDER is seen by its nodes too, and so are this checkout
and its interpreter; below it each run of the tests makes a folder that is ACCOUNT's home. ACCOUNT
submits, and is by default whoever runs the tests; for another one, and to rerun jobs and stop the
scheduler for moments, the tests have to be run by root, who is a manager of that PBS. Job history
has to be on, ``kill_delay`` of the queues below 4 s, ``$enforce mem`` in the MoM's configuration,
and PBS's commands on PATH in jobs. Tests that need a switch of the fake are skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOME, PORT, ROOT
from tests.fake_pbs import FakePBS
from tests.pbs.batch import PBSBatch
from tests.site.conftest import Site, Worker

REAL = os.environ.get("HPC_BRIDGE_TEST_PBS", "")
THIS_ACCOUNT = pwd.getpwuid(os.geteuid()).pw_name
NODES = {
    "pbshost[0]": {"host": "pbshost", "ncpus": 40, "mem": "64gb", "ngpus": 2},
    "farhost[0]": {"host": "farhost", "ncpus": 4, "mem": "8gb", "ngpus": 0},
}


@dataclass(frozen=True)
class PBSSite(Site):
    """A login host and nodes, all of which are this machine on the fake."""

    folder: Path
    """The researcher's home."""
    user: str
    fake: FakePBS | None
    early: dict[str, Future[dict[str, Any]]] = field(default_factory=dict)
    """Cases that were begun before a test asks for them."""

    @property
    def account(self) -> str:
        return self.user

    @property
    def batch(self) -> PBSBatch:
        return PBSBatch(self)

    @property
    def search_path(self) -> str:
        return f"{self.fake.bin}:/usr/local/bin:/usr/bin:/bin" if self.fake else os.environ["PATH"]

    @property
    def records(self) -> Path:
        """What the server keeps, as far as one may look."""
        if self.fake:
            return self.fake.folder
        return Path(os.environ.get("PBS_HOME", "/var/spool/pbs"))

    def case(self, case: str, *, user: str = "researcher", **variables: str) -> dict[str, Any]:
        """As of ``Site``; one that was begun early is waited for."""
        early = None if variables else self.early.pop(case, None)
        return early.result() if early else super().case(case, user=user, **variables)

    def home(self, user: str = "researcher") -> Path:
        assert user in ("researcher", self.user)
        return self.folder

    def path(self, name: str = "") -> str:
        return str(self.folder / name)

    def put(self, name: str, text: str, user: str = "researcher") -> Path:
        path = self.home(user) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.batch.in_own_words(text))
        if self.user != THIS_ACCOUNT:
            for each in (path, *path.parents):
                if each == self.folder:
                    break
                shutil.chown(each, self.user)
        return path

    @contextmanager
    def starting_nothing(self) -> Iterator[None]:
        """Jobs stay in the queue."""
        if self.fake:
            with self.fake.switched("scheduling-off"):
                yield
            return
        self.shell("qmgr -c 'set server scheduling = false'", user="root")
        try:
            yield
        finally:
            self.shell("qmgr -c 'set server scheduling = true'", user="root")

    def _enter(self, argv: Sequence[str], user: str, variables: dict[str, str]) -> list[str]:
        account = self.user if user == "researcher" else user
        settings = {
            "HOME": str(self.folder),
            "USER": account,
            "LOGNAME": account,
            "SHELL": "/bin/bash",
            "PATH": self.search_path,
            "LANG": "C.UTF-8",
            "PREFECT_API_URL": f"http://{self.address}:{PORT}/api",
            "HPC_BRIDGE_SCHEDULER": "pbs",
            "HPC_BRIDGE_POLL_INTERVAL": "1",
        }
        if self.fake and user == "root":
            settings |= {"FAKE_PBS_AS": "root", "FAKE_PBS_MANAGER": "1"}
        words = [
            "env",
            "-i",
            "-C",
            str(self.folder),
            *map("=".join, (settings | variables).items()),
        ]
        if account not in (THIS_ACCOUNT, "root"):
            group = str(pwd.getpwnam(account).pw_gid)
            words = ["setpriv", "--reuid", account, "--regid", group, "--init-groups", *words]
        return [*words, *argv]


@contextmanager
def pbs_site(folder: Path, **config: object) -> Iterator[PBSSite]:
    """On a fake of its own, in a folder."""
    home = folder / "home"
    home.mkdir(parents=True)
    said = {"home": str(home), "kill_delay": 3.0, "check_interval": 1.0, "nodes": NODES, **config}
    with FakePBS(folder / "server", **said) as fake:
        yield _furnished(PBSSite("127.0.0.1", home, THIS_ACCOUNT, fake))
        assert not fake.errors()


def _furnished(site: PBSSite) -> PBSSite:
    if site.fake:  # a job has PBS's commands by the login's own files
        site.put(".bash_profile", f"PATH={site.fake.bin}:$PATH\n")
    for name in ("jobs.py", "restarts.py"):
        site.put(name, (ROOT / "tests/flows" / name).read_text())
    return site


@pytest.fixture(scope="session")
def site(server: str) -> Iterator[PBSSite]:
    """The fake, or the real one that was named."""
    assert server
    if not REAL:
        with pbs_site(HOME / "pbs") as site:
            yield site
        return
    account, _, folder = REAL.rpartition("@")
    home = Path(tempfile.mkdtemp(prefix="hpc-bridge-tests-", dir=folder))
    account = account or THIS_ACCOUNT
    shutil.chown(home, account)
    address = socket.gethostbyname(socket.gethostname())
    real = _furnished(PBSSite(address, home, account, None))
    try:
        yield real
    finally:
        real.batch.cancel_all()


@pytest.fixture(scope="session")
def fake(site: PBSSite) -> FakePBS:
    """For tests that have the server misbehave."""
    if site.fake is None:
        pytest.skip("a real PBS has no switch for this")
    return site.fake


@pytest.fixture(scope="session")
def site_worker(site: PBSSite) -> Iterator[str]:
    """The researcher's own worker on the personal pool."""
    pool = f"pbs-{site.account}"
    with Worker(site, pool, "own"):
        yield pool
