"""Small files of this machine that all processes of one user share.

They are on a local disk: file locks are not to be trusted on every shared file system. So what is
counted and limited here is so per machine, as are the login nodes of one cluster.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hpc_bridge.errors import NotOwned


def machine_folder() -> Path:
    """The user's own folder, made on first use. Raises NotOwned when it is somebody else's."""
    folder = Path(tempfile.gettempdir()) / f"hpc-bridge-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise NotOwned(f"{folder} is not a folder of yours; remove it or set TMPDIR")
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """The file, opened and made where it was not, which nobody else has meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
        finally:
            # Not left to close: a child of this process may hold the same open file.
            fcntl.flock(file, fcntl.LOCK_UN)


def read_text(file: BinaryIO) -> str:
    """All of a locked file."""
    file.seek(0)
    return file.read().decode(errors="replace")


def write_json(file: BinaryIO, content: Mapping[str, Any], **options: Any) -> None:
    """Replace all of a locked file; a full disk leaves what its readers take for damaged."""
    with contextlib.suppress(OSError):
        file.seek(0)
        file.truncate()
        file.write(json.dumps(content, **options).encode())
