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
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_bridge.errors import HPCBridgeError, WorkerNameTaken
from hpc_bridge.journal import RunDirectory, shared_directory_errors
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles, Part
from hpc_bridge.tracking.complaint import Complaint
from hpc_bridge.tracking.holders import Holder, is_gone, pid_started, place, read_holder
from hpc_bridge.transports.base import Files

logger = logging.getLogger(__name__)

FORMAT = 1
RENEW_SECONDS = 20.0
RENEW_ELSEWHERE_SECONDS = 45.0
"""Over a connection, where it is a command on the login host."""
DEAD_AFTER_SECONDS = 120.0
END_SECONDS = 5.0
"""A process that ends does not wait longer for anybody; its claims are free soon anyway."""
_KEPT_SECONDS = 86400.0
_RELEASED = b"released\n"
_ID = re.compile(r"[\w.-]{1,200}")


class Claims:
    """This process's claims on the submissions of one shared directory. Every method may block.

    Raises SharedDirectoryError for what is wrong with it, and the CommandErrors of a connection.
    """

    def __init__(self, shared: Path, files: ClusterFiles = HERE) -> None:
        self._folder = shared / "trackers"
        self._files = files
        self._pid = os.getpid()
        self._id = f"{socket.gethostname()}-{self._pid}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._known = False
        self._worker: str | None = None
        self._begun: dict[RunDirectory, float] = {}
        self._ended = threading.Event()

    @property
    def id(self) -> str:
        """Of this process, as ``living`` names it."""
        return self._id

    def first(self, run: RunDirectory) -> tuple[str, bytes]:
        """Name and content of the file that claims a submission which nobody else knows yet."""
        self._make_known()
        self._begun[run] = time.monotonic()
        return "tracker.0", self._content

    def take(self, run: RunDirectory) -> bool:
        """Claim a submission, or find that it is this process's already.

        False when another process that lives holds it.
        """
        self._make_known()
        begun = self._begun.pop(run, None)
        if begun is not None and time.monotonic() - begun < RENEW_SECONDS:
            return True  # nobody can have been faster
        with shared_directory_errors(run.shared):
            number, holder = _newest([run])[run]
            if holder == self._id:
                return True
            if holder is not None and self._lives(holder):
                return False
            return self._link(run, number + 1)

    def release(self, run: RunDirectory) -> None:
        """Give a claim back; that it cannot be is no harm, since this process will end."""
        with contextlib.suppress(OSError, HPCBridgeError):
            number, holder = _newest([run])[run]
            if holder == self._id:
                run.write(f"tracker.{number}", _RELEASED)

    def held(self, runs: Collection[RunDirectory]) -> set[RunDirectory]:
        """Those of ``runs`` whose claim is still this process's."""
        with shared_directory_errors(self._folder.parent):
            newest = _newest(runs)
        return {run for run, (_, holder) in newest.items() if holder == self._id}

    def free(self, runs: Collection[RunDirectory]) -> set[RunDirectory]:
        """Those of ``runs`` that are worth taking: no other process that lives holds them."""
        self._make_known()
        with shared_directory_errors(self._folder.parent):
            newest = _newest(runs, leaves_out_gone=True)
            others = {holder for _, holder in newest.values() if holder and holder != self._id}
            found = self._look(*others) if others else []
        living = {known.path.stem for known in found if known.lives}
        return {run for run, (_, holder) in newest.items() if holder not in living}

    def serve_as(self, pool: str, name: str) -> None:
        """Be known as a worker. Raises WorkerNameTaken when another of that name lives."""
        self._make_known()
        worker = f"{pool}/{name}"
        folder = self._folder / f"worker-{hashlib.sha256(worker.encode()).hexdigest()}"
        taken = RunDirectory(folder, self._files)
        with shared_directory_errors(self._folder.parent):
            self._files.make_folder(folder)
            if not self.take(taken):
                other = self._holder(_newest([taken])[taken][1] or "") or "another process"
                raise WorkerNameTaken(
                    f"{other} serves pool {pool!r} under the name {name!r} already; stop it, or"
                    " give this one another --name"
                )
            with self._lock:
                self._worker = worker
                self._write()

    def lead(self, pool_id: object) -> bool:
        """Whether this process is the one of a pool's workers that clears up."""
        self._make_known()
        folder = self._folder / f"pool-{pool_id}"
        with shared_directory_errors(self._folder.parent):
            self._files.make_folder(folder)
        return self.take(RunDirectory(folder, self._files))

    def living(self) -> list[Holder]:
        """Every process known here that lives."""
        self._make_known()
        with shared_directory_errors(self._folder.parent):
            return [known.holder for known in self._look() if known.holder and known.lives]

    def dead_workers(self) -> set[str]:
        """``<pool>/<name>`` of workers that have died; their files are removed after a day."""
        self._make_known()
        with shared_directory_errors(self._folder.parent):
            found = self._look()
            old = [
                known.path for known in found if not known.lives and known.silence > _KEPT_SECONDS
            ]
            self._files.remove(*old)
        lives = {known.holder.worker for known in found if known.holder and known.lives}
        dead = {known.holder.worker for known in found if known.holder and not known.lives}
        return {worker for worker in dead - lives if worker is not None}

    def end(self) -> None:
        """Hold nothing any more: others may take over at once."""
        if os.getpid() != self._pid:
            return  # a forked child that ends is not this process
        self._ended.set()
        if not self._lock.acquire(timeout=END_SECONDS):  # the shared directory hangs
            return
        try:
            was_known, self._known = self._known, False
            if was_known:
                with contextlib.suppress(OSError, HPCBridgeError):
                    self._files.remove_at_end(self._path(self._id), END_SECONDS)
        finally:
            self._lock.release()

    def _make_known(self) -> None:
        with self._lock:
            if self._known:
                return
            with shared_directory_errors(self._folder.parent):
                self._write()
            self._known = True
            self._ended.clear()
            threading.Thread(target=self._renew, name="hpc-bridge-claims", daemon=True).start()
            if self._files.is_here:
                atexit.register(self.end)
            else:  # while there is a connection
                threading._register_atexit(self.end)  # type: ignore[attr-defined]

    @property
    def _content(self) -> bytes:
        return self._id.encode() + b"\n"

    def _write(self) -> None:
        me: dict[str, Any] = {
            "format": FORMAT,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "worker": self._worker,
            "place": place(),
            "pid_started": pid_started(os.getpid()) or "",
        }
        path = self._path(self._id)
        content = {f"{self._folder.name}/{path.name}": json.dumps(me).encode()}
        self._files.put(Files(str(self._folder.parent), content))

    def _renew(self) -> None:
        complaint = Complaint()
        pause = RENEW_SECONDS if self._files.is_here else RENEW_ELSEWHERE_SECONDS
        while not self._ended.wait(pause):
            try:
                with self._lock:
                    if self._known and not self._renewed():
                        self._write()
                complaint.over()
            except (OSError, HPCBridgeError) as error:
                level = complaint.level(error)
                logger.log(level, "The shared directory does not answer: %s", error)

    def _renewed(self) -> bool:
        """False when somebody has cleared up there: that is nobody else's death."""
        self._files.touch(self._path(self._id))
        return bool(self._files.parts([Part(self._path(self._id), 0, 1)])[0])

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"

    def _holder(self, identity: str) -> Holder | None:
        """None when there is no such process, or it is of a version that says other things."""
        return read_holder(identity, self._files.parts([Part(self._path(identity))])[0])

    def _lives(self, identity: str) -> bool:
        return any(known.lives for known in self._look(identity))

    def _look(self, *identities: str) -> list[_Known]:
        """What is known of these processes, or of all; nothing of those without a file."""
        own = self._path(self._id)
        self._files.touch(own)
        there = self._files.listing(self._folder)
        names = {f"{identity}.json" for identity in identities} or set(there)
        paths = [self._folder / name for name in sorted(names) if name in there]
        paths = [path for path in paths if path.suffix == ".json"]
        contents = self._files.parts([Part(path) for path in paths])
        if own.name not in there:  # somebody clears up there just now
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(own))
        if there[own.name].size == 0:  # or has done so
            with self._lock:
                self._write()
        now = there[own.name].modified
        found = []
        for path, content in zip(paths, contents, strict=True):
            if content is None:
                continue
            holder = read_holder(path.stem, content)
            silence = now - there[path.name].modified
            # A process that was stopped or hangs does not renew either.
            gone = holder is not None and is_gone(holder)
            lives = not gone and silence < DEAD_AFTER_SECONDS
            found.append(_Known(path, holder, silence, lives))
        return found

    def _link(self, run: RunDirectory, number: int) -> bool:
        aside = f".tracker.{self._id}.{secrets.token_hex(4)}"
        run.write(aside, self._content)
        try:
            self._files.link(run.path / aside, run.path / f"tracker.{number}")
        except FileExistsError:  # somebody was faster, perhaps another thread of this process
            return run.read(f"tracker.{number}") == self._content
        finally:
            self._files.remove(run.path / aside)
        return True


