"""The state directory of the embedded scheduler: records, locks, ids and the queue.

    <state>/lock              held while an id or a place in the queue is taken
            last_id           ids increase and are never used again
            jobs/<id>/        job.json (the record), script, environ, keeper.log
                              alive    locked by the job's own process for as long as it lives
                              control  pipe on which that process takes orders
            recent/<id>       empty; the jobs that a status shows
            queue/<number>    places in the queue, each locked by the job that has it
            slots/<number>    one per CPU, locked by the job that uses it

A record is written by whoever holds ``alive``, and by nobody else; a terminal record never
changes. The kernel drops the locks of a process that dies, whatever it died of: so no file lies.
Standard library only (see ``local_directives``).
"""

# pathlib is not used: importing it takes as long as all else that a start does.
from __future__ import annotations

import fcntl
import json
import os
import time
from datetime import UTC, datetime

from hpc_bridge.schedulers.local_directives import Fields, Refused, Request
from hpc_bridge.schedulers.local_processes import marked, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEPARATOR = "\x1f"
COLUMNS = (
    "id",
    "name",
    "state",
    "reason",
    "exit_code",
    "signal",
    "node",
    "submitted",
    "started",
    "ended",
    "estimated_start",
    "cpus",
    "memory",
    "cpu_seconds",
    "max_memory",
)
"""Of one line of ``status``, ``history`` and ``find``."""

LIVE = frozenset({"PENDING", "HELD", "RUNNING", "COMPLETING", "REQUEUED"})
WAITING = frozenset({"PENDING", "HELD", "REQUEUED"})
SHOWN_SECONDS = 300
KEPT_SECONDS = 7 * 86400
_CLEANING_INTERVAL = 3600
_KILL = 9


class Record(Fields):
    """What is known of a job. Times are UTC in ISO form."""

    format: int = 1
    id: int
    name: str
    uid: int
    cpus: int
    slots: int
    """CPUs that this job's scheduler may use, all jobs together."""
    umask: int
    machine: str
    node: str
    submit_dir: str
    submitted: str
    request: dict[str, Any]
    state: str = "PENDING"
    reason: str = ""
    restarts: int = 0
    started: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    cancelled_by: str | None = None
    cpu_seconds: float | None = None
    max_memory: int | None = None
    """Of the largest process, in MiB."""

    def asked(self) -> Request:
        return Request(**self.request)

    def line(self) -> str:
        begin = self.request.get("begin") if self.state == "PENDING" else None
        shown: dict[str, object] = {
            **vars(self),
            "state": f"CANCELLED by {self.cancelled_by}" if self.cancelled_by else self.state,
            "estimated_start": None if begin is None else iso(begin),
            "memory": self.asked().memory,
        }
        return SEPARATOR.join(_cell(shown[column]) for column in COLUMNS)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def machine() -> str:
    """What tells this machine from another one that sees the same directory."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename


def acquire(path: str) -> int:
    """A descriptor that holds the lock of ``path``."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def try_acquire(path: str) -> int | None:
    """As ``acquire``; None when another process holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


class Store:
    """A state directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)

    def prepare(self) -> None:
        for name in ("", "jobs", "recent", "queue", "slots"):
            os.makedirs(os.path.join(self.root, name), mode=0o700, exist_ok=True)
        if os.stat(self.root).st_uid != os.getuid():
            raise Refused(f"the state directory {self.root} belongs to somebody else")

    def lock(self) -> int:
        return acquire(os.path.join(self.root, "lock"))

    def folder(self, job: int) -> str:
        return os.path.join(self.root, "jobs", str(job))

    def file(self, job: int, name: str) -> str:
        return os.path.join(self.folder(job), name)

    # ids and records

    def new_id(self) -> int:
        """Make the folder of a new job. The caller holds the lock."""
        counter = os.path.join(self.root, "last_id")
        try:
            with open(counter, encoding="ascii") as file:
                job = int(file.read())
        except (OSError, ValueError):
            job = max(self.jobs(), default=0)
        while True:
            job += 1
            try:
                os.mkdir(self.folder(job), 0o700)
            except FileExistsError:
                continue
            _write(counter, str(job))
            return job

    def jobs(self) -> list[int]:
        return _numbers(os.path.join(self.root, "jobs"))

    def read(self, job: int) -> Record:
        """Raises FileNotFoundError without a record and ValueError when it cannot be read."""
        with open(self.file(job, "job.json"), encoding="utf-8") as file:
            fields = json.load(file)
        if not isinstance(fields, dict):
            raise ValueError("it is no object")
        record = Record(**fields)
        record.asked()
        return record

    def write(self, record: Record) -> None:
        """The caller holds ``alive`` of the job."""
        _write(self.file(record.id, "job.json"), json.dumps(vars(record), indent=1))

    def show(self, job: int) -> None:
        os.close(os.open(os.path.join(self.root, "recent", str(job)), os.O_CREAT, 0o600))

    def recent(self) -> list[int]:
        return _numbers(os.path.join(self.root, "recent"))

    def hide(self, job: int) -> None:
        _remove(os.path.join(self.root, "recent", str(job)))

    def judged(self, job: int) -> Record:
        """The record, set to NODE_FAIL when the job's own process is gone without an end."""
        record = self.read(job)
        if record.state not in LIVE or record.machine != machine():
            return record  # another machine's locks may not be seen here
        alive = try_acquire(self.file(job, "alive"))
        if alive is None:
            return record
        try:
            record = self.read(job)
            if record.state in LIVE:
                send(marked(self.folder(job)), _KILL)
                record.state, record.ended = "NODE_FAIL", iso(time.time())
                record.reason = "the job's own process vanished: killed, or the machine restarted"
                self.write(record)
            return record
        finally:
            os.close(alive)

    # the queue

    def enqueue(self) -> tuple[int, int]:
        """Take the last place: its number and the descriptor that holds it. Under the lock."""
        number = max(self.places(), default=0) + 1
        return number, acquire(self.place(number))

    def places(self) -> list[int]:
        return _numbers(os.path.join(self.root, "queue"))

    def place(self, number: int) -> str:
        return os.path.join(self.root, "queue", str(number))

    def leave(self, number: int) -> None:
        _remove(self.place(number))

    def slot(self, number: int) -> str:
        return os.path.join(self.root, "slots", str(number))

    # old records

    def clean(self, now: float) -> None:
        """Remove what ended more than a week ago; looks at most once an hour."""
        stamp = os.path.join(self.root, "cleaned")
        try:
            if now - os.stat(stamp).st_mtime < _CLEANING_INTERVAL:
                return
        except FileNotFoundError:
            pass
        _write(stamp, "")
        for job in self.jobs():
            if self._is_old(job, now):
                self._remove_job(job)

    def _is_old(self, job: int, now: float) -> bool:
        try:
            record = self.read(job)
            ended = record.ended and datetime.fromisoformat(record.ended).timestamp()
            return record.state not in LIVE and now - (ended or 0) > KEPT_SECONDS
        except (OSError, ValueError):
            pass
        try:
            return now - os.stat(self.folder(job)).st_mtime > KEPT_SECONDS
        except OSError:
            return False

    def _remove_job(self, job: int) -> None:
        import shutil

        try:
            alive = try_acquire(self.file(job, "alive"))
        except FileNotFoundError:
            return  # another submission cleans too
        if alive is not None:
            shutil.rmtree(self.folder(job), ignore_errors=True)
            self.hide(job)
            os.close(alive)


def _numbers(folder: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    except FileNotFoundError:
        return []


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.replace(temporary, path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
