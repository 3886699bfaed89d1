"""Bundles that wait on this machine for the submission that brings them to a cluster elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from hpc_bridge.errors import SharedDirectoryError
from hpc_bridge.files import write_private
from hpc_bridge.machine_files import machine_folder

_KEPT_SECONDS = 86400.0
"""What a process that died has left."""


def keep(key: str, bundle: bytes, archive: Path | None) -> None:
    """Keep a packed flow and, if there is one, the archive of its files.

    Raises SharedDirectoryError, and leaves nothing behind.
    """
    _forget_old()
    folder = _folder(key)
    try:
        folder.mkdir(mode=0o700, parents=True)
        write_private(folder / "bundle.json", bundle)
        if archive is not None:
            shutil.copyfile(archive, folder / "files.zip")
            (folder / "files.zip").chmod(0o600)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SharedDirectoryError(
            f"the flow cannot wait in {folder.parent} on this machine for its submission:"
            f" {error.strerror or error}; free some space there, or set TMPDIR to a folder that"
            " has it"
        ) from error


def content(key: str) -> dict[str, Path]:
    """The files of a bundle by their names; empty when it is not here."""
    folder = _folder(key)
    names = ("bundle.json", "files.zip")
    return {name: folder / name for name in names if (folder / name).exists()}


def drop(*keys: str) -> None:
    """They have arrived."""
    for key in keys:
        shutil.rmtree(_folder(key), ignore_errors=True)


def _folder(key: str) -> Path:
    return machine_folder() / "spool" / key


def _forget_old() -> None:
    with contextlib.suppress(FileNotFoundError):
        for folder in (machine_folder() / "spool").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
