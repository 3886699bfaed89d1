"""Files of this machine, with the same promises as over a connection: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hpc_bridge.errors import NoSuchFile, TransferFailed
from hpc_bridge.transports.archive import (
    CHUNK,
    Meter,
    Packing,
    end_of_archive,
    relative_name,
    size_of,
    size_of_tree,
    unpack,
)
from hpc_bridge.transports.base import Files, Progress, Transport


class LocalFiles(Transport):
    """The part of a transport that moves files."""

    def put(self, files: Files, *, progress: Progress | None = None) -> None:
        meter = Meter(progress, size_of(files.content) if progress else None)
        with _failures(files.folder):
            for name, content in files.content.items():
                target = Path(files.folder) / relative_name(name)
                _make_folder(target.parent)
                _write(content, target, meter)
            for name, existing in files.links.items():
                target = Path(files.folder) / relative_name(name)
                _make_folder(target.parent)
                with contextlib.suppress(FileExistsError):
                    os.link(Path(files.folder) / existing, target)
        meter.tell()

    def put_tree(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        _copy_tree(local, Path(remote), progress)

    def get(self, path: str, *, progress: Progress | None = None) -> bytes:
        with _failures(path), _opened(path) as file:
            meter = Meter(progress, os.fstat(file.fileno()).st_size)
            content = bytearray()
            while chunk := file.read(CHUNK):
                content += chunk
                meter.add(len(chunk))
            return bytes(content)

    def get_file(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        with _failures(remote), _opened(remote) as file:
            meter = Meter(progress, os.fstat(file.fileno()).st_size)
            _write_from(file, local, 0o600, meter)
            meter.tell()

    def get_tree(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        _copy_tree(Path(remote), local, progress)

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        with _failures(path), _opened(path) as file:
            file.seek(offset)
            return file.read(limit)


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NoSuchFile(f"there is no file {path} on this machine") from None
    with file:
        yield file


@contextmanager
def _failures(where: str) -> Iterator[None]:
    try:
        yield
    except TransferFailed:
        raise
    except OSError as error:
        raise TransferFailed(f"files could not be moved to or from {where}: {error}") from error


def _make_folder(folder: Path) -> None:
    """With its parents, all 0700; those that exist stay as they are."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _write(content: bytes | Path, target: Path, meter: Meter) -> None:
    if isinstance(content, Path):
        with content.open("rb") as file:
            mode = 0o700 if os.fstat(file.fileno()).st_mode & 0o100 else 0o600
            _write_from(file, target, mode, meter)
        return
    with _aside(target, 0o600) as file:
        file.write(content)
        meter.add(len(content))


def _write_from(source: BinaryIO, target: Path, mode: int, meter: Meter) -> None:
    with _aside(target, mode) as file:
        while chunk := source.read(CHUNK):
            file.write(chunk)
            meter.add(len(chunk))


@contextmanager
def _aside(target: Path, mode: int) -> Iterator[BinaryIO]:
    """A file that becomes ``target`` when it has been written."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


def _copy_tree(source: Path, target: Path, progress: Progress | None) -> None:
    """Through an archive, so that modes and links become what they become elsewhere."""
    if not source.is_dir():
        raise NoSuchFile(f"there is no folder {source} on this machine")
    if target.exists():
        raise TransferFailed(f"{target} exists already")
    meter = Meter(progress, size_of_tree(source) if progress else None)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    with _failures(str(target)):
        try:
            _make_folder(target.parent)
            unpack(_Stream(Packing(meter).tree(".", source)), aside)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    meter.tell()


class _Stream:
    """Chunks as a file that is read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """As many bytes, fewer at the end."""
        parts, count = [self._rest], len(self._rest)
        while count < size and not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended, chunk = True, end_of_archive()
            parts.append(chunk)
            count += len(chunk)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]
