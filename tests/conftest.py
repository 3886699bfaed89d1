"""One Prefect server and one Slurm site for the whole run, started by the first test that asks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / os.environ.get("HPC_BRIDGE_TEST_SITE", "build/site")
"""Folder of the Slurm site; another one lets two people test side by side."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


# Prefect reads its settings once, when it is imported: before any test module is.
PORT = _free_port()
HOME = Path(tempfile.mkdtemp(prefix="hpc-bridge-tests-"))
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "HPC_BRIDGE_"))]:
    if _name not in (
        "HPC_BRIDGE_SITE_CACHE",
        "HPC_BRIDGE_SITE_MIRROR",
        "HPC_BRIDGE_TEST_PBS",
    ):
        del os.environ[_name]
os.environ |= {
    "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api",
    "PREFECT_HOME": str(HOME / "prefect"),
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "HPC_BRIDGE_CONFIG": os.devnull,
    "HPC_BRIDGE_SCHEDULER": "local",
    "HPC_BRIDGE_SHARED_DIR": str(HOME / "shared"),
}


# Ignored in the background of a shell, or under nohup, and scripts would inherit that.
for _signal, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders are markers."""
    for item in items:
        for marker in ("embedded", "pbs", "site"):
            if f"/tests/{marker}/" in str(item.path):
                item.add_marker(marker)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A Prefect server; yields its API address on this machine."""
    from hpc_bridge.cli.server import own_server

    with own_server(HOME / "server", host="0.0.0.0", port=PORT) as url:
        yield url


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared directory of jobs on the embedded scheduler."""
    return HOME / "shared"


def run_site_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the scripts of tests/site."""
    return subprocess.run(
        [str(ROOT / "tests" / "site" / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=840,
    )
