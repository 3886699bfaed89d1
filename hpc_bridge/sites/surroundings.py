"""What can be seen of a cluster from its login node without asking the scheduler."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# File systems that several machines can have mounted.
_SHARED = re.compile(
    r"nfs\d?|lustre|gpfs|beegfs|ceph|panfs|wekafs|cifs|smb\d?|afs|orangefs|pvfs2|quobyte|dvs|gfs2"
    r"|ocfs2|9p|fuse\.(?!fuse-overlayfs|squashfuse|portal|gvfsd).*"
)
# Variables by which sites name a user's large folder.
FOLDERS = ("SCRATCH", "PSCRATCH", "CSCRATCH", "WORK", "WORKDIR", "WORKSPACE", "PROJECT")
_MODULE_SECONDS = 10.0

Runtime = Literal["apptainer", "singularity"]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the user, as a profile names it."""

    name: str
    """With ``~`` or an environment variable."""
    filesystem: str | None
    """Type of the file system; None when it is not known."""

    @property
    def is_shared(self) -> bool:
        """Whether its type is one that several machines have mounted."""
        return self.filesystem is not None and _SHARED.fullmatch(self.filesystem) is not None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One login node as one user sees it."""

    host: str
    home: Folder
    others: tuple[Folder, ...] = ()
    """Folders that variables of the site name."""
    has_modules: bool = False
    container_runtime: Runtime | None = None

    @property
    def shared_dir(self) -> str:
        """Where run directories are best: below the home if that is shared, else what is."""
        shared = [folder for folder in (self.home, *self.others) if folder.is_shared]
        return f"{(shared or [self.home])[0].name}/.hpc-bridge"


def look_around(environment: Mapping[str, str] = os.environ) -> Surroundings:
    """Of this machine and user."""
    mounts = _mounts()
    named = [(name, environment.get(name, "")) for name in FOLDERS]
    return Surroundings(
        host=socket.gethostname(),
        home=Folder("~", filesystem(Path.home(), mounts)),
        others=tuple(
            Folder(f"${name}", filesystem(Path(path), mounts))
            for name, path in named
            if path.startswith("/") and Path(path).is_dir()
        ),
        has_modules=_has_modules(environment),
        container_runtime=(
            "apptainer"
            if shutil.which("apptainer")
            else "singularity"
            if shutil.which("singularity")
            else None
        ),
    )


def filesystem(path: Path, mounts: Sequence[tuple[str, str]]) -> str | None:
    """Type of the file system that holds ``path``; later mounts hide earlier ones."""
    return mount_of(os.path.realpath(path), mounts)


def mount_of(real: str, mounts: Sequence[tuple[str, str]]) -> str | None:
    """As ``filesystem``, of a path without symbolic links."""
    found, longest = None, -1
    for point, kind in mounts:
        inside = point == "/" or real == point or real.startswith(point + "/")
        if inside and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def parse_mounts(mountinfo: str) -> list[tuple[str, str]]:
    """Mount point and type of each line of ``/proc/self/mountinfo`` (proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if dash and len(fields) > 4:
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            found.append((point, kind))
    return found


def _mounts() -> list[tuple[str, str]]:
    try:
        return parse_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    except OSError:
        return []


def _has_modules(environment: Mapping[str, str]) -> bool:
    """``module`` is a function of login shells, which leaves variables only where one is around."""
    if environment.get("LMOD_CMD") or environment.get("MODULESHOME"):
        return True
    try:
        done = subprocess.run(
            ["bash", "--login", "-c", "type -t module"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MODULE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
