"""The contract of a cluster's file system as this process reaches it, and that of this machine."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_bridge.files import expanded_path, write_private
from hpc_bridge.transports.base import Files, Progress
from hpc_bridge.transports.login import LOCAL, Login

Kind = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True, slots=True)
class Account:
    """Whose files they are."""

    user: str
    uid: int
    home: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder; of a link itself, not of what it leads to."""

    kind: Kind
    size: int
    modified: float
    """Seconds since 1970 by the file server's clock."""
    mode: int
    """Permissions only: ``0o600``."""
    uid: int
    links: int
    inode: int


@dataclass(frozen=True, slots=True)
class Part:
    """At most ``limit`` bytes of a file from ``offset`` on; all of the rest for None.

    A negative ``offset`` counts from the end, as in a slice.
    """

    path: Path
    offset: int = 0
    limit: int | None = None


class ClusterFiles(ABC):
    """The file system that login and compute nodes see, from wherever this process runs.

    1. Every method blocks and may be called from any thread; one call is at most one remote
       command, so whoever has many questions asks them together.
    2. Paths are absolute and of the cluster. What goes wrong there is an OSError with its errno, as
       if it were here (FileNotFoundError, FileExistsError, ENOSPC, ...); what keeps it from being
       asked is a CommandError. After a ConnectionLost ``rename`` and ``make_folder`` of what must
       be new may have taken effect; whatever else may be asked again, and has been once.
    3. What is written appears whole or not at all; files are 0600, folders 0700.
    """

    login: Login
    """How the cluster is reached."""

    @property
    @abstractmethod
    def is_here(self) -> bool:
        """Whether they can be opened as any file of this machine."""

    @abstractmethod
    def account(self) -> Account:
        """Whose account it is there; asked once."""

    @abstractmethod
    def person(self, uid: int) -> str | None:
        """The login name of a user id there; None when it has none, or cannot be asked for."""

    @abstractmethod
    def expanded(self, text: str) -> str:
        """``{user}``, ``~`` and ``$VARIABLES`` of a path as they are there; asked once each."""

    @abstractmethod
    def parts(self, wanted: Sequence[Part]) -> list[bytes | None]:
        """Pieces of files, in that order; None for a file that does not exist.

        They are held in memory.
        """

    @abstractmethod
    def listings(self, folders: Sequence[Path], *, depth: int = 1) -> list[dict[str, Entry] | None]:
        """What lies in each folder, by its name relative to it, ``depth`` levels deep.

        None for a folder that does not exist. Symbolic links are not followed, but for the folders
        themselves. What vanishes meanwhile is left out, and what is in a folder below that this
        account may not read. In order of the names.
        """

    @abstractmethod
    def entries(self, paths: Sequence[Path]) -> list[Entry | None]:
        """What has each of these names, after following links; None where nothing has."""

    @abstractmethod
    def put(self, files: Files, *, progress: Progress | None = None) -> None:
        """Write several, in their order; missing folders are made, 0700."""

    @abstractmethod
    def make_folder(self, path: Path, *, exist_ok: bool = True) -> None:
        """Make a folder in one that exists."""

    @abstractmethod
    def touch(self, *paths: Path) -> None:
        """Renew the times of files; those that do not exist are made, empty."""

    @abstractmethod
    def link(self, existing: Path, new: Path) -> None:
        """Give a file a second name, atomically; FileExistsError when something has it."""

    @abstractmethod
    def rename(self, path: Path, new: Path) -> None:
        """Rename, over a file that has the new name."""

    @abstractmethod
    def remove(self, *paths: Path) -> None:
        """Remove files; those that do not exist are no error."""

    def remove_at_end(self, path: Path, seconds: float) -> None:  # noqa: ARG002
        """As ``remove``, by a process that ends: for so long, and nobody logs in for it."""
        self.remove(path)

    @abstractmethod
    def remove_trees(self, *paths: Path) -> None:
        """Remove folders with all that is in them, also what a flow has made read-only."""

    def entry(self, path: Path) -> Entry | None:
        """``entries`` of one name."""
        (found,) = self.entries([path])
        return found

    def read(self, path: Path, *, progress: Progress | None = None) -> bytes:  # noqa: ARG002
        """All of a file."""
        (content,) = self.parts([Part(path)])
        if content is None:
            raise FileNotFoundError(2, os.strerror(2), str(path))
        return content

    def listing(self, folder: Path, *, depth: int = 1) -> dict[str, Entry]:
        """``listings`` of one folder. Raises FileNotFoundError."""
        (found,) = self.listings([folder], depth=depth)
        if found is None:
            raise FileNotFoundError(2, os.strerror(2), str(folder))
        return found

    def write(self, path: Path, content: bytes) -> None:
        """Write one file in a folder that exists."""
        self.put(Files(str(path.parent), {path.name: content}))


