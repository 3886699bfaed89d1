"""Brings what a job prints into its flow run's logs, while it runs."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.context import SettingsContext, get_settings_context
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, Settings, get_current_settings

from hpc_bridge.errors import CommandError, SharedDirectoryError
from hpc_bridge.journal import RunDirectory
from hpc_bridge.storage.cluster_files import Part
from hpc_bridge.tracking.lines import (
    CHUNK_BYTES,
    NEWEST_BYTES,
    Chunk,
    entries,
    line_breaks,
    newest_part,
    read_chunk,
    skip_to_newest,
)
from hpc_bridge.tracking.reader import Reader, output_size

logger = logging.getLogger(__name__)

FORMAT = 1
_POSITION = "relayed.json"
_POSITION_BYTES = 4096
"""More than it ever has."""
LOGGER_NAME = "hpc_bridge.job"
ENTRIES_PER_SECOND = 20.0
BYTES_PER_SECOND = 1024 * 1024 / 60
LONGEST_BACKLOG = 2 * 1024 * 1024
"""Output that is further behind than this is not caught up with but left out."""
_BURST_SECONDS = 60.0
_BATCHES_PER_CALL = 16
_FINAL_BATCHES = 8
"""Of the rest of an output, before its middle is left out: a server takes some 450 entries/s."""
# The server will not take these, however often they are sent.
_REFUSED = frozenset({400, 413, 422})


@dataclass(slots=True)
class _Batch:
    """What is sent by one request, which the server takes whole or not at all."""

    until: int
    """Where the output goes on after it."""
    first: datetime
    last: datetime
    left_out: int = 0


@dataclass(slots=True)
class _Position:
    """How far the output has been relayed; kept beside it, as ``relayed.json``."""

    offset: int = 0
    skipped_lines: int = 0
    last: datetime = field(default_factory=lambda: datetime.fromtimestamp(0, UTC))
    """The latest time that a log entry was given; each gets a later one."""
    sending: _Batch | None = None
    """On its way; whether the server has it is asked before anything else is sent."""

    @classmethod
    def read(cls, content: bytes | None) -> _Position:
        if content is None:
            return cls()
        stored = json.loads(content)
        if stored["format"] > FORMAT:
            raise ValueError(f"{_POSITION} is of format {stored['format']}, newer than this")
        batch = stored["sending"]
        return cls(
            stored["offset"],
            stored["skipped_lines"],
            datetime.fromisoformat(stored["last"]),
            batch
            and _Batch(
                batch["until"],
                datetime.fromisoformat(batch["first"]),
                datetime.fromisoformat(batch["last"]),
                batch["left_out"],
            ),
        )

    def written(self) -> bytes:
        content = {"format": FORMAT, **asdict(self)}
        return json.dumps(content, default=datetime.isoformat).encode()

    def sent(self, batch: _Batch) -> None:
        self.offset, self.sending = batch.until, None
        self.skipped_lines += batch.left_out


@cache
def _one_try() -> Settings:
    """The process's settings without retries; a copy takes 26 ms."""
    return get_current_settings().copy_with_update(updates={PREFECT_CLIENT_MAX_RETRIES: 0})


