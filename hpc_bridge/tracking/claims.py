"""Which process looks after which submission, so that two never do.

    <shared dir>/trackers/<id>.json         a process: where it runs; touched while it lives
    <shared dir>/runs/<submission>/tracker.<n>   the id of a process; the highest number holds
    <shared dir>/trackers/worker-<hash>/tracker.<n>   the same for the name of a worker

A claim is taken by making the next number, which only one can (link(2) is atomic on NFS too); so no
number is ever removed. It is free when its process has released it or is dead: on the same machine
that is seen at once, else when the process's file has not been touched for two minutes. Both times
come from the file server, so that no two clocks are compared.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_bridge.errors import WorkerNameTaken
from hpc_bridge.files import write_private
from hpc_bridge.journal import RunDirectory, shared_directory_errors

logger = logging.getLogger(__name__)

FORMAT = 1
RENEW_SECONDS = 20.0
DEAD_AFTER_SECONDS = 120.0
_KEPT_SECONDS = 86400.0
_RELEASED = b"released\n"
_ID = re.compile(r"[\w.-]{1,200}")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that looks after submissions."""

    id: str
    host: str
    pid: int
    worker: str | None
    """``<pool>/<name>`` of a worker; None for any other process."""
    place: str
    pid_started: str

    def __str__(self) -> str:
        who = f"worker {self.worker!r}" if self.worker else "a process"
        return f"{who} (pid {self.pid} on {self.host})"