@dataclass(frozen=True, slots=True)
class _Known:
    path: Path
    holder: Holder | None
    silence: float
    """Seconds since it renewed its file."""
    lives: bool


_claims: dict[tuple[int, Path, ClusterFiles], Claims] = {}
_making = threading.Lock()


def claims_on(shared: Path, files: ClusterFiles = HERE) -> Claims:
    """This process's claims in a shared directory; a forked child has its own."""
    if files.is_here:
        shared = shared.resolve()  # two spellings of one folder are one
    with _making:
        key = os.getpid(), shared, files
        if key not in _claims:
            _claims[key] = Claims(shared, files)
        return _claims[key]


def claims_of(run: RunDirectory) -> Claims:
    """This process's claims where a run directory is."""
    return claims_on(run.shared, run.files)


def _newest(
    runs: Collection[RunDirectory], *, leaves_out_gone: bool = False
) -> dict[RunDirectory, tuple[int, str | None]]:
    """(number, process) of the newest claim; no process when it is released or damaged.

    The number is -1 when there never was one. The runs are of one shared directory; raises
    FileNotFoundError when one of them is gone.
    """
    if not runs:
        return {}
    wanted, files = list(runs), next(iter(runs)).files
    numbers = {}
    for run, listing in zip(wanted, files.listings([run.path for run in wanted]), strict=True):
        if listing is None and leaves_out_gone:
            continue
        if listing is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run.path))
        names = (name.partition(".") for name in listing)
        numbers[run] = max(
            (int(rest) for stem, _, rest in names if stem == "tracker" and rest.isdecimal()),
            default=-1,
        )
    claimed = [run for run, number in numbers.items() if number >= 0]
    contents = files.parts([Part(run.path / f"tracker.{numbers[run]}") for run in claimed])
    holders = {run: _named_in(content) for run, content in zip(claimed, contents, strict=True)}
    return {run: (number, holders.get(run)) for run, number in numbers.items()}


def _named_in(content: bytes | None) -> str | None:
    """The process that a claim names; None when it is released or damaged."""
    holder = (content or b"").decode(errors="replace").strip()
    return holder if content != _RELEASED and _ID.fullmatch(holder) else None
