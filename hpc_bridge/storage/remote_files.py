"""A cluster's files as they are reached over a transport."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TypeVar

from hpc_bridge.errors import CommandError, ConnectionLost, NoSuchFile, TransferFailed
from hpc_bridge.storage import remote_account, remote_programs
from hpc_bridge.storage.cluster_files import Account, ClusterFiles, Entry, Part
from hpc_bridge.storage.remote_account import Known
from hpc_bridge.transports.archive import chunks_of
from hpc_bridge.transports.base import Completed, Files, Progress, Transport
from hpc_bridge.transports.login import Login, transport_to

_SECONDS = 120.0
_TREES_SECONDS = 900.0
# What is sent as bytes arrives whole or the command does not run; see SSHTransport.
_AT_ONCE = 2**20
# There is no such program: that it is not found is not what happened to a file.
_NOT_RUN = (126, 127)

T = TypeVar("T")


class RemoteFiles(ClusterFiles):
    """Those of a login.

    A call whose connection breaks midway is made once more where it does no harm, so everywhere
    but in ``rename`` and ``make_folder(exist_ok=False)``: their ConnectionLost leaves open whether
    they took effect.
    """

    def __init__(self, login: Login, transport: Transport | None = None) -> None:
        """``transport``: instead of the process's own to that login. Raises as ``transport_to``."""
        self.login = login
        self.transport = transport or transport_to(login)
        self._account: Account | None = None
        self._expanded: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"RemoteFiles({self.login})"

    @property
    def is_here(self) -> bool:
        return False

    # the account

    def account(self) -> Account:
        if self._account is None:
            self._account = self._ask((), ()).account
        return self._account

    def person(self, uid: int) -> str | None:
        with suppress(CommandError):
            if uid == self.account().uid:
                return self.account().user
            done = _twice(lambda: self.transport.run(["id", "-nu", str(uid)], timeout=_SECONDS))
            return done.stdout.strip() or None if done.exit_code == 0 else None
        return None

    def expanded(self, text: str) -> str:
        if text not in self._expanded:
            people, names = remote_account.people_in(text), remote_account.variables_in(text)
            if not (names or text.startswith("~") or "{user}" in text):
                return str(PurePosixPath(text))
            is_known = self._account is not None and not people and not names
            known = Known(self.account(), {}, {}) if is_known else self._ask(people, names)
            self._account = known.account
            self._expanded[text] = remote_account.expanded(text, known)
        return self._expanded[text]

    def _ask(self, people: Sequence[str], names: Sequence[str]) -> Known:
        mark = secrets.token_hex(16)
        argv = remote_account.asking(people, names, mark)
        done = _twice(lambda: self.transport.run(argv, timeout=_SECONDS))
        if done.exit_code != 0:
            raise self._failure(done, argv, "~")
        return remote_account.answered(done.raw, people, mark)

    # reading

    def parts(self, wanted: Sequence[Part]) -> list[bytes | None]:
        if not wanted:
            return []
        mark = secrets.token_hex(16)
        argv, questions = remote_programs.reading(wanted, mark)
        done = self._read(argv, questions)
        if done.exit_code != 0:
            raise self._failure(done, argv, wanted[0].path)
        return remote_programs.pieces(done.raw, mark, len(wanted))

    def listings(self, folders: Sequence[Path], *, depth: int = 1) -> list[dict[str, Entry] | None]:
        done = self._find("-H", depth, folders)
        return remote_programs.by_folder(done.raw, done.stderr, folders)

    def entries(self, paths: Sequence[Path]) -> list[Entry | None]:
        done = self._find("-L", 0, paths)
        return remote_programs.by_name(done.raw, done.stderr, paths)

    def _find(self, links: str, depth: int, paths: Sequence[Path]) -> Completed:
        if not paths:
            return Completed(0, "", "")
        argv = remote_programs.finding(links, depth)
        done = self._read(argv, [os.fsencode(path) for path in paths])
        if done.exit_code != 0:
            raise self._failure(done, argv, paths[0])
        return done

    def read(self, path: Path, *, progress: Progress | None = None) -> bytes:
        return self._get(path, lambda: self.transport.get(str(path), progress=progress))

    def _get(self, path: Path, get: Callable[[], T]) -> T:
        try:
            with self._transfer(path):
                return _twice(get)
        except NoSuchFile:
            there = self.entry(path)
            number = errno.EISDIR if there is not None and there.kind == "folder" else errno.ENOENT
            raise OSError(number, os.strerror(number), str(path)) from None

    def _read(self, argv: list[str], questions: Sequence[bytes]) -> Completed:
        sent = _nul_ended(questions)

        def ask() -> Completed:
            # As chunks it needs no room there. Half of the questions do no harm.
            return self.transport.run(_for_each(argv), stdin=chunks_of(sent), timeout=_SECONDS)

        return _twice(ask)

    # writing

    def put(self, files: Files, *, progress: Progress | None = None) -> None:
        with self._transfer(files.folder):
            _twice(lambda: self.transport.put(files, progress=progress))

    def make_folder(self, path: Path, *, exist_ok: bool = True) -> None:
        how = "exist_ok" if exist_ok else "new"
        self._change(["sh", "-c", remote_programs.MAKE_FOLDER, how], path, again=exist_ok)

    def touch(self, *paths: Path) -> None:
        self._change(["sh", "-c", remote_programs.TOUCH, "sh"], *paths)

    def link(self, existing: Path, new: Path) -> None:
        try:
            self._change(["sh", "-c", remote_programs.LINK, "sh"], existing, new, again=False)
        except ConnectionLost:
            again = ["sh", "-c", remote_programs.LINK_AGAIN, "sh"]
            self._change(again, existing, new, again=False)

    def rename(self, path: Path, new: Path) -> None:
        self._change(["mv", "-T", "-f", "--"], path, new, again=False)

    def remove(self, *paths: Path) -> None:
        self._change(["rm", "-f", "--"], *paths)

    def remove_at_end(self, path: Path, seconds: float) -> None:
        argv = ["rm", "-f", "--", str(path)]
        done = self.transport.run(argv, timeout=seconds, may_log_in=False)
        if done.exit_code != 0:
            raise self._failure(done, argv, path)

    def remove_trees(self, *paths: Path) -> None:
        argv = ["sh", "-c", remote_programs.REMOVE_TREES, "sh"]
        self._change(argv, *paths, timeout=_TREES_SECONDS)

    def _change(
        self, argv: list[str], *paths: Path, again: bool = True, timeout: float = _SECONDS
    ) -> None:
        for group in _groups([os.fsencode(path) for path in paths]):
            sent = _nul_ended(group)

            def change(sent: bytes = sent) -> Completed:
                return self.transport.run(_for_each(argv), stdin=sent, timeout=timeout)

            done = _twice(change) if again else change()
            if done.exit_code != 0:
                raise self._failure(done, argv, os.fsdecode(group[-1]))

    # what goes wrong

    def _failure(self, done: Completed, argv: list[str], path: object) -> OSError | CommandError:
        if done.exit_code not in _NOT_RUN:
            error = remote_programs.os_error(done.stderr, path)
            if error is not None:
                return error
        return CommandError(
            f"{path} on {self.login}: {done.stderr.strip()[-500:] or 'no reason is given'}",
            command=argv,
            exit_code=done.exit_code,
            stderr=done.stderr,
        )

    @contextmanager
    def _transfer(self, path: object) -> Iterator[None]:
        try:
            yield
        except NoSuchFile:
            raise
        except TransferFailed as error:
            known = remote_programs.os_error(error.stderr, path)
            if isinstance(known, FileExistsError):  # says mkdir -p of a file where a folder must be
                number = errno.ENOTDIR
                known = OSError(number, os.strerror(number), known.filename)
            if known is None and isinstance(error.__cause__, OSError):
                known = error.__cause__
            if known is None:
                raise
            raise known from error


def _twice(call: Callable[[], T]) -> T:
    try:
        return call()
    except ConnectionLost:
        return call()


def _for_each(argv: list[str]) -> list[str]:
    """``argv`` for the words on stdin, as many at a time as a command takes."""
    return ["env", "LC_ALL=C", "xargs", "-0", *argv]


def _nul_ended(words: Sequence[bytes]) -> bytes:
    return b"".join(word + b"\0" for word in words)


def _groups(words: Sequence[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for word in words:
        if size + len(word) > _AT_ONCE:
            yield group
            group, size = [], 0
        group.append(word)
        size += len(word) + 1
    if group:
        yield group
