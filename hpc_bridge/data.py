"""The folders that ship with the package: job scripts, unit files, site profiles and examples."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def data_folder(name: str) -> Path:
    """``job_scripts``, ``services``, ``site_configs`` or ``examples``, also in a checkout."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
