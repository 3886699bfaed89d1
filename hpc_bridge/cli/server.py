"""A Prefect server of one's own, for the demo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_bridge.errors import ServerUnreachable

START_SECONDS = 120.0
_STOP_SECONDS = 10.0
# Prefect 3.8 takes a file of this name for a database in memory, and uses one connection for it.
# With several, SQLite refuses one of two that write at once: the server answers 503 (to 628 of 764
# new flow runs of 8 clients that never rest), and Prefect's own wait for seconds, then ask again.
_DATABASE = "server:memory:.db"


@contextmanager
def own_server(
    home: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    waiting: Callable[[float], None] = lambda _: None,
) -> Iterator[str]:
    """Start a server with SQLite under ``home``; yields its API address.

    The port is a free one unless it is given.

    ``waiting`` is called with the seconds since the start. Raises ServerUnreachable with the end of
    the server's log when it does not come up within two minutes.
    """
    home.mkdir(parents=True, exist_ok=True)
    port = port or _free_port(host)
    log = home / "server.log"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    } | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Where the dashboard finds the server: Prefect says port 4200 whatever the port is, and an
        # address would not be right for a browser on another machine.
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/{_DATABASE}",
    }
    command = ["-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/api"
        _wait_until_healthy(url, process, log, waiting)
        yield url
    finally:
        _stop(process)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(
    url: str, process: subprocess.Popen[bytes], log: Path, waiting: Callable[[float], None]
) -> None:
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < START_SECONDS:
        waiting(elapsed)
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310  our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise ServerUnreachable(f"the Prefect server did not start; the end of {log}:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        else:
            return
