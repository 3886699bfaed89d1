"""Folders that a job would have made."""

from __future__ import annotations

from pathlib import Path

from hpc_bridge.journal import RunDirectory


def element_folder(run: RunDirectory, element: int = 0) -> Path:
    """That of one flow run, made."""
    folder = run.element(element)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