class OutputRelay:
    """One flow run's job output, sent as log entries of the flow run.

    1. What the flow's process sends by itself is left out, see ``hpc_bridge.node.console``.
    2. No line comes twice: a batch is noted before it is sent, and one whose answer was lost (with
       the connection, or with this process) is looked up on the server.
    3. At most ``entries_per_second`` and ``bytes_per_second`` on average, after a burst of a
       minute's worth. Output that outruns this by LONGEST_BACKLOG is left out up to its newest
       part, and an entry says so.
    4. One caller at a time; memory is bounded by a chunk, whatever the file is like.
    5. Over a connection nothing is asked for while there is nothing new, and the lines of what is
       left out are not counted.
    """

    def __init__(
        self,
        run: RunDirectory,
        element: int,
        flow_run_id: UUID,
        *,
        reader: Reader | None = None,
        entries_per_second: float = ENTRIES_PER_SECOND,
        bytes_per_second: float = BYTES_PER_SECOND,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._element = element
        self._flow_run_id = flow_run_id
        self._reader = reader or Reader()
        self._entries_per_second = entries_per_second
        self._bytes_per_second = bytes_per_second
        self._now = now
        self._clock = clock
        self._position: _Position | None = None
        self._path: Path | None = None
        self._read_to: int | None = None
        self._warned = False
        self._credit = _BURST_SECONDS
        self._credited_at = clock()

    async def relay(
        self, client: PrefectClient, *, size: int | None = None, final: bool = False
    ) -> bool:
        """Send what has been printed since the last call; whether all of it has been sent.

        ``size`` is that of the output, if it is known. ``final`` sends the rest at once, an
        unfinished last line too, up to LONGEST_BACKLOG. Raises nothing when server, connection or
        file system fail: it returns False, and the next call goes on from the same place.
        """
        try:
            return await self._relay(client, size=size, final=final)
        except httpx.HTTPError as error:
            logger.info("Output of %s waits for the server: %s", self._run.submission_id, error)
        except CommandError as error:
            logger.info("Output of %s waits for the cluster: %s", self._run.submission_id, error)
        except (OSError, SharedDirectoryError, ValueError, KeyError, TypeError) as error:
            level = logging.DEBUG if self._warned else logging.WARNING
            logger.log(level, "Output of %s is not relayed: %s", self._run.submission_id, error)
            self._warned = True
        return False

    async def _relay(self, client: PrefectClient, *, size: int | None, final: bool) -> bool:
        if self._position is None:
            at = Part(self._run.element(self._element) / _POSITION, 0, _POSITION_BYTES)
            self._position = _Position.read(await self._reader.part(self._run.files, at))
        position = self._position
        if position.sending is not None:
            await self._look_up(client, position, position.sending)
        if size is None:
            size = output_size(await self._reader.listing(self._run, self._element))
        if size is None or (size == self._read_to and not final):
            return True
        self._earn()
        for number in range(_BATCHES_PER_CALL):
            if self._credit <= 0 and not final:
                return False
            longest = NEWEST_BYTES if final and number >= _FINAL_BATCHES else LONGEST_BACKLOG
            chunk = await self._next_chunk(position.offset, size, longest, final)
            if chunk is None:
                self._read_to = size
                return True
            await self._send(client, position, chunk)
        return False

    async def _save(self, position: _Position) -> None:
        name = f"{self._element}/{_POSITION}"
        await self._reader.write(self._run, name, position.written())

    async def _next_chunk(self, offset: int, size: int, longest: int, final: bool) -> Chunk | None:
        """The next lines of the output, or a note that some are left out; None at its end."""
        if size < offset:
            return Chunk(0, ["... the output file was cut or replaced; from its start:"])
        if size - offset > longest:
            newest = await self._read(*newest_part(size))
            where = f"hpc-bridge logs {self._flow_run_id}, or {self._path}"
            return await asyncio.to_thread(
                skip_to_newest, newest, offset, size, where, self._line_breaks
            )
        content = await self._read(offset, min(CHUNK_BYTES, size - offset))
        return await asyncio.to_thread(read_chunk, content, offset, unfinished_too=final)

    async def _read(self, offset: int, limit: int) -> bytes:
        """Some bytes of the output."""
        files = self._run.files
        if limit == 0:
            return b""
        paths = [self._path] if self._path else self._run.outputs(self._element)
        wanted = [Part(path, offset, limit) for path in paths]
        found = await asyncio.gather(*(self._reader.part(files, part) for part in wanted))
        for path, content in zip(paths, found, strict=True):
            if content is not None:
                self._path = path
                return content
        return b""

    def _line_breaks(self, start: int, end: int) -> int:
        if self._path is None or not self._run.files.is_here:
            return 0
        return line_breaks(self._path, start, end)

    async def _send(self, client: PrefectClient, position: _Position, chunk: Chunk) -> None:
        messages = entries(chunk.lines)
        if not messages:
            position.offset = chunk.until
            if self._run.files.is_here:
                await self._save(position)
            return
        tick = timedelta(microseconds=1)
        first = max(self._now(), position.last + tick)
        position.last = first + (len(messages) - 1) * tick
        batch = _Batch(chunk.until, first, position.last, chunk.left_out)
        position.sending = batch
        await self._save(position)
        logs = [
            LogCreate(
                name=LOGGER_NAME,
                level=logging.INFO,
                message=message,
                timestamp=first + number * tick,
                flow_run_id=self._flow_run_id,
            )
            for number, message in enumerate(messages)
        ]
        try:
            # The client's own retries would send what the server may have taken already.
            with SettingsContext(profile=get_settings_context().profile, settings=_one_try()):
                await client.create_logs(logs)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _REFUSED:
                raise
            logger.warning("The server refused output of %s: %s", self._flow_run_id, error)
        self._credit -= max(
            len(messages) / self._entries_per_second,
            sum(map(len, messages)) / self._bytes_per_second,
        )
        position.sent(batch)
        if self._run.files.is_here:  # elsewhere a later process asks the server for the batch
            await self._save(position)

    async def _look_up(self, client: PrefectClient, position: _Position, batch: _Batch) -> None:
        """Whether the server took a batch whose answer never came."""
        margin = timedelta(milliseconds=1)
        around = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self._flow_run_id]),
            timestamp=LogFilterTimestamp(
                after_=batch.first - margin,
                before_=batch.first + margin,
            ),
        )
        found: list[Any] = await client.read_logs(around, limit=200)
        if any(log.name == LOGGER_NAME and log.timestamp == batch.first for log in found):
            position.sent(batch)
        else:
            position.sending = None

    def _earn(self) -> None:
        now = self._clock()
        self._credit = min(_BURST_SECONDS, self._credit + now - self._credited_at)
        self._credited_at = now
