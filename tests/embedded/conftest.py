from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HOME, ROOT
from tests.embedded.local_site import Site
from tests.waiting import HUNG, until


@pytest.fixture(scope="session")
def worker_pool(server: str) -> Iterator[str]:
    """A long-lived worker on the personal pool, as an operator starts it."""
    from hpc_bridge.settings import load_settings

    pool = load_settings().default_work_pool
    log = HOME / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "slurm"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
    try:
        until(
            lambda: process.poll() is not None or "started!" in log.read_text(),
            60,
            "the worker starts",
        )
        assert process.poll() is None, log.read_text()
        yield pool
    finally:
        process.terminate()
        process.wait(HUNG)


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"PREFECT_WORKER_QUERY_SECONDS": "1"}


@pytest.fixture
def flow_folder(tmp_path: Path) -> Path:
    """A researcher's folder with the flows of tests/flows."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "jobs.py").write_text((ROOT / "tests" / "flows" / "jobs.py").read_text())
    return folder


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The embedded scheduler in a folder of its own; its jobs end with the test."""
    site = Site(tmp_path, cpus=getattr(request, "param", 2))
    yield site
    live = [job for job, status in site.statuses().items() if not status.state.is_terminal]
    if live:
        site.cancel(*live)
        for job in live:
            for process in site.members(job):
                os.kill(process, signal.SIGKILL)
            site.end(job)
