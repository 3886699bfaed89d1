"""Files that appear whole or not at all. Standard library only: flows on nodes write results."""

from __future__ import annotations

import getpass
import os
import secrets
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Write a 0600 file aside and rename it, so that nobody reads half of it."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def expanded_path(text: str) -> str:
    """``{user}``, ``~`` and ``$VARIABLES`` of a shared path, for this account on this machine."""
    if "{user}" in text:
        text = text.replace("{user}", getpass.getuser())
    return os.path.expandvars(expanded_home(text))


def expanded_home(text: str) -> str:
    """``~`` replaced; a home that nobody has stays as it is, where Path.expanduser() raises."""
    return str(Path(os.path.expanduser(text)))  # noqa: PTH111  an unknown ~name stays
