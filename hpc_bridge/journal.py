"""The run directory: everything that is known of one submission, and its journal.

    <shared dir>/bundles/<key>/             a bundle that waits for its submission, or for a retry
    <shared dir>/live/<submission id>       an empty file while the end of a flow run is not told
    <shared dir>/sites/<digest>/<site>.yaml a profile that came over SSH, for what jobs submit
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpc_bridge.errors import InvalidJobSpec, NotOwned, SharedDirectoryError
from hpc_bridge.node.records import EXIT_RECORD, ExitRecord, parse_exit_record
from hpc_bridge.script import quote
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles, Entry, Part
from hpc_bridge.transports.base import Files

FORMAT = 2
SUBMISSION, SETTLED = "submission.json", "settled.json"
NO_LINKS: Mapping[str, str] = MappingProxyType({})
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
def shared_directory_errors(path: Path, files: ClusterFiles = HERE) -> Iterator[None]:
    """Turn the operating system's errors about the shared directory into words."""
    where = "" if files.is_here else f" on {files.login}"
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
        raise SharedDirectoryError(
            f"the shared directory {path}{where} {advice} ({error})"
        ) from error


_prepared: set[tuple[ClusterFiles, Path]] = set()


def prepare_shared_directory(path: Path, files: ClusterFiles = HERE) -> Path:
    """Make the folders of ``path``, whose parent must exist, and check that they are ours.

    One that is not of this machine is looked at once a process.

    Raises SharedDirectoryError when it is missing, not writable or full, and NotOwned when it
    belongs to another account.
    """
    if "\\" in str(path) or any(char in str(path) for char in "\n\r\0"):
        raise InvalidJobSpec(f"the shared directory {str(path)!r} holds a backslash or line break")
    if (files, path) in _prepared:
        return path
    with shared_directory_errors(path, files):
        entry = files.entry(path)
        if entry is None or entry.kind != "folder":
            files.make_folder(path)
            entry = files.entry(path)
        check_owner(path, entry, files)
        there = files.listing(path)
        for name in ("runs", "live", "bundles", "results"):
            if name not in there or there[name].kind == "file":
                files.make_folder(path / name)
    if not files.is_here:
        _prepared.add((files, path))
    return path


def check_owner(path: Path, entry: Entry | None, files: ClusterFiles) -> None:
    """Raise NotOwned when ``path`` is another account's or can be written by others.

    What lies there is unpickled on the node as this account. ``entry`` is what is known of it;
    raises FileNotFoundError for None.
    """
    if entry is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    own = files.account().uid
    if entry.uid != own:
        raise NotOwned(f"{path} belongs to user id {entry.uid}, not to you ({own})")
    if entry.mode & 0o022:
        raise NotOwned(f"{path} can be written by others; run: chmod go-w {quote(path)}")


def environment_file(variables: Mapping[str, str]) -> bytes:
    """The ``env`` file: NAME=value with a NUL after each, so that any value keeps its bytes."""
    return b"".join(f"{name}={value}\0".encode() for name, value in sorted(variables.items()))


