"""The shared directory as the login side sees it."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from hpc_bridge.doctor.findings import Verdict, green, one_line, red, worst, yellow
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import CommandError, HPCBridgeError
from hpc_bridge.journal import prepare_shared_directory, shared_directory_errors
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.transports.base import Transport

_GIB = 1024**3
_MIB = 1024**2
_TRIED_BYTES = _MIB
_SECONDS = 60.0
FEW_BYTES = _GIB
FEW_FILES = 1000


@dataclass(frozen=True, slots=True)
class Room:
    """What is free for this user, as far as the file system says."""

    bytes: int
    files: int | None
    """None on a file system without a fixed number."""


def check_directory(subject: Subject) -> Verdict:
    """Whether it can be made and written, keeps files private, and has room."""
    path, files = subject.configuration.shared, subject.files
    advice = f"set {subject.where_to_set('paths.shared_dir', 'HPC_BRIDGE_SHARED_DIR')}"
    try:
        shared = prepare_shared_directory(path, files)
        with shared_directory_errors(shared):
            mode, links = _try_files(files, shared / "runs")
    except CommandError:  # of the connection, not of the folder
        raise
    except HPCBridgeError as error:
        return red(one_line(error), f"{advice} to a folder of yours that compute nodes see too")
    room = _room_here(shared) if files.is_here else _room(subject.cluster.transport, shared)
    verdicts = [judge_files(path, mode, links, advice)]
    if room is not None:
        verdicts += [judge_room(room, advice), *_quota_hint(room)]
    return worst(verdicts)


def _try_files(files: ClusterFiles, folder: Path) -> tuple[int, bool]:
    """Permissions of a private file there, and whether a file can have two names."""
    file = folder / f".doctor-{secrets.token_hex(4)}"
    second = file.with_name(file.name + "-link")
    try:
        files.write(file, os.urandom(_TRIED_BYTES))  # which quota or a full disk would refuse
        entry = files.entry(file)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        try:
            files.link(file, second)
            links = True
        except OSError:
            links = False
        return entry.mode, links
    finally:
        files.remove(file, second)


def judge_files(path: Path, mode: int, links: bool, advice: str) -> Verdict:
    """The verdict on what a small file there is like."""
    if mode & 0o077:
        return red(
            f"{path} does not keep files private: one that asked for 600 has {mode:o}",
            f"{advice} to a folder on a file system with Unix permissions; jobs keep credentials"
            " there",
        )
    if not links:
        return red(
            f"{path} is on a file system without hard links",
            f"{advice} to a folder on another file system",
        )
    return green(f"{path} can be written and keeps files private")


def judge_room(room: Room, advice: str) -> Verdict:
    """The verdict on free space."""
    free = f"{room.bytes / _GIB:.1f} GiB free"
    if room.bytes < FEW_BYTES:
        return yellow(
            f"only {room.bytes // _MIB} MiB free",
            f"free some space there ('hpc-bridge clean --older-than 7d'), or {advice} elsewhere",
        )
    if room.files is not None and room.files < FEW_FILES:
        return yellow(
            f"{free}, but only {room.files} more files",
            f"remove files there ('hpc-bridge clean --older-than 7d'), or {advice} elsewhere",
        )
    return green(free)


def _quota_hint(room: Room) -> list[Verdict]:
    """A quota shows in no number that every file system has."""
    return [] if room.bytes < FEW_BYTES else [green("1 MiB was written, so no quota is full")]


def _room_here(path: Path) -> Room:
    status = os.statvfs(path)
    files = status.f_favail if status.f_files else None
    return Room(status.f_bavail * status.f_frsize, files)


def _room(transport: Transport, path: Path) -> Room | None:
    both = 'df -Pk -- "$1" && df -Pi -- "$1"'
    done = transport.run(["env", "LC_ALL=C", "sh", "-c", both, "sh", str(path)], timeout=_SECONDS)
    return parse_room(done.stdout)


def parse_room(answer: str) -> Room | None:
    """Of what ``df -Pk`` and then ``df -Pi`` say; None when they do not. POSIX has no ``-i``."""
    heads = ("Available", "IFree")
    free: dict[str, int] = {}
    lines = [line.split() for line in answer.splitlines()]
    for head, line in itertools.pairwise(lines):
        for word in heads:
            if word in head and len(line) > 3 and line[3].isdecimal():
                free[word] = int(line[3])
    if "Available" not in free:
        return None
    return Room(free["Available"] * 1024, free.get("IFree") or None)
