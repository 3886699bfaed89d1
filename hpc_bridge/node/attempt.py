"""One attempt as its processes see it: where it lies and what was asked. Standard library only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_bridge.node.records import EXIT_RECORD

RUN_DIR = "HPC_BRIDGE_RUN_DIR"
ELEMENT = "HPC_BRIDGE_ELEMENT"
ATTEMPT = "HPC_BRIDGE_ATTEMPT"
FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"
REPORTS = "HPC_BRIDGE_REPORTS"
"""A FIFO of the supervisor that takes lines of JSON."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a submission's job for one flow run."""

    run_dir: Path
    element: int
    number: int

    @classmethod
    def from_environment(cls) -> Attempt:
        """The attempt that this process belongs to."""
        return cls(Path(os.environ[RUN_DIR]), int(os.environ[ELEMENT]), int(os.environ[ATTEMPT]))

    def environment(self) -> dict[str, str]:
        """What ``from_environment`` reads."""
        return {
            RUN_DIR: str(self.run_dir),
            ELEMENT: str(self.element),
            ATTEMPT: str(self.number),
        }

    @property
    def folder(self) -> Path:
        """The claim: this attempt's own folder."""
        return self.run_dir / str(self.element) / str(self.number)

    @property
    def before(self) -> Attempt:
        """The start of the job before this one."""
        return Attempt(self.run_dir, self.element, self.number - 1)

    @property
    def exit_record(self) -> Path:
        """Where the exit record goes."""
        return self.folder / EXIT_RECORD

    def is_newest(self) -> bool:
        """Whether no later start of the job has claimed the flow run."""
        return not any(
            path.name.isdecimal() and int(path.name) > self.number
            for path in self.folder.parent.iterdir()
        )

    def submission(self) -> dict[str, Any]:
        """``submission.json``."""
        stored: dict[str, Any] = json.loads((self.run_dir / "submission.json").read_bytes())
        return stored

    def bundle(self) -> dict[str, Any] | None:
        """``bundle.json``; None when the flow's code comes from a deployment."""
        try:
            stored: dict[str, Any] = json.loads(self._packed("bundle.json").read_bytes())
        except FileNotFoundError:
            return None
        return stored

    def archive(self) -> Path:
        """``files.zip``, which is there when files were included."""
        return self._packed("files.zip")

    def _packed(self, name: str) -> Path:
        """A bundle's file; format 1 of the run directory kept it beside the script."""
        own = self.folder.parent / name
        return own if own.exists() else self.run_dir / name

    def variables(self) -> dict[str, str]:
        """The ``env`` file (NAME=value, NUL between them) and the flow run's id."""
        content = (self.run_dir / "env").read_bytes().decode()
        variables = dict(entry.split("=", 1) for entry in content.split("\0") if entry)
        # An array's elements share the file.
        flow_run_id = self.submission().get("flow_runs", {}).get(str(self.element))
        return variables | ({FLOW_RUN_ID: flow_run_id} if flow_run_id else {})