@dataclass(frozen=True, slots=True)
class Traces:
    """What a flow run's job has left so far."""

    attempt: Path | None
    """The folder of the last start; None when the job never started."""
    is_over: bool
    """Whether that attempt has left its exit record."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One submission's folder, wherever it is.

    What is wrong with a file is an OSError or SharedDirectoryError, what is wrong with the
    connection to a cluster elsewhere a CommandError.
    """

    path: Path
    files: ClusterFiles = HERE

    @classmethod
    def create(cls, shared: Path, submission_id: str, files: ClusterFiles = HERE) -> RunDirectory:
        """Make the folder; it must not exist."""
        run = cls(shared / "runs" / submission_id, files)
        with shared_directory_errors(shared):
            files.put(Files(str(shared), {f"live/{submission_id}": b""}))
            files.make_folder(run.path, exist_ok=False)
        return run

    @property
    def shared(self) -> Path:
        """The shared directory that it lies in."""
        return self.path.parent.parent

    @property
    def submission_id(self) -> str:
        """The job's name."""
        return self.path.name

    def beside(self, submission_id: str) -> RunDirectory:
        """Another submission's, in the same shared directory."""
        return RunDirectory(self.path.with_name(submission_id), self.files)

    @property
    def live_marker(self) -> Path:
        """The file that is there while the end of a flow run is not told."""
        return self.shared / "live" / self.submission_id

    def element(self, element: int = 0) -> Path:
        """The folder of one flow run."""
        return self.path / str(element)

    def outputs(self, element: int = 0) -> tuple[Path, Path]:
        """Where what the job prints may be: of an array's element, else of the one job."""
        return self.element(element) / "job.out", self.path / "job.out"

    def output(self, element: int = 0) -> Path:
        """What the job prints."""
        own, whole = self.outputs(element)
        return whole if self.files.entry(own) is None else own

    def read(self, name: str) -> bytes | None:
        """One file of the folder; None when there is no such file."""
        return self.files.parts([Part(self.path / name)])[0]

    def write(self, name: str, content: bytes) -> None:
        """Write one file of the folder, below a folder of its own too."""
        self.put({name: content})

    def put(self, content: Mapping[str, bytes | Path], links: Mapping[str, str] = NO_LINKS) -> None:
        """Write files of the folder in this order; ``links`` get a second name below it."""
        with shared_directory_errors(self.shared):
            # What somebody has removed is not made again; elsewhere the look would be a command.
            if self.files.is_here and not self.path.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
            self.files.put(Files(str(self.path), content, links))

    def write_submission(self, submission: Mapping[str, Any]) -> None:
        """Write ``submission.json``: what was asked, for whom, and later the job's id."""
        self.write(SUBMISSION, submission_file(submission))

    def read_submission(self) -> dict[str, Any]:
        """What ``write_submission`` wrote; raises OSError, and ValueError when it is damaged."""
        return self.parse_submission(self.files.read(self.path / SUBMISSION))

    def parse_submission(self, content: bytes) -> dict[str, Any]:
        """The journal in the content of its file; raises ValueError when it is damaged."""
        stored = json.loads(content)
        if not isinstance(stored, dict):
            raise ValueError(f"{self.path / SUBMISSION} is damaged")
        return stored

    def settle(self, element: int, **what: Any) -> None:
        """Note that the end of a flow run has been told; after the last one nothing is live."""
        content = json.dumps({"format": FORMAT, **what}).encode()
        self.write(f"{element}/{SETTLED}", content)
        # The last element ends last as a rule: seldom more than one file is asked for.
        *others, last = map(int, self.read_submission()["flow_runs"])
        if all(self._are_settled(some) for some in ([last], others)):
            self.close()

    def settled(self, element: int = 0) -> dict[str, Any] | None:
        """What ``settle`` noted; None while the end has not been told."""
        content = self.read(f"{element}/{SETTLED}")
        stored: dict[str, Any] | None = None if content is None else json.loads(content)
        return stored

    def _are_settled(self, elements: Sequence[int]) -> bool:
        wanted = [Part(self.element(element) / SETTLED, 0, 1) for element in elements]
        return all(content is not None for content in self.files.parts(wanted))

    def close(self) -> None:
        """Nothing is to be done here any more."""
        self.files.remove(self.live_marker)

    def reopen(self) -> None:
        """Something is to be done here all the same."""
        with shared_directory_errors(self.shared):
            self.files.touch(self.live_marker)

    def traces(self, element: int = 0) -> Traces:
        """What the job has left so far."""
        return self.traces_in(element, self.files.listings([self.element(element)], depth=2)[0])

    def traces_in(self, element: int, listing: Mapping[str, Entry] | None) -> Traces:
        """The same from the listing of the flow run's folder, two levels deep."""
        # A shared file system may leave files of its own there.
        attempts = [int(name) for name in listing or () if name.isdecimal()]
        if not attempts:
            return Traces(None, is_over=False)
        newest = max(attempts)
        is_over = f"{newest}/{EXIT_RECORD}" in (listing or ())
        return Traces(self.element(element) / str(newest), is_over)

    def exit_record(self, element: int = 0) -> ExitRecord | None:
        """The newest attempt's own record; None while it has left none."""
        traces = self.traces(element)
        if traces.attempt is None or not traces.is_over:
            return None
        content = self.files.parts([Part(traces.attempt / EXIT_RECORD)])[0]
        return None if content is None else parse_exit_record(content)

    def newest_attempt(self, element: int = 0) -> Path | None:
        """The folder of the last start; None when the job never started."""
        return self.traces(element).attempt

    def claimant(self, element: int = 0) -> str | None:
        """The job that has made the newest claim; None when it has not said so."""
        attempt = self.newest_attempt(element)
        content = None if attempt is None else self.files.parts([Part(attempt / "job")])[0]
        return None if content is None else content.decode().strip() or None

    def output_tail(self, lines: int = 20, element: int = 0) -> str:
        """The last lines that the job printed; empty when it printed nothing."""
        wanted = [Part(path, -_TAIL_BYTES) for path in self.outputs(element)]
        own, whole = self.files.parts(wanted)
        content = whole or b"" if own is None else own
        # A node that crashes may leave zeros, which no database takes as text.
        text = content.decode("utf-8", errors="replace").replace("\0", "")
        return "\n".join(text.splitlines()[-lines:])


def submission_file(submission: Mapping[str, Any]) -> bytes:
    """The content of ``submission.json``."""
    return json.dumps({"format": FORMAT, **submission}, indent=2).encode()
