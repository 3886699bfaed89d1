"""What the job and its owner leave in a run directory."""

from __future__ import annotations

from pathlib import Path

from hpc_bridge.journal import RunDirectory


def claim(run: RunDirectory, attempt: int, element: int = 0) -> Path:
    folder = run.path / str(element) / str(attempt)
    folder.mkdir(parents=True)
    return folder


def live(run: RunDirectory) -> bool:
    return (run.shared / "live" / run.submission_id).exists()
