"""The run directory: everything that is known of one submission, and its journal.

    <shared dir>/bundles/<key>/             a bundle that waits for its submission, or for a retry
    <shared dir>/live/<submission id>       an empty file while the end of a flow run is not told
    <shared dir>/runs/<submission id>/      0700, files 0600
        submission.json    written before submitting; then again with the job id
        job.sh  env  job.out                one job's output; that of an array is below its elements
        <element>/                          one flow run: 0, or the index in a job array
            bundle.json  files.zip  job.out
            <attempt>/exit.json             made by the job itself, as is the folder: its claim
            relayed.json                    how far the output has been sent to the server
            continued.json                  the submission in which the flow run goes on
            settled.json                    the end has been told to the server
        tracker.<n>                         who looks after the submission

Every file is written aside and renamed, so that a reader sees all of it or none. Format 1 kept the
bundle beside the script; it is still read.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_bridge.errors import InvalidJobSpec, NotOwned, SharedDirectoryError
from hpc_bridge.files import write_private
from hpc_bridge.node.records import ExitRecord, read_exit_record
from hpc_bridge.script import quote

FORMAT = 2
_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
_SUBMISSION_ID = re.compile(r"hb[a-z2-7]{13}")
_TAIL_BYTES = 8192


def new_submission_id(now: float | None = None) -> str:
    """Fifteen letters and digits: sorts by time, and is a job name that every scheduler takes.

    PBS names were limited to 15 characters for long; Torque's still are.
    """
    seconds = int(time.time() if now is None else now)
    stamp = "".join(_ALPHABET[seconds >> shift & 31] for shift in range(30, -1, -5))
    return f"hb{stamp}{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"


def submission_time(submission_id: str) -> datetime:
    """When an id was made, to the second."""
    seconds = 0
    for letter in submission_id[2:9]:
        seconds = seconds << 5 | _ALPHABET.index(letter)
    return datetime.fromtimestamp(seconds, UTC)


def is_submission_id(name: str) -> bool:
    """Whether a job of that name is one of ours."""
    return _SUBMISSION_ID.fullmatch(name) is not None


@contextmanager
def shared_directory_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about the shared directory into words."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "is full; free some space there or set HPC_BRIDGE_SHARED_DIR elsewhere",
            errno.EDQUOT: "is over quota; free some space there or set HPC_BRIDGE_SHARED_DIR",
            errno.EACCES: "is not writable for you; set HPC_BRIDGE_SHARED_DIR to a folder that is",
            errno.EPERM: "is not writable for you; set HPC_BRIDGE_SHARED_DIR to a folder that is",
            errno.EROFS: "is read-only; set HPC_BRIDGE_SHARED_DIR to a folder that can be written",
            errno.ENOENT: "does not exist; create it or set HPC_BRIDGE_SHARED_DIR to one that does",
            errno.ENOTDIR: "is not a folder; set HPC_BRIDGE_SHARED_DIR to one",
            errno.EEXIST: "is not a folder; set HPC_BRIDGE_SHARED_DIR to one",
        }.get(error.errno or 0, f"cannot be used: {error.strerror}")
        raise SharedDirectoryError(f"the shared directory {path} {advice} ({error})") from error


def prepare_shared_directory(path: Path) -> Path:
    """Make the folders of ``path``, whose parent must exist, and check that they are ours.

    Raises SharedDirectoryError when it is missing, not writable or full, and NotOwned when it
    belongs to another account.
    """
    if "\\" in str(path) or any(char in str(path) for char in "\n\r\0"):
        raise InvalidJobSpec(f"the shared directory {str(path)!r} holds a backslash or line break")
    with shared_directory_errors(path):
        path.mkdir(mode=0o700, exist_ok=True)
        check_owner(path)
        for name in ("runs", "live", "bundles", "results"):
            (path / name).mkdir(mode=0o700, exist_ok=True)
    return path


def check_owner(path: Path) -> None:
    """Raise NotOwned when ``path`` is another account's or can be written by others.

    What lies there is unpickled on the node as this account.
    """
    status = path.stat()
    if status.st_uid != os.getuid():
        raise NotOwned(f"{path} belongs to user id {status.st_uid}, not to you ({os.getuid()})")
    if status.st_mode & 0o022:
        raise NotOwned(f"{path} can be written by others; run: chmod go-w {quote(path)}")


def environment_file(variables: Mapping[str, str]) -> bytes:
    """The ``env`` file: NAME=value with a NUL after each, so that any value keeps its bytes."""
    return b"".join(f"{name}={value}\0".encode() for name, value in sorted(variables.items()))


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One submission's folder."""

    path: Path

    @classmethod
    def create(cls, shared: Path, submission_id: str) -> RunDirectory:
        """Make the folder; it must not exist."""
        path = shared / "runs" / submission_id
        with shared_directory_errors(shared):
            (shared / "live").mkdir(mode=0o700, exist_ok=True)
            (shared / "live" / submission_id).touch(mode=0o600)
            path.mkdir(mode=0o700)
        return cls(path)

    @property
    def shared(self) -> Path:
        """The shared directory that it lies in."""
        return self.path.parent.parent

    @property
    def submission_id(self) -> str:
        """The job's name."""
        return self.path.name

    def element(self, element: int = 0) -> Path:
        """The folder of one flow run, made when it does not exist."""
        folder = self.path / str(element)
        with shared_directory_errors(self.shared):
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def output(self, element: int = 0) -> Path:
        """What the job prints."""
        own = self.path / str(element) / "job.out"
        return own if own.exists() else self.path / "job.out"

    def write(self, name: str, content: bytes) -> None:
        """Write one file of the folder; raises SharedDirectoryError."""
        with shared_directory_errors(self.shared):
            write_private(self.path / name, content)

    def write_submission(self, submission: Mapping[str, Any]) -> None:
        """Write ``submission.json``: what was asked, for whom, and later the job's id."""
        content = json.dumps({"format": FORMAT, **submission}, indent=2).encode()
        self.write("submission.json", content)

    def read_submission(self) -> dict[str, Any]:
        """What ``write_submission`` wrote; raises OSError, and ValueError when it is damaged."""
        stored = json.loads((self.path / "submission.json").read_bytes())
        if not isinstance(stored, dict):
            raise ValueError(f"{self.path / 'submission.json'} is damaged")
        return stored

    def settle(self, element: int, **what: Any) -> None:
        """Note that the end of a flow run has been told; after the last one nothing is live."""
        self.element(element)
        content = json.dumps({"format": FORMAT, **what}).encode()
        self.write(f"{element}/settled.json", content)
        # The last element ends last as a rule: seldom more than one file is read.
        others = reversed(list(self.read_submission()["flow_runs"]))
        if all(self.settled(int(other)) for other in others):
            self.close()

    def settled(self, element: int = 0) -> dict[str, Any] | None:
        """What ``settle`` noted; None while the end has not been told."""
        try:
            stored: dict[str, Any] = json.loads(
                (self.path / str(element) / "settled.json").read_bytes()
            )
        except FileNotFoundError:
            return None
        return stored

    def close(self) -> None:
        """Nothing is to be done here any more."""
        (self.shared / "live" / self.submission_id).unlink(missing_ok=True)

    def reopen(self) -> None:
        """Something is to be done here all the same; raises SharedDirectoryError."""
        with shared_directory_errors(self.shared):
            (self.shared / "live" / self.submission_id).touch(mode=0o600)

    def exit_record(self, element: int = 0) -> ExitRecord | None:
        """The newest attempt's own record; None while it has left none."""
        attempt = self.newest_attempt(element)
        return None if attempt is None else read_exit_record(attempt / "exit.json")

    def newest_attempt(self, element: int = 0) -> Path | None:
        """The folder of the last start; None when the job never started."""
        try:
            names = [path.name for path in (self.path / str(element)).iterdir()]
        except FileNotFoundError:
            return None
        # A shared file system may leave files of its own there.
        attempts = [int(name) for name in names if name.isdecimal()]
        return self.path / str(element) / str(max(attempts)) if attempts else None

    def claimant(self, element: int = 0) -> str | None:
        """The job that has made the newest claim; None when it has not said so."""
        attempt = self.newest_attempt(element)
        try:
            return None if attempt is None else (attempt / "job").read_text().strip() or None
        except FileNotFoundError:
            return None

    def output_tail(self, lines: int = 20, element: int = 0) -> str:
        """The last lines that the job printed; empty when it printed nothing."""
        try:
            with self.output(element).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                # A node that crashes may leave zeros, which no database takes as text.
                text = file.read().decode("utf-8", errors="replace").replace("\0", "")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