class LocalFiles(ClusterFiles):
    """Those of this machine."""

    login = LOCAL

    @property
    def is_here(self) -> bool:
        return True

    def account(self) -> Account:
        entry = pwd.getpwuid(os.getuid())
        return Account(entry.pw_name, entry.pw_uid, str(Path.home()))

    def person(self, uid: int) -> str | None:
        try:
            return pwd.getpwuid(uid).pw_name
        except (KeyError, OverflowError):
            return None

    def expanded(self, text: str) -> str:
        return expanded_path(text)

    def parts(self, wanted: Sequence[Part]) -> list[bytes | None]:
        return [_part(part) for part in wanted]

    def listings(self, folders: Sequence[Path], *, depth: int = 1) -> list[dict[str, Entry] | None]:
        return [_listing(folder, depth) for folder in folders]

    def entries(self, paths: Sequence[Path]) -> list[Entry | None]:
        return [_entry_of(path) for path in paths]

    def put(self, files: Files, *, progress: Progress | None = None) -> None:  # noqa: ARG002
        folder = Path(files.folder)
        for name, content in files.content.items():
            path = folder / name
            _make_folders(path.parent)
            write_private(path, content if isinstance(content, bytes) else content.read_bytes())
        for name, existing in files.links.items():
            _make_folders((folder / name).parent)
            with contextlib.suppress(FileExistsError):
                os.link(folder / existing, folder / name)

    def make_folder(self, path: Path, *, exist_ok: bool = True) -> None:
        path.mkdir(mode=0o700, exist_ok=exist_ok)

    def touch(self, *paths: Path) -> None:
        for path in paths:
            path.touch(mode=0o600)

    def link(self, existing: Path, new: Path) -> None:
        os.link(existing, new)

    def rename(self, path: Path, new: Path) -> None:
        path.rename(new)

    def remove(self, *paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def remove_trees(self, *paths: Path) -> None:
        for path in paths:
            _remove_tree(path)


HERE = LocalFiles()


def _part(part: Part) -> bytes | None:
    try:
        with part.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size if part.offset < 0 else 0
            file.seek(max(0, size + part.offset))
            return file.read() if part.limit is None else file.read(part.limit)
    except FileNotFoundError:
        return None


def _entry_of(path: Path) -> Entry | None:
    try:
        return _entry(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _listing(folder: Path, depth: int) -> dict[str, Entry] | None:
    found: dict[str, Entry] = {}
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  Path.iterdir() is slower
    except FileNotFoundError:
        return None
    for name in names:
        path = folder / name
        try:
            found[name] = entry = _entry(path.lstat())
            if depth > 1 and entry.kind == "folder":
                below = _listing_below(path, depth - 1)
                found.update({f"{name}/{rest}": known for rest, known in below.items()})
        except FileNotFoundError:
            continue
    return found


def _listing_below(folder: Path, depth: int) -> dict[str, Entry]:
    try:
        return _listing(folder, depth) or {}
    except PermissionError:
        return {}


def _entry(status: os.stat_result) -> Entry:
    kind: Kind = "other"
    if stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISDIR(status.st_mode):
        kind = "folder"
    elif stat.S_ISLNK(status.st_mode):
        kind = "link"
    return Entry(
        kind,
        status.st_size,
        status.st_mtime,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_nlink,
        status.st_ino,
    )


def _make_folders(folder: Path) -> None:
    """With its parents, each 0700."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if path.exists():
            raise
    except OSError:
        path.chmod(0o700)
        for folder, _, _ in os.walk(path):
            for below in (Path(folder), *(entry for entry in Path(folder).iterdir())):
                if below.is_dir() and not below.is_symlink():
                    below.chmod(0o700)
        shutil.rmtree(path)
