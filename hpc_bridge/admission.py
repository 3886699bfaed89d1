"""How fast, and how many jobs at a time, one user may submit to a cluster.

A small locked file per cluster serves all processes of the user on this machine.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from hpc_bridge.errors import HPCBridgeError, TooManyJobs
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.machine_files import locked, read_text, write_json

logger = logging.getLogger(__name__)

FORMAT = 1
_MINUTE = 60.0
_UNFINISHED_SECONDS = 300.0
"""A submission that never was seen to end, because its process was killed, counts for so long."""


class Answer(Protocol):
    """Of the scheduler, about all live jobs: a watcher's Snapshot."""

    @property
    def taken_at(self) -> datetime:
        """When it was asked for."""

    @property
    def jobs(self) -> Mapping[JobId, JobStatus]:
        """Every job of the user."""


@dataclass(slots=True)
class _Entry:
    """One submission. Times are of the machine's monotonic clock, which all processes share."""

    key: str
    name: str
    jobs: int
    came: float
    turn: float | None = None
    """When it goes out, perhaps in the future."""
    done: float | None = None


class Admission:
    """Lets submissions out one after the other.

    1. In no span of 60 s do more than ``per_minute`` go out; who comes too early waits his turn.
    2. A submission that would make more than ``live_jobs`` jobs live raises TooManyJobs. Counted
       are the user's jobs in the last shared answer, theirs that are not ours too, and those that
       were submitted since it was asked for. Before it is refused a newer answer is asked for.
       Nothing waits here until jobs end, which may take days: a worker tries again at its polling
       interval, a caller of a flow is told.
    3. A process that is killed gives its turn and its jobs back after five minutes at most.
    """

    def __init__(
        self,
        path: Path,
        ask: Callable[[datetime | None], Answer],
        *,
        per_minute: int | None = None,
        live_jobs: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.live_jobs = live_jobs
        self._path = path
        self._ask = ask
        self._per_minute = per_minute
        self._sleep = sleep
        self._monotonic = monotonic
        self._now = now
        self._has_told = False

    @contextlib.contextmanager
    def admitted(self, name: str, jobs: int) -> Iterator[None]:
        """Wait for the turn of a submission of ``jobs`` jobs, which is what the block does.

        Raises TooManyJobs, and what asking for the live jobs raises.
        """
        entry = _Entry(secrets.token_hex(4), name, jobs, self._monotonic())
        with self._entries() as entries:
            entries.append(entry)
        try:
            if self.live_jobs is not None:
                self._check(entry, self.live_jobs)
            if self._per_minute is not None:
                self._wait(self._take_turn(entry, self._per_minute))
            yield
        except BaseException as error:
            may_have_one = isinstance(error, HPCBridgeError) and error.retryable
            if isinstance(error, TooManyJobs) or not may_have_one:
                self._change(entry.key, remove=True)
            raise
        self._change(entry.key, done=self._monotonic())

    def _take_turn(self, mine: _Entry, per_minute: int) -> float:
        with self._entries() as entries:
            turns = sorted(entry.turn for entry in entries if entry.turn is not None)
            turn = self._monotonic()
            if len(turns) >= per_minute:
                turn = max(turn, turns[-per_minute] + _MINUTE)
            for entry in entries:
                if entry.key == mine.key:
                    entry.turn = turn
        return turn

    def _wait(self, turn: float) -> None:
        seconds = turn - self._monotonic()
        if seconds <= 0:
            return
        if not self._has_told:
            self._has_told = True
            logger.warning(
                "The site takes %s submissions a minute from one user: the next goes out in %.0f s,"
                " and so on.",
                self._per_minute,
                seconds,
            )
        self._sleep(seconds)

    def _check(self, entry: _Entry, limit: int) -> None:
        if entry.jobs > limit:
            raise TooManyJobs(
                f"{entry.jobs} jobs at once are more than the {limit} live jobs that the site"
                " allows one user; submit fewer at a time",
                retryable=False,
            )
        if self._live(entry, self._ask(None)) + entry.jobs <= limit:
            return
        live = self._live(entry, self._ask(self._now()))
        if live + entry.jobs > limit:
            what = "another" if entry.jobs == 1 else f"{entry.jobs} more"
            raise TooManyJobs(
                f"you have {live} live jobs, and the site allows one user {limit}: {what} can be"
                " submitted when others have ended"
            )

    def _live(self, mine: _Entry, answer: Answer) -> int:
        """Jobs in the answer, and those of earlier submissions that it cannot know.

        One that is tried again, after an answer that never came, counts once.
        """
        known = {mine.name, *(status.name for status in answer.jobs.values())}
        taken = self._monotonic() - (self._now() - answer.taken_at).total_seconds()
        live = sum(not status.state.is_terminal for status in answer.jobs.values())
        with self._entries() as entries:
            for entry in entries:
                if entry.key == mine.key:
                    break
                if entry.name not in known and (entry.done is None or entry.done >= taken):
                    known.add(entry.name)
                    live += entry.jobs
            # Every later answer knows of these.
            entries[:] = [e for e in entries if e.done is None or e.done >= taken or self._paces(e)]
        return live

    def _change(self, key: str, *, done: float | None = None, remove: bool = False) -> None:
        with self._entries() as entries:
            if remove:
                entries[:] = [entry for entry in entries if entry.key != key]
            for entry in entries:
                if entry.key == key:
                    entry.done = done

    def _matters(self, entry: _Entry) -> bool:
        """Whether it paces others, or may be a job that no answer has told of."""
        if self._paces(entry):
            return True
        at = entry.turn if entry.turn is not None else entry.came
        is_dead = entry.done is None and at < self._monotonic() - _UNFINISHED_SECONDS
        return not is_dead and (entry.done is None or self.live_jobs is not None)

    def _paces(self, entry: _Entry) -> bool:
        return entry.turn is not None and entry.turn > self._monotonic() - _MINUTE

    @contextlib.contextmanager
    def _entries(self) -> Iterator[list[_Entry]]:
        """What is stored, to be changed; without entries that can mean nothing any more."""
        with locked(self._path) as file:
            entries = [entry for entry in _parse(read_text(file)) if self._matters(entry)]
            yield entries
            write_json(
                file, {"format": FORMAT, "boot": _boot(), "entries": [asdict(e) for e in entries]}
            )


def _parse(text: str) -> list[_Entry]:
    """Nothing when that is of another start of the machine, of another format, or damaged."""
    try:
        stored: dict[str, Any] = json.loads(text)
        if stored["format"] != FORMAT or stored["boot"] != _boot():
            return []
        return [_Entry(**fields) for fields in stored["entries"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


@lru_cache(maxsize=1)
def _boot() -> str:
    """Tells one start of the machine from another, with which its monotonic clock begins."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