class Claims:
    """This process's claims on the submissions of one shared directory. Every method may block."""

    def __init__(self, shared: Path) -> None:
        self._folder = shared / "trackers"
        self._pid = os.getpid()
        self._id = f"{socket.gethostname()}-{self._pid}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._known = False
        self._worker: str | None = None
        self._ended = threading.Event()

    @property
    def id(self) -> str:
        """Of this process, as ``living`` names it."""
        return self._id

    def take(self, run: RunDirectory) -> bool:
        """Claim a submission, or find that it is this process's already.

        False when another process that lives holds it. Raises SharedDirectoryError.
        """
        self._make_known()
        with shared_directory_errors(run.shared):
            number, holder = _newest(run)
            if holder == self._id:
                return True
            if holder is not None and self._lives(holder):
                return False
            return self._link(run, number + 1)

    def release(self, run: RunDirectory) -> None:
        """Give a claim back; that it cannot be is no harm, since this process will end."""
        with contextlib.suppress(OSError):
            number, holder = _newest(run)
            if holder == self._id:
                write_private(run.path / f"tracker.{number}", _RELEASED)

    def holds(self, run: RunDirectory) -> bool:
        """Whether the claim is still this process's. Raises SharedDirectoryError."""
        with shared_directory_errors(run.shared):
            return _newest(run)[1] == self._id

    def serve_as(self, pool: str, name: str) -> None:
        """Be known as a worker. Raises WorkerNameTaken when another of that name lives."""
        self._make_known()
        worker = f"{pool}/{name}"
        taken = RunDirectory(self._folder / f"worker-{hashlib.sha256(worker.encode()).hexdigest()}")
        with shared_directory_errors(self._folder.parent):
            taken.path.mkdir(mode=0o700, exist_ok=True)
            if not self.take(taken):
                other = self._read(_newest(taken)[1] or "") or "another process"
                raise WorkerNameTaken(
                    f"{other} serves pool {pool!r} under the name {name!r} already; stop it, or"
                    " give this one another --name"
                )
            with self._lock:
                self._worker = worker
                self._write()

    def living(self) -> list[Holder]:
        """Every process known here that lives. Raises SharedDirectoryError."""
        self._make_known()
        with shared_directory_errors(self._folder.parent):
            known = [self._read(path.stem) for path in self._folder.glob("*.json")]
            return [holder for holder in known if holder is not None and self._lives(holder.id)]

    def dead_workers(self) -> set[str]:
        """``<pool>/<name>`` of workers that have died; their files are removed after a day."""
        lives = {holder.worker for holder in self.living()}
        dead = set()
        with shared_directory_errors(self._folder.parent):
            for path in self._folder.glob("*.json"):
                holder = self._read(path.stem)
                if holder is None or self._lives(path.stem):
                    continue
                if holder.worker is not None:
                    dead.add(holder.worker)
                with contextlib.suppress(FileNotFoundError):
                    if self._silence(path.stem) > _KEPT_SECONDS:
                        path.unlink()
        return dead - {worker for worker in lives if worker is not None}

    def end(self) -> None:
        """Hold nothing any more: others may take over at once."""
        if os.getpid() != self._pid:
            return  # a forked child that ends is not this process
        self._ended.set()
        with self._lock:
            self._known = False
            with contextlib.suppress(OSError):
                self._path(self._id).unlink(missing_ok=True)

    def _make_known(self) -> None:
        with self._lock:
            if self._known:
                return
            with shared_directory_errors(self._folder.parent):
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._write()
            self._known = True
            self._ended.clear()
            threading.Thread(target=self._renew, name="hpc-bridge-claims", daemon=True).start()
            atexit.register(self.end)

    def _write(self) -> None:
        me: dict[str, Any] = {
            "format": FORMAT,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "worker": self._worker,
            "place": _place(),
            "pid_started": _pid_started(os.getpid()) or "",
        }
        write_private(self._path(self._id), json.dumps(me).encode())

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                os.utime(self._path(self._id))
            except FileNotFoundError:
                with self._lock, contextlib.suppress(OSError):
                    if self._known:
                        self._write()
            except OSError as error:
                logger.warning("The shared directory does not answer: %s", error)

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"

    def _read(self, identity: str) -> Holder | None:
        """None when there is no such process, or it is of a version that says other things."""
        try:
            stored = json.loads(self._path(identity).read_bytes())
            return Holder(
                identity,
                str(stored["host"]),
                int(stored["pid"]),
                stored.get("worker"),
                str(stored["place"]),
                str(stored["pid_started"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _lives(self, identity: str) -> bool:
        holder = self._read(identity)
        if holder is not None and _is_gone(holder):
            return False
        try:  # a process that was stopped or hangs does not renew either
            return self._silence(identity) < DEAD_AFTER_SECONDS
        except FileNotFoundError:
            return False

    def _silence(self, identity: str) -> float:
        """Seconds since a process renewed its file; raises FileNotFoundError without one."""
        renewed = self._path(identity).stat().st_mtime
        own = self._path(self._id)
        try:
            os.utime(own)
        except FileNotFoundError:  # somebody has cleared up there: that is nobody else's death
            with self._lock:
                self._write()
        return own.stat().st_mtime - renewed

    def _link(self, run: RunDirectory, number: int) -> bool:
        aside = run.path / f".tracker.{self._id}.{secrets.token_hex(4)}"
        write_private(aside, self._id.encode() + b"\n")
        try:
            os.link(aside, run.path / f"tracker.{number}")
        except FileExistsError:
            return False
        finally:
            aside.unlink(missing_ok=True)
        return True


_claims: dict[tuple[int, Path], Claims] = {}
_making = threading.Lock()


def claims_on(shared: Path) -> Claims:
    """This process's claims in a shared directory; a forked child has its own."""
    shared = shared.resolve()  # two spellings of one folder are one
    with _making:
        key = os.getpid(), shared
        if key not in _claims:
            _claims[key] = Claims(shared)
        return _claims[key]


def _newest(run: RunDirectory) -> tuple[int, str | None]:
    """(number, process) of the newest claim; no process when it is released or damaged.

    The number is -1 when there never was one.
    """
    names = (path.name.partition(".") for path in run.path.iterdir())
    numbers = [int(rest) for stem, _, rest in names if stem == "tracker" and rest.isdecimal()]
    if not numbers:
        return -1, None
    content = (run.path / f"tracker.{max(numbers)}").read_bytes()
    holder = content.decode(errors="replace").strip()
    is_held = content != _RELEASED and _ID.fullmatch(holder)
    return max(numbers), holder if is_held else None


def _is_gone(holder: Holder) -> bool:
    """Whether it can be seen from here that the process has ended."""
    return holder.place == _place() and _pid_started(holder.pid) != holder.pid_started


def _place() -> str:
    """Where process ids mean the same: one boot of one machine, one namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _pid_started(pid: int) -> str | None:
    """Ticks since boot at which a process started (proc(5)); None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
