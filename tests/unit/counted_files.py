"""A cluster elsewhere, whose files lie here all the same: what it costs to ask it is counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hpc_bridge.errors import Unreachable
from hpc_bridge.storage.remote_files import RemoteFiles
from hpc_bridge.transports.base import Completed, Progress
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import LOCAL


class CountedTransport(LocalTransport):
    """Counts what would be commands on a login host."""

    def __init__(self) -> None:
        super().__init__()
        self.commands = 0
        self.bytes = 0
        """That came back as output."""
        self.is_away = False
        self.comes_back_after: int | None = None
        """So many commands later."""

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        self._happens()
        done = super().run(argv, **options)
        self.bytes += len(done.raw)
        return done

    def put(self, *args: Any, **options: Any) -> None:
        self._happens()
        super().put(*args, **options)

    def get(self, *args: Any, **options: Any) -> bytes:
        self._happens()
        return super().get(*args, **options)

    def _happens(self) -> None:
        self.commands += 1
        if self.is_away:
            if self.comes_back_after is not None:
                self.comes_back_after -= 1
                self.is_away = self.comes_back_after > 0
            raise Unreachable("there is no connection to alpha now")


class CountedFiles(RemoteFiles):
    """Those of this machine as if they were another's."""

    transport: CountedTransport

    def __init__(self) -> None:
        super().__init__(LOCAL, CountedTransport())

    @property
    def commands(self) -> int:
        """Remote commands so far."""
        return self.transport.commands


class Seen:
    """In place of what shows a transfer to somebody who waits."""

    def __init__(self) -> None:
        self.figures: dict[str, list[tuple[int, int | None]]] = {}

    @contextmanager
    def shown(self, what: str) -> Iterator[Progress]:
        """As ``progress.shown``."""
        yield lambda *figures: self.figures.setdefault(what, []).append(figures)
