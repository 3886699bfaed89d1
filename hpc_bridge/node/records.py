"""The exit record: how one attempt of a job says that it ended. Standard library only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

EXIT_RECORD = "exit.json"
WARNED = "the warning signal before the walltime was received"
"""The message of a record whose cause the job only guesses from the warning."""
WALLTIME_EXCEEDED = "WalltimeExceeded"
RESUBMITTING = "Resubmitting"
"""Name of the Pending state in which a flow run waits for its next submission."""


@dataclass(slots=True)
class ExitRecord:
    """One attempt's end, as the job itself saw it.

    ``stage`` is how far it came: claim, setup, python, flow. ``cause`` is the name of the flow
    run's state when the job knows why it failed. ``flow_state`` is the state type that the flow
    reached.
    """

    format: int = 1
    job_id: str = ""
    node: str = ""
    stage: str = ""
    exit_code: int | None = None
    signal: int | None = None
    cause: str = ""
    message: str = ""
    flow_state: str = ""
    terminated: bool = False
    """A SIGTERM came from outside, that is from the scheduler."""
    resubmit: bool = False
    """The walltime was not enough, and the flow run is to go on in a new submission."""
    started: str = ""
    ended: str = ""


def write_exit_record(path: Path, record: ExitRecord) -> None:
    """Write the record aside and rename it."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def read_exit_record(path: Path) -> ExitRecord | None:
    """The record at ``path``; None when there is none, or a node's crash has left half of one."""
    try:
        return parse_exit_record(path.read_bytes())
    except FileNotFoundError:
        return None


def parse_exit_record(content: bytes) -> ExitRecord | None:
    """The record in a file's content; None for half of one. Unknown fields are left out."""
    try:
        stored = json.loads(content.decode("utf-8", errors="replace"))
    except ValueError:
        return None
    if not isinstance(stored, dict):
        return None
    known = ExitRecord.__dataclass_fields__
    return ExitRecord(**{name: value for name, value in stored.items() if name in known})
