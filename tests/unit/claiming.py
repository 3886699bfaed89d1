"""Other processes that take claims, and traces of processes that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.claims import Claims

PROCESS = """
import sys
from pathlib import Path
from hpc_bridge.errors import WorkerNameTaken
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking import claims

claims.RENEW_SECONDS = 0.1
shared = Path(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    order, *words = line.split()
    if order == "take":
        print(claims.claims_on(shared).take(RunDirectory(shared / "runs" / words[0])), flush=True)
    elif order == "release":
        claims.claims_on(shared).release(RunDirectory(shared / "runs" / words[0]))
        print("released", flush=True)
    elif order == "serve":
        try:
            claims.claims_on(shared).serve_as(*words)
            print("serves", flush=True)
        except WorkerNameTaken as error:
            print(error, flush=True)
"""


class Process:
    """Another process, which does what it is told and says what came of it."""

    def __init__(self, shared: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, *order: str) -> str:
        self.tell(*order)
        return self.hear()

    def takes(self, run: RunDirectory) -> bool:
        return self.ask("take", run.submission_id) == "True"

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


Start = Callable[[], Process]


def another(shared: Path, **what: object) -> str:
    """A process whose file says something else than that of the one it was copied from."""
    source = Claims(shared)
    source.living()
    path = shared / "trackers" / f"{source._id}.json"
    stored = json.loads(path.read_bytes())
    source.end()
    identity = f"elsewhere-{stored['pid']}-{os.urandom(4).hex()}"
    path.with_stem(identity).write_text(json.dumps(stored | what))
    return identity


def held_by(run: RunDirectory, identity: str, number: int = 0) -> None:
    (run.path / f"tracker.{number}").write_text(f"{identity}\n")


def silent(shared: Path, identity: str, seconds: float) -> None:
    """As if a process had renewed its file so long ago."""
    path = shared / "trackers" / f"{identity}.json"
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))
