"""Processes of the drill inside the site: workers, which are killed, and who submits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from drill.kinds import Planned
from drill.site import Site

POOL = "drill"


def variables(site: Site, port: int) -> dict[str, str]:
    """The environment of the researcher's processes."""
    return {
        "PREFECT_API_URL": f"http://{site.host}:{port}/api",
        "PREFECT_HOME": str(site.home / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "HPC_BRIDGE_CONFIG": os.devnull,
        "HPC_BRIDGE_POLL_INTERVAL": "1",
        "HPC_BRIDGE_SHARED_DIR": str(site.home / "shared"),
        "HPC_BRIDGE_WORK_POOL": POOL,
        "DRILL_EFFECTS": str(site.home / "effects"),
    }


class Worker:
    """One name of a worker, whose process comes and goes."""

    def __init__(self, site: Site, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = site.outside / f"{name}.log"
        self._argv = site.enter(
            *(sys.executable, "-m", "prefect", "worker", "start"),
            *("--pool", POOL, "--type", "slurm", "--name", name),
            variables=environment,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._started = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since its last start."""
        return time.monotonic() - self._started

    def start(self) -> None:
        """Begin, and return at once."""
        self._started = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to the worker itself: the outer process only waits for it."""
        if self._process is None or self._process.poll() is not None:
            return
        # By pid from /proc, since in the site the worker has another one.
        for pid in _children(self._process.pid):
            os.kill(pid, signal.SIGKILL)
        if not _children(self._process.pid):
            self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self._process is None or self._process.poll() is not None:
            return
        for pid in _children(self._process.pid):
            os.kill(pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


class Submitter:
    """Submits what is planned, one after the other; ``submitted`` grows meanwhile."""

    def __init__(self, site: Site, environment: Mapping[str, str], runs: Sequence[Planned]) -> None:
        self.submitted: dict[str, str] = {}
        """Flow run -> kind."""
        self._runs = runs
        self._log = (site.outside / "submit.log").open("wb")
        self._process = subprocess.Popen(
            site.enter(sys.executable, "-m", "drill.submit", variables=environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether nothing more will be submitted."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End it; what is submitted stays."""
        self._process.terminate()
        self._process.wait(30)
        self._thread.join(30)
        self._log.close()

    def _talk(self) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return
        for planned in self._runs:
            try:
                stdin.write(json.dumps(asdict(planned)) + "\n")
                stdin.flush()
            except BrokenPipeError:
                return
            if not (answer := stdout.readline().strip()):
                return
            self.submitted[answer] = planned.kind
        stdin.close()
