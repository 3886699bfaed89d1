"""The folders that ship with the package: job scripts, unit files and examples."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def data_folder(name: str) -> Path:
    """``job_scripts``, ``services`` or ``examples``, in a package or a checkout alike."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
