"""The supervisor as the job script starts it, on a hand-made run directory.

A ``prefect`` that cannot be imported stands first on the path: the supervisor must not notice, and
the process that reports to the server says what it was given and ends at once.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hpc_bridge.journal import environment_file
from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.records import ExitRecord, read_exit_record
from tests.unit.processes import started

POISON = "prefect has been imported"
PREFECT = f"""
import sys
print("given:", sys.stdin.readline(), file=sys.stderr)
raise ImportError({POISON!r})
"""


def say(**what: Any) -> str:
    """A shell command that tells the supervisor something, as the flow's process does."""
    return f'echo {shlex.quote(json.dumps(what))} > "$HPC_BRIDGE_REPORTS"'


DONE = say(flow_state="COMPLETED")
FINISH = f"finish() {{ {DONE}; }}"
WAIT = "sleep 20 & echo ready; wait"
DEADLINE = 15


class Node:
    """A claimed attempt whose flow is a shell command."""

    def __init__(self, folder: Path, command: str, **submission: Any) -> None:
        self.run_dir = folder / "run dir"
        self.attempt = Attempt(self.run_dir, 0, 0)
        self.attempt.folder.mkdir(parents=True)
        self.write("submission.json", json.dumps({"command": command} | submission).encode())
        self.variables()
        self.job: dict[str, str] = {"SLURM_JOB_ID": "42"}
        self.arguments: list[str] = []
        self.poison = folder / "poison"
        (self.poison / "prefect").mkdir(parents=True)
        (self.poison / "prefect" / "__init__.py").write_text(PREFECT)

    def write(self, name: str, content: bytes) -> None:
        (self.run_dir / name).write_bytes(content)

    def variables(self, **variables: str) -> None:
        self.write("env", environment_file(variables))

    def started(self, *wrapper: str) -> AbstractContextManager[subprocess.Popen[str]]:
        argv = [sys.executable, "-P", "-m", "hpc_bridge.node", str(self.run_dir), "0", "0"]
        argv += self.arguments
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.poison)}
        return started([*wrapper, *argv], self.run_dir, environment | self.job)

    def run(self, *wrapper: str) -> tuple[int, str, str]:
        with self.started(*wrapper) as process:
            stdout, stderr = process.communicate(timeout=DEADLINE)
        return process.returncode, stdout, stderr

    def run_signalled(self, *signals: signal.Signals) -> tuple[int, str, str]:
        """Run until the flow says that it is ready, then send the signals."""
        with self.started() as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for number in signals:
                process.send_signal(number)
            stdout, stderr = process.communicate(timeout=DEADLINE)
        return process.returncode, stdout, stderr

    def record(self) -> ExitRecord:
        record = read_exit_record(self.attempt.exit_record)
        assert record is not None
        return record


def given(stderr: str) -> ExitRecord:
    """The record that the reporting process got on its standard input."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("given: ")]
    return ExitRecord(**json.loads(line.removeprefix("given: ")))
