"""One short job that answers everything about a node.

It is a job as any other, from the same template with the same directives, prologue and setup lines,
but in the place of Python it starts ``on_node.sh``. Its run directory is removed in the end.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hpc_bridge.cluster import Cluster
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import (
    CommandError,
    CommandTimeout,
    HPCBridgeError,
    SettingsError,
    Unreachable,
)
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.journal import (
    RunDirectory,
    environment_file,
    new_submission_id,
    prepare_shared_directory,
)
from hpc_bridge.node.records import EXIT_RECORD, ExitRecord
from hpc_bridge.script import quote
from hpc_bridge.storage.cluster_files import ClusterFiles, Part
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.login import LOCAL
from hpc_bridge.workers.submission import node_environment

T = TypeVar("T")

_HERE = Path(__file__).parent
_LOOK_SECONDS, _REMOTE_LOOK_SECONDS = 0.1, 1.0
_WRITE_SECONDS = 60.0
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
    name, files = new_submission_id(), subject.files
    shared = prepare_shared_directory(subject.configuration.shared, files)
    with _run_directory(files, shared, name) as run:
        start = str(run.path / "on_node.sh")
        done = subject.cluster.transport.run(
            ["chmod", "700", start],
            timeout=_WRITE_SECONDS,
            files=Files(str(run.path), _questions(subject)),
        )
        if done.exit_code != 0:
            raise CommandError(f"{start} cannot be made executable: {done.stderr.strip()}")
        return _Probe(subject.cluster, run).run(subject.script(name, python=start), wait)


def _questions(subject: Subject) -> dict[str, bytes]:
    """The files that the job reads and runs."""
    images = subject.profile.containers.images if subject.profile else ()
    questions = {
        "python": _told(lambda: subject.configuration.interpreter) or "",
        "own_python": sys.executable if subject.login == LOCAL else "",
        "runtime": (subject.profile.containers.runtime if subject.profile else None) or "",
    }
    lines = "".join(f"{key}={quote(value)}\n" for key, value in questions.items())
    paths = [f"{image.path}\n" for image in images if image.path.startswith("/")]
    variables = _told(lambda: node_environment(subject.configuration)) or {}
    return {
        "questions": lines.encode(),
        "images": "".join(paths).encode(),
        "env": environment_file(variables),
        **{file: (_HERE / file).read_bytes() for file in ("on_node.sh", "on_node.py")},
    }


def _told(ask: Callable[[], T]) -> T | None:
    """None for a setting that is missing, which is red in the step that it belongs to."""
    try:
        return ask()
    except SettingsError:
        return None


@contextlib.contextmanager
def _run_directory(files: ClusterFiles, shared: Path, name: str) -> Iterator[RunDirectory]:
    """Without the mark of a live submission, so that no worker looks after it."""
    run = RunDirectory(shared / "runs" / name, files)
    try:
        yield run
    finally:
        for _ in range(3):  # the job's last words may come in between
            with contextlib.suppress(OSError, CommandError):
                files.remove_trees(run.path)
                if files.listings([run.path])[0] is None:
                    break
            time.sleep(_LOOK_SECONDS)


class _Probe:
    def __init__(self, cluster: Cluster, run: RunDirectory) -> None:
        self._cluster = cluster
        self._files = run.files
        self._folder = run.path
        self._run = run
        self._look_every = _LOOK_SECONDS if run.files.is_here else _REMOTE_LOOK_SECONDS
        self._answers = Answers()
        self._ended = False
        """Whether the job has left its exit record."""
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
            was_started = answers.started
            with contextlib.suppress(CommandTimeout, Unreachable):  # looks again
                self._look()
            now = time.monotonic()
            if not was_started:
                answers.waited = now - submitted
            if answers.finished or self._ended:
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
            time.sleep(self._look_every)

    def _look(self) -> None:
        """Listing asks the file server; opening a file that was not there may not, for a while."""
        answers = self._answers
        names = self._files.listing(self._folder, depth=3)
        if "started" in names and not answers.started:
            answers.started = True
            self._files.write(self._folder / "ping", secrets.token_hex(8).encode())
            self._pinged = time.monotonic()
        if "pong" in names and self._pinged is not None and answers.round_trip is None:
            answers.round_trip = time.monotonic() - self._pinged
        answers.finished = "answers" in names
        self._ended = any(name.endswith(f"/{EXIT_RECORD}") for name in names)

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
        if self._ended or (status is not None and status.state.is_terminal):
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
            self._look()
            if self._ended:
                return True
            time.sleep(self._look_every)
        return False

    def _read(self) -> None:
        answers = self._answers
        answers.exit_record = self._run.exit_record()
        answers.output = self._run.output_tail(5)
        names = ("answers", "answers.new", "python.err", "python.json", "server.json")
        parts = self._files.parts([Part(self._folder / name) for name in names])
        whole, unfinished, error, python, server = parts
        answers.finished = whole is not None
        for line in _text(whole or unfinished).splitlines():
            key, _, value = line.partition("=")
            if key == "missing_image":
                answers.missing_images.append(value)
            else:
                answers.said[key] = value
        answers.python_error = _text(error).strip()
        answers.python, answers.server = _json(python), _json(server)


def _text(content: bytes | None) -> str:
    return (content or b"").decode(errors="replace")


def _json(content: bytes | None) -> dict[str, Any] | None:
    try:
        read: dict[str, Any] = json.loads(content or b"")
    except ValueError:
        return None
    return read
