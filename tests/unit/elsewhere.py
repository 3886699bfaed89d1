"""A cluster elsewhere whose login host is this machine, over a connection that breaks when told.

Its scheduler is a folder of programs: what they have taken is in ``jobs``, what they say of it in
``queue``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from hpc_bridge.cluster import Cluster
from hpc_bridge.connections import Connection
from hpc_bridge.errors import ConnectionLost
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.storage import reach, spool
from hpc_bridge.storage.remote_files import RemoteFiles
from hpc_bridge.transports.base import Completed, Transport
from hpc_bridge.transports.login import Login
from hpc_bridge.watcher import Watcher
from tests.unit.counted_files import CountedTransport

ALPHA = Login("openssh", "alpha")

Break = Literal["before", "while", "after"]

SBATCH = """#!/bin/sh
here=$(dirname "$0")
cat >"$here/script"
if [ -e "$here/refusal" ]; then cat "$here/refusal" >&2; exit 1; fi
if [ -e "$here/slow" ]; then rm "$here/slow"; touch "$here/begun"; sleep 0.5; fi
echo "$*" >>"$here/jobs"
echo $((99 + $(wc -l <"$here/jobs")))
"""
SQUEUE = """#!/bin/sh
cat "$(dirname "$0")/queue"
"""


class BreakingTransport(CountedTransport):
    """Breaks under the submissions to come, in the ways that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.breaks: list[Break] = []
        self.left: list[threading.Thread] = []
        """What goes on there although nobody hears of it."""
        self.falls = False
        """Whether the host is away after the next break."""

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        self.runs += 1
        if "sbatch" not in argv or not self.breaks:
            return super().run(argv, **options)
        how = self.breaks.pop(0)
        if how == "after":
            super().run(argv, **options)
        if how == "while":
            run = super().run
            self.left.append(threading.Thread(target=lambda: run(argv, **options)))
            self.left[-1].start()
        self.is_away = self.is_away or self.falls
        raise ConnectionLost(f"the connection broke {how}")


class Elsewhere:
    """The connection, and the programs of its scheduler."""

    def __init__(self, programs: Path, transport: Transport) -> None:
        self.programs = programs
        watcher = Watcher(lambda: None, lambda _jobs, _since: {}, interval=3600)  # type: ignore[arg-type, return-value]
        self.connection = Connection(
            Cluster(SlurmScheduler(), transport), watcher, 30.0, login=ALPHA
        )

    @property
    def jobs(self) -> list[str]:
        """The command lines of those that were taken."""
        path = self.programs / "jobs"
        return path.read_text().splitlines() if path.exists() else []

    def shows(self, job: str, name: str) -> None:
        """The queue has it."""
        moment = "2026-11-21T05:25:03"
        row = (job, name, "PENDING", "None", "", moment, moment, "N/A")
        (self.programs / "queue").write_text("\x1f".join(row) + "\n")


def elsewhere(folder: Path, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Make ``ALPHA`` a login of this machine, which has a scheduler of its own then."""
    programs, machine = folder / "programs", folder / "machine"
    for path in (programs, machine):
        path.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "queue").touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(spool, "machine_folder", lambda: machine)
    monkeypatch.setitem(reach._files, ALPHA, RemoteFiles(ALPHA, transport))
    return Elsewhere(programs, transport)
