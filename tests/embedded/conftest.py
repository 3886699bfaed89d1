from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HOME, ROOT


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
        deadline = time.monotonic() + 60
        while "started!" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield pool
    finally:
        process.terminate()
        process.wait(30)


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ) | {"PREFECT_WORKER_QUERY_SECONDS": "1"}


@pytest.fixture
def flow_folder(tmp_path: Path) -> Path:
    """A researcher's folder with the flows of tests/flows."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "jobs.py").write_text((ROOT / "tests" / "flows" / "jobs.py").read_text())
    return folder
