"""The contract of a transport: where commands run and files lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

Stdin = bytes | Iterable[bytes]
"""Bytes, or chunks that are made as they are sent: then a broken connection looks like their end,
so the command has to notice that some are missing, as ``tar`` does."""

Progress = Callable[[int, int | None], None]
"""Called now and then with the bytes moved so far, and all there are if that is known."""

STALL_SECONDS = 120.0
"""A transfer that moves nothing for so long has failed, however long it takes in all."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind. Output is decoded as UTF-8 with replacement."""

    exit_code: int
    stdout: str
    stderr: str
    raw: bytes = field(default=b"", repr=False, compare=False)
    """``stdout`` before it was decoded."""


@dataclass(frozen=True, slots=True)
class Files:
    """Files to be written below ``folder``, an absolute path: relative name -> bytes, or the
    local file that holds them. They appear in this order, each one whole.

    ``links``, made after them: relative name -> the file which gets it as a second name, one of
    ``content`` or one that was there before; its path is relative to ``folder``, too, or absolute.
    A name that exists already stays what it is.
    """

    folder: str
    content: Mapping[str, bytes | Path]
    links: Mapping[str, str] = field(default_factory=dict)


class Transport(ABC):
    """Runs argv on the cluster's login side, moves files there and back.

    1. Every method blocks, and may be called from any thread.
    2. Connections are made on first use, and again after a loss, within the budget of logins.
       Unreachable or LoginRefused: nothing was done. ConnectionLost (a CommandTimeout): the
       connection broke while the call was under way, and whether it took effect is unknown.
    3. What is written appears whole or not at all: aside first, then renamed. New files are 0600
       (0700 when the local file is executable), new folders 0700. Files above 1 MiB that travel
       are compared by their SHA-256. TransferFailed when that is impossible; NoSuchFile (also a
       FileNotFoundError) when there is nothing to read.
    4. Paths of the other side are text, absolute, and taken as they are.
    """

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Stdin = b"",
        timeout: float,
        unset: Sequence[str] = (),
        files: Files | None = None,
        progress: Progress | None = None,
        may_log_in: bool = True,
    ) -> Completed:
        """Run ``argv`` without a shell.

        ``unset`` are shell-style patterns of environment variables that the command must not see.
        ``files`` are put before, by the same remote command, which ``progress`` is told of; if that
        fails, TransferFailed is raised and ``argv`` is not run. A command that does not exist gives
        exit code 127. Raises CommandTimeout after ``timeout`` seconds, when the command and what it
        started have been ended. A login, for which somebody may have to type, does not count, nor
        do ``files`` while they move. Without ``may_log_in`` Unreachable is raised where a login
        would be needed.
        """

    @abstractmethod
    def user(self) -> str:
        """Login name of the account that the commands run as."""

    def put(self, files: Files, *, progress: Progress | None = None) -> None:
        """Write files; those of the same name are replaced, folders are made."""
        raise NotImplementedError

    def put_tree(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        """Copy a folder to the path ``remote``, which must not exist and appears at once."""
        raise NotImplementedError

    def get(self, path: str, *, progress: Progress | None = None) -> bytes:
        """All of a file."""
        raise NotImplementedError

    def get_file(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        """Copy a file here, as 0600; what has this name is replaced."""
        raise NotImplementedError

    def get_tree(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        """Copy a folder to the path ``local``, which must not exist and appears at once."""
        raise NotImplementedError

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes of a file from ``offset`` on; none at its end."""
        raise NotImplementedError

    def check(self) -> list[str]:
        """Connect, and say in words what is missing; empty when all is well."""
        return []

    def close(self) -> None:  # noqa: B027 - not all have something to close
        """End the connection when nobody else in this process uses it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
