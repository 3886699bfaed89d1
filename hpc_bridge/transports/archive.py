"""Files as one tar stream, made and read as it flows: nothing is held in memory whole.

Why tar through a command, and never SFTP: 200 files of 4 KiB take one round trip (1,900-4,100 a
second against 160-480), large files are as fast, the command that needs the files can follow in
the same breath, and a site that forbids SFTP is no special case.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from hpc_bridge.errors import TransferFailed
from hpc_bridge.transports.base import Progress

CHUNK = 2**18
CHECKED_ABOVE = 2**20
_REPORT_EVERY = 2**22
_REPORTED_ABOVE = 2**23
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700


class Meter:
    """Tells a progress callback about a transfer that is large enough to be waited for."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        small = total is not None and total < _REPORTED_ABOVE
        self._progress = None if small else progress
        self._total = total
        self._done = self._told = 0

    def add(self, count: int) -> None:
        """So many more bytes have moved."""
        self._done += count
        if self._done - self._told >= _REPORT_EVERY or self._done == self._total:
            self.tell()

    def tell(self) -> None:
        """Call it now."""
        if self._progress is not None and self._done != self._told:
            self._told = self._done
            self._progress(self._done, self._total)


class Packing:
    """Members of an archive, one after the other; SHA-256 sums of the large ones are kept."""

    def __init__(self, meter: Meter) -> None:
        self.sums: dict[str, str] = {}
        self._meter = meter

    def member(self, name: str, content: bytes | Path) -> Iterator[bytes]:
        """A private file; executable when the local one is."""
        if isinstance(content, bytes):
            yield from self._file(name, io.BytesIO(content), len(content), _PRIVATE_FILE)
            return
        with content.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = _PRIVATE_FOLDER if status.st_mode & stat.S_IXUSR else _PRIVATE_FILE
            yield from self._file(name, file, status.st_size, mode)

    def own_member(self, name: str, content: bytes) -> Iterator[bytes]:
        """A file that is not what somebody waits for: neither metered nor compared."""
        yield _header(name, tarfile.REGTYPE, _PRIVATE_FILE, size=len(content))
        yield from chunks_of(content)
        yield _padding(len(content))

    def tree(self, name: str, folder: Path) -> Iterator[bytes]:
        """A folder with all that is in it; links stay links."""
        yield _header(name, tarfile.DIRTYPE, _PRIVATE_FOLDER)
        for entry in sorted(folder.iterdir()):
            path = f"{name}/{entry.name}"
            if entry.is_symlink():
                yield _header(path, tarfile.SYMTYPE, 0o777, target=str(entry.readlink()))
            elif entry.is_dir():
                yield from self.tree(path, entry)
            elif entry.is_file():
                yield from self.member(path, entry)
            else:
                raise TransferFailed(f"{entry} is neither a file nor a folder nor a link")

    def _file(self, name: str, file: BinaryIO, size: int, mode: int) -> Iterator[bytes]:
        yield _header(name, tarfile.REGTYPE, mode, size=size)
        digest, left = hashlib.sha256(), size
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise TransferFailed(f"{name} has become shorter while it was sent")
            left -= len(chunk)
            if size > CHECKED_ABOVE:
                digest.update(chunk)
            yield chunk
            self._meter.add(len(chunk))
        if size > CHECKED_ABOVE:
            self.sums[name] = digest.hexdigest()
        yield _padding(size)


def archive_of_links(links: Mapping[str, str]) -> bytes:
    """Hard links alone: ``tar`` makes thousands of them without a process for each."""
    members = (
        _header(relative_name(name), tarfile.LNKTYPE, _PRIVATE_FILE, target=existing)
        for name, existing in links.items()
    )
    return b"".join([*members, end_of_archive()])


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)


def end_of_archive() -> bytes:
    """What closes a tar stream."""
    return b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(name: str, kind: bytes, mode: int, *, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, size, target
    info.mtime = int(time.time())
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def size_of(content: Mapping[str, bytes | Path]) -> int:
    """Bytes of all files."""
    return sum(
        len(item) if isinstance(item, bytes) else item.stat().st_size for item in content.values()
    )


def size_of_tree(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def relative_name(name: str) -> str:
    """The name; raises TransferFailed for one that leads out of the folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise TransferFailed(f"{name!r} is not a name below the folder it is to be put in")
    return name


class Readable(Protocol):
    """What a tar stream is read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; fewer only at the end."""


def unpack(stream: Readable, folder: Path) -> None:
    """Write what a tar stream holds below a new, private folder.

    Raises TransferFailed for what would be written elsewhere, and for a stream that breaks off.
    """
    folder.mkdir(mode=_PRIVATE_FOLDER)
    try:
        with tarfile.open(mode="r|", fileobj=cast(BinaryIO, stream), bufsize=CHUNK) as archive:
            for member in archive:
                archive.extract(member, folder, filter=_private)
    except tarfile.TarError as error:
        raise TransferFailed(f"the folder cannot be unpacked here: {error}") from error


def _private(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    kept = tarfile.data_filter(member, path)
    if kept.isdir():
        return kept.replace(mode=_PRIVATE_FOLDER, deep=False)
    if kept.isreg():
        runs = (member.mode or 0) & stat.S_IXUSR
        return kept.replace(mode=_PRIVATE_FOLDER if runs else _PRIVATE_FILE, deep=False)
    return kept


def sha256_of(path: Path) -> str:
    """Digest of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks_of(data: bytes) -> Iterator[bytes]:
    """Without a copy of the whole."""
    view = memoryview(data)
    for start in range(0, len(view), CHUNK):
        yield bytes(view[start : start + CHUNK])
