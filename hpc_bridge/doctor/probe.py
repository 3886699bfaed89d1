"""One short job that answers everything about a node.

It is a job as any other, from the same template with the same directives, prologue and setup lines,
but in the place of Python it starts ``on_node.sh``. Its run directory is removed in the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hpc_bridge.cluster import Cluster
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.files import write_private
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.journal import (
    RunDirectory,
    environment_file,
    new_submission_id,
    prepare_shared_directory,
)
from hpc_bridge.node.records import ExitRecord
from hpc_bridge.script import quote
from hpc_bridge.workers.submission import node_environment

_HERE = Path(__file__).parent
_LOOK_SECONDS = 0.1
_RUN_SECONDS = 90.0
# A job whose end the scheduler knows may have written what the login side does not see yet.
_GRACE_SECONDS = 15.0
_LAST_WORDS_SECONDS = 5.0
NO_OUTPUT_FILE = 53
"""The signal with which Slurm says that a job's output file could not be opened."""


@dataclass(slots=True)
class Answers:
    """What the probe job left, and what the scheduler says about it."""

    job_id: str = ""
    status: JobStatus | None = None
    """The scheduler's last word."""
    reason: QueueReason | None = None
    """Why it waits."""
    waited: float = 0.0
    """Seconds from submission to the first sign, or until the search for one was given up."""
    started: bool = False
    """Whether the login side saw what the job wrote."""
    round_trip: float | None = None
    """Seconds in which a file went to the node and back; None when it did not come back."""
    finished: bool = False
    said: dict[str, str] = field(default_factory=dict)
    missing_images: list[str] = field(default_factory=list)
    python: dict[str, Any] | None = None
    python_error: str = ""
    server: dict[str, Any] | None = None
    exit_record: ExitRecord | None = None
    output: str = ""

    @property
    def node(self) -> str:
        """Its name, or 'the node'."""
        of_record = self.exit_record.node if self.exit_record else ""
        of_status = (self.status.nodes if self.status else None) or "the node"
        return self.said.get("node") or of_record or of_status


def ask_node(subject: Subject, wait: float) -> Answers:
    """Submit the probe and wait for its answers, for ``wait`` seconds until it starts.

    Leaves neither job nor files behind, also on Ctrl-C. Raises what submitting raises.
    """
    configuration = subject.configuration
    name = new_submission_id()
    with _run_directory(prepare_shared_directory(configuration.shared), name) as folder:
        images = subject.profile.containers.images if subject.profile else ()
        runtime = (subject.profile.containers.runtime if subject.profile else None) or ""
        questions = {
            "python": configuration.interpreter,
            "own_python": sys.executable,
            "runtime": runtime,
        }
        lines = "".join(f"{key}={quote(value)}\n" for key, value in questions.items())
        paths = [f"{image.path}\n" for image in images if image.path.startswith("/")]
        (folder / "questions").write_text(lines)
        (folder / "images").write_text("".join(paths))
        write_private(folder / "env", environment_file(node_environment(configuration)))
        for file in ("on_node.sh", "on_node.py"):
            shutil.copyfile(_HERE / file, folder / file)
        (folder / "on_node.sh").chmod(0o700)
        script = subject.script(name, python=str(folder / "on_node.sh"))
        return _Probe(subject.cluster, folder).run(script, wait)


@contextlib.contextmanager
def _run_directory(shared: Path, name: str) -> Iterator[Path]:
    """Without the mark of a live submission, so that no worker looks after it."""
    folder = shared / "runs" / name
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        for _ in range(3):  # the job's last words may come in between
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(_LOOK_SECONDS)


class _Probe:
    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._answers = Answers()
        self._ask_every = 2.0
        self._asked = 0.0
        self._pinged: float | None = None

    def run(self, script: str, wait: float) -> Answers:
        submitted = time.monotonic()
        since = datetime.now(UTC) - timedelta(minutes=5)
        job = None
        try:
            job = self._cluster.submit(script, self._folder.name)
            self._answers.job_id = str(job)
            self._wait(submitted, wait, job, since)
        finally:
            self._cancel(job)
        self._read()
        return self._answers

    def _wait(self, submitted: float, wait: float, job: JobId, since: datetime) -> None:
        answers = self._answers
        deadline, over = submitted + wait, None
        while True:
            self._look()
            now = time.monotonic()
            if not answers.started:
                answers.waited = now - submitted
            if answers.finished or answers.exit_record is not None:
                return
            if now - self._asked >= self._ask_every:
                self._ask(job, since)
                self._asked = time.monotonic()
            status = answers.status
            if status is not None and status.state.is_terminal:
                over = over or now
                if now - over > _GRACE_SECONDS or status.signal == NO_OUTPUT_FILE:
                    return
            elif now > deadline:
                running = answers.started or (status is not None and not status.state.is_waiting)
                if not running or now > deadline + _RUN_SECONDS:
                    return
            time.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        """Listing asks the file server; opening a file that was not there may not, for a while."""
        answers = self._answers
        names = set(os.listdir(self._folder))  # noqa: PTH208  names alone; NFS lists anew
        if "started" in names and not answers.started:
            answers.started = True
            write_private(self._folder / "ping", secrets.token_hex(8).encode())
            self._pinged = time.monotonic()
        if "pong" in names and self._pinged is not None and answers.round_trip is None:
            answers.round_trip = time.monotonic() - self._pinged
        answers.finished = "answers" in names
        with contextlib.suppress(OSError, ValueError):
            answers.exit_record = self._run_of().exit_record()

    def _ask(self, job: JobId, since: datetime) -> None:
        """A scheduler that does not answer now is asked again."""
        with contextlib.suppress(HPCBridgeError):
            found = self._cluster.find(self._folder.name)
            status = found[0] if found else None
            if status is None or status.state.is_terminal:
                status = self._cluster.history([job], since).get(job, status)
            if status is not None:
                self._answers.status = status
                self._answers.reason = self._cluster.scheduler.explain_reason(status)

    def _cancel(self, job: JobId | None) -> None:
        """Whatever happens, it does not stay in the queue; once more by its name when unknown."""
        status = self._answers.status
        if self._answers.exit_record or (status is not None and status.state.is_terminal):
            return
        with contextlib.suppress(HPCBridgeError):
            if self._answers.finished and self._says_its_end():
                return
            jobs = [job] if job else [one.job_id for one in self._cluster.find(self._folder.name)]
            if jobs:
                self._cluster.cancel(jobs)

    def _says_its_end(self) -> bool:
        """The exit record comes a moment after the answers."""
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while time.monotonic() < deadline:
            if self._run_of().exit_record() is not None:
                return True
            time.sleep(_LOOK_SECONDS)
        return False

    def _run_of(self) -> RunDirectory:
        return RunDirectory(self._folder)

    def _read(self) -> None:
        answers, folder = self._answers, self._folder
        answers.exit_record = self._run_of().exit_record()
        answers.finished = (folder / "answers").exists()
        answers.output = self._run_of().output_tail(5)
        with contextlib.suppress(OSError):
            name = "answers" if answers.finished else "answers.new"
            for line in (folder / name).read_text(errors="replace").splitlines():
                key, _, value = line.partition("=")
                if key == "missing_image":
                    answers.missing_images.append(value)
                else:
                    answers.said[key] = value
        with contextlib.suppress(OSError):
            answers.python_error = (folder / "python.err").read_text(errors="replace").strip()
        answers.python = _json(folder / "python.json")
        answers.server = _json(folder / "server.json")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        read: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return read
