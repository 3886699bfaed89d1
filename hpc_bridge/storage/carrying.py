"""Results that travel between a cluster and a process elsewhere."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from prefect.logging import get_logger

from hpc_bridge.errors import CommandError
from hpc_bridge.storage.progress import shown
from hpc_bridge.storage.reach import files_at
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.login import Login

logger = get_logger("hpc_bridge")

T = TypeVar("T")

# Of two tries each: files over a transport are asked for once more when the connection breaks.
_TRIES = 2
# Prefect 3.8 takes any error for a result that is still being written, and asks 10 times, a quarter
# of a second apart. Nobody is to log in, or to be asked for a password, 10 times as often for that.
_BELIEVED_SECONDS = 4.0
_failures: dict[tuple[Login, str, str], tuple[float, CommandError]] = {}


class RemoteFolder:
    """A folder of results on the file system of a cluster that is reached over its login host.

    A lost connection is made again, at most three times for each transfer. Raises CommandError for
    what keeps the cluster from being asked, and OSError for what is wrong there.
    """

    def __init__(self, login: Login, basepath: str) -> None:
        self.login = login
        self._files = files_at(login)
        self._basepath = basepath

    def read(self, path: str) -> bytes:
        """The content of a result.

        Raises FileNotFoundError, and ValueError for a path that leads out of the folder. Of a
        CommandError the message says where the result is kept.
        """
        place = f"{self._basepath.rstrip('/')}/{path}"
        with _believed((self.login, self._basepath, path)):
            try:
                place = _persistently(lambda: self.resolve(path))
                with shown(f"Result from {self.login}") as progress:
                    return _persistently(lambda: self._files.read(Path(place), progress=progress))
            except FileNotFoundError:
                raise
            except CommandError as error:
                raise _longer(error, place, self._kept(place)) from error

    def write(self, path: str, content: bytes) -> str:
        """Write a result, all of it or nothing; returns its absolute path."""
        place = Path(_persistently(lambda: self.resolve(path)))
        files = Files(str(place.parent), {place.name: content})
        with shown(f"Result to {self.login}") as progress:
            _persistently(lambda: self._files.put(files, progress=progress))
        return str(place)

    def resolve(self, path: str) -> str:
        """The absolute path. Raises ValueError for one that leads out of the folder."""
        base = posixpath.normpath(self._files.expanded(self._basepath))
        resolved = posixpath.normpath(posixpath.join(base, path))
        if not Path(resolved).is_relative_to(base) or not base.startswith("/"):
            raise ValueError(f"{path!r} lies outside of {self._basepath} on {self.login}")
        return resolved

    def exists(self) -> bool:
        """Whether there is the folder."""
        return self._files.entry(Path(self.resolve("."))) is not None

    def _kept(self, place: str) -> str:
        return (
            f"The flow itself has not failed by this: what it returned or raised is kept in {place}"
            f" on {self.login}. When the host can be reached again, result() of the future, or of"
            " the flow run's state, brings it."
        )


def _persistently(transfer: Callable[[], T]) -> T:
    """Again when that may help; the pauses between logins are the transport's."""
    for _ in range(1, _TRIES):
        try:
            return transfer()
        except CommandError as error:
            if not error.retryable:
                raise
            logger.info("%s; trying again", error)
    return transfer()


@contextmanager
def _believed(key: tuple[Login, str, str]) -> Iterator[None]:
    """What has failed fails the same way for a moment, without being tried."""
    until, error = _failures.get(key, (0.0, None))
    if error is not None and time.monotonic() < until:
        raise error
    try:
        yield
    except FileNotFoundError:
        raise
    except CommandError as failure:
        now = time.monotonic()
        for other in [other for other, (end, _) in list(_failures.items()) if end < now]:
            _failures.pop(other, None)
        _failures[key] = now + _BELIEVED_SECONDS, failure
        raise


def _longer(error: CommandError, place: str, advice: str) -> CommandError:
    longer = type(error)(
        f"{error}\n{advice}",
        command=error.command,
        exit_code=error.exit_code,
        stderr=error.stderr,
        retryable=error.retryable,
    )
    longer.kept_in = place
    return longer
