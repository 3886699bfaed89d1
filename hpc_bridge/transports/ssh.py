"""Commands and files of a host that is reached over SSH, whoever speaks it."""

from __future__ import annotations

import io
import os
import secrets
import shlex
import shutil
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from hpc_bridge.errors import (
    CommandError,
    CommandTimeout,
    ConnectionLost,
    HPCBridgeError,
    NoSuchFile,
    TransferFailed,
)
from hpc_bridge.transports import remote_files as files_there
from hpc_bridge.transports.archive import (
    CHUNK,
    Meter,
    chunks_of,
    sha256_of,
    size_of,
    size_of_tree,
    unpack,
)
from hpc_bridge.transports.base import (
    STALL_SECONDS,
    Completed,
    Files,
    Progress,
    Stdin,
    Transport,
)
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.link import Link, release, shared
from hpc_bridge.transports.remote_shell import COMMAND, TRANSFER, Exchange, words

# A packet of SSH arrives whole or not at all. Longer input waits on the other side until all of it
# is there: half a job script must not be submitted. Still longer input is the command's own care.
_ONE_PACKET, _KEPT_ASIDE = 16_000, 2**23
_CHECK_SECONDS = 60.0


class SSHTransport(Transport):
    """Everything but how to connect, which is ``_make_link``'s."""

    def __init__(self, key: tuple[object, ...]) -> None:
        """``key``: equal ones share a connection; host and port come last."""
        self._key = (type(self), *key)
        self._shared: Link | None = None
        self._sharing = threading.Lock()
        self._user: str | None = None

    @abstractmethod
    def _make_link(self) -> Link:
        """The connection to be, when no other transport of this process has it."""

    @property
    def place(self) -> str:
        """The host and port whose budget of logins it uses."""
        return f"{self._key[-2]}-{self._key[-1]}"

    @property
    def link(self) -> Link:
        """The connection, made by the first command."""
        with self._sharing:
            if self._shared is None:
                self._shared = shared(self._key, self._make_link)
            return self._shared

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
        meter = Meter(progress, size_of(files.content) if progress and files else None)
        exchange = self._exchange_for(words(argv, unset), stdin, files, meter)
        deadline = Deadline(total=timeout)
        if files is not None:  # they take as long as they take
            exchange.stdin = _moving(exchange.stdin, deadline)
        try:
            self._carry(exchange, deadline, may_log_in=may_log_in)
        except CommandError as error:
            if not error.command:
                error.command = list(argv)
                if isinstance(error, CommandTimeout):  # else it has not run
                    command = shlex.join("..." if "\n" in word else word for word in argv)
                    error.args = (f"{error}: {command}"[:2000], *error.args[1:])
            raise
        return Completed(
            exchange.end[0] if exchange.end else -1,
            exchange.stdout.decode(errors="replace"),
            exchange.stderr.decode(errors="replace"),
            bytes(exchange.stdout),
        )

    def _exchange_for(self, step: str, stdin: Stdin, files: Files | None, meter: Meter) -> Exchange:
        if not isinstance(stdin, bytes):
            if files is not None:
                raise TypeError("with files to be put, the input of a command is bytes")
            return Exchange(step, _word(), stdin=stdin)
        if files is None and not _ONE_PACKET < len(stdin) <= _KEPT_ASIDE:
            return Exchange(step, _word(), stdin=chunks_of(stdin))
        # Where the files go there is room; without any, /tmp it is: a script is small.
        folder = files.folder if files else "/tmp"  # noqa: S108
        archive = files_there.sending(files, meter, stdin)
        return self._archive_exchange(folder, archive, step)

    def _archive_exchange(
        self, folder: str, archive: Iterable[bytes], then: str | None = None
    ) -> Exchange:
        # Messages may name the folder aside, so its word is not that of the marks.
        aside = files_there.aside_of(folder, _word())
        steps = files_there.receiving(aside, then)
        return Exchange(steps, _word(), stdin=archive, leftover=aside)

    def user(self) -> str:
        if self._user is None:
            done = self.run(["id", "-un"], timeout=_CHECK_SECONDS)
            if done.exit_code != 0:
                raise CommandError(f"{self.link.name} does not say who we are: {done.stderr}")
            self._user = done.stdout.strip()
        return self._user

    # files

    def put(self, files: Files, *, progress: Progress | None = None) -> None:
        meter = Meter(progress, size_of(files.content) if progress else None)
        archive = files_there.sending(files, meter)
        self._transfer(self._archive_exchange(files.folder, archive), files.folder)
        meter.tell()

    def put_tree(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        meter = Meter(progress, size_of_tree(local) if progress else None)
        archive = files_there.sending_tree(local, remote, meter)
        folder = str(PurePosixPath(remote).parent)
        self._transfer(self._archive_exchange(folder, archive), remote)
        meter.tell()

    def get(self, path: str, *, progress: Progress | None = None) -> bytes:
        content = io.BytesIO()  # whose value is no second copy
        self._read(path, content.write, progress)
        return content.getvalue()

    def get_file(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        aside = local.with_name(f".{local.name}.{_word()}")
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                self._read(remote, file.write, progress)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(local)
        finally:
            aside.unlink(missing_ok=True)

    def _read(self, path: str, write: Callable[[bytes], object], progress: Progress | None) -> None:
        back = files_there.FileBack(write, lambda size: Meter(progress, size))
        self._transfer(Exchange(files_there.reading(path), _word(), sink=back), path)
        back.check(path)

    def get_tree(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        if local.exists():
            raise TransferFailed(f"{local} exists already")
        aside = local.with_name(f".{local.name}.{_word()}")
        meter = Meter(progress, None)
        unpacking = _Unpacking(aside, meter)
        try:
            with unpacking:
                exchange = Exchange(files_there.reading_tree(remote), _word(), sink=unpacking.write)
                self._transfer(exchange, remote)
            unpacking.check(remote)
            aside.rename(local)
            meter.tell()
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        exchange = Exchange(files_there.reading_part(path, offset, limit), _word())
        self._transfer(exchange, path)
        return bytes(exchange.stdout)

    def _transfer(self, exchange: Exchange, path: str) -> None:
        self._carry(exchange, Deadline(stall=STALL_SECONDS))
        code, _ = exchange.end or (-1, TRANSFER)
        if code == files_there.NO_SUCH_FILE:
            raise NoSuchFile(f"there is no {path} on {self.link.name}", exit_code=code)
        if code != 0:
            raise self._failed_transfer(exchange, path)

    def _failed_transfer(self, exchange: Exchange, where: str) -> TransferFailed:
        said = exchange.stderr.decode(errors="replace").strip()
        return TransferFailed(
            f"files could not be moved to or from {where} on {self.link.name}: {said[-1000:]}",
            exit_code=exchange.end[0] if exchange.end else None,
            stderr=said,
        )

    # the one way out

    def _carry(self, exchange: Exchange, deadline: Deadline, *, may_log_in: bool = True) -> None:
        self.link.carry(exchange, deadline, may_log_in=may_log_in)
        if exchange.end is None:
            if not exchange.started:
                raise CommandError(self._not_begun(exchange.unasked))
            raise ConnectionLost(
                f"the shell of a command on {self.link.name} was killed; whether the command took"
                " effect is unknown"
            )
        code, stage = exchange.end
        if exchange.leftover and stage != COMMAND and code != 0:
            raise self._failed_transfer(exchange, str(PurePosixPath(exchange.leftover).parent))

    def _not_begun(self, said: str) -> str:
        return (
            f"{self.link.name} runs no commands of ours. It said: {said[-500:] or 'nothing'}\n"
            "hpc-bridge runs `sh` there, with the scheduler's commands and"
            f" {', '.join(files_there.NEEDED)}. A ForceCommand, a command= in authorized_keys, a"
            " restricted login shell, or an expired account stands in the way: ask the site for an"
            " account or key without it."
        )

    def check(self) -> list[str]:
        missing = "for n in {}; do command -v $n >/dev/null || echo $n; done".format(
            " ".join(files_there.NEEDED)
        )
        sums = "command -v sha256sum >/dev/null || command -v shasum >/dev/null || echo sha256sum"
        gnu = "find / -maxdepth 0 -printf '' >/dev/null 2>&1 || echo GNU find"
        try:
            done = self.run(["sh", "-c", f"{missing}; {sums}; {gnu}"], timeout=_CHECK_SECONDS)
        except HPCBridgeError as error:
            return [str(error)]
        return [
            f"{name} is missing on {self.link.name}; hpc-bridge needs it to move files and to end"
            " commands"
            for name in done.stdout.splitlines()
        ]

    def close(self) -> None:
        with self._sharing:
            link, self._shared = self._shared, None
        if link is not None:
            release(self._key)


def _moving(chunks: Iterable[bytes], deadline: Deadline) -> Iterator[bytes]:
    for chunk in chunks:
        deadline.restart()
        yield chunk


def _word() -> str:
    """A random one, which no output holds by chance."""
    return secrets.token_hex(8)


class _Unpacking:
    """A thread that unpacks what is written to it."""

    def __init__(self, folder: Path, meter: Meter) -> None:
        self._folder = folder
        self._meter = meter
        self._sums: dict[str, str] = {}
        self._error: Exception | None = None

    def __enter__(self) -> _Unpacking:
        reader, writer = os.pipe()
        self._reader = os.fdopen(reader, "rb", CHUNK)
        self._writer = os.fdopen(writer, "wb", 0)
        self._thread = threading.Thread(target=self._unpack, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._writer.close()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def write(self, data: bytes) -> None:
        """Take some of the stream."""
        if self._error is not None:
            raise self._error
        view = memoryview(data)
        while view:
            view = view[self._writer.write(view) or 0 :]
        self._meter.add(len(data))

    def _unpack(self) -> None:
        with self._reader as stream:
            try:
                self._sums = files_there.read_sums(stream)
                unpack(stream, self._folder)
            except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
                self._error = error
            while stream.read(CHUNK):  # what pads an archive, and what an error left
                pass

    def check(self, path: str) -> None:
        """Compare the sums. Raises TransferFailed."""
        for name, digest in self._sums.items():
            if sha256_of(self._folder / name) != digest:
                raise TransferFailed(
                    f"{path}/{name}: what arrived is not what was sent", retryable=True
                )
