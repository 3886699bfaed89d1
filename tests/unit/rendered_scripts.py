"""Job scripts, rendered and run with a stand-in for Python."""

from __future__ import annotations

import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hpc_bridge.jobs import JobSpec
from hpc_bridge.node.records import ExitRecord, read_exit_record
from hpc_bridge.script import render
from tests.unit.processes import started

CONTEXT = {
    "run_dir": "/shared/runs/hbabc",
    "output": "/shared/runs/hbabc/job.out",
    "python": "/env/bin/python",
    "setup": [],
}
HOSTILE = [
    "a b",
    "it's",
    'say "x"',
    r"back\slash",
    "trailing\\",
    "# no comment",
    "a#b",
    "$HOME ${x} $(touch pwned) `touch pwned`",
    "; touch pwned; #",
    "'; touch pwned; '",
    '"; touch pwned; "',
    " leading and trailing ",
    "tab\there",
    "100% ümläut ✓",
    "--wrap=touch pwned",
    "{{ spec.name }}",
    "$(",
    "'",
    '"',
    "\\",
    "~",
]


def rendered(
    values: dict[str, Any] | None = None, *, template: str | None = None, **context: Any
) -> str:
    spec = JobSpec(name="hbabc", **(values or {}))
    return render(spec, CONTEXT | context, packaged="slurm.sh.j2", template=template)


FIELDS: list[tuple[str, object, str]] = [
    ("partition", "gpu", "--partition=gpu"),
    ("account", "proj", "--account=proj"),
    ("qos", "high", "--qos=high"),
    ("reservation", "course", "--reservation=course"),
    ("constraint", "skylake&ib", "--constraint=skylake&ib"),
    ("nodes", 2, "--nodes=2"),
    ("tasks", 8, "--ntasks=8"),
    ("tasks_per_node", 4, "--ntasks-per-node=4"),
    ("cpus_per_task", 3, "--cpus-per-task=3"),
    ("memory", "16G", "--mem=16G"),
    ("memory_per_cpu", "1500M", "--mem-per-cpu=1500M"),
    ("gpus", 2, "--gpus=2"),
    ("gpus_per_node", "a100:2", "--gpus-per-node=a100:2"),
    ("walltime", "1d12h", "--time=1-12:00:00"),
    ("begin", "now+1hour", "--begin=now+1hour"),
    ("exclusive", True, "--exclusive"),
    ("licenses", "matlab:1", "--licenses=matlab:1"),
    ("nodelist", "c[1-2]", "--nodelist=c[1-2]"),
    ("exclude", "c3", "--exclude=c3"),
    ("dependency", "afterok:1234", "--dependency=afterok:1234"),
    ("requeue", True, "--requeue"),
    ("requeue", False, "--no-requeue"),
    ("warning", "SIGUSR1@120", "--signal=B:USR1@120"),
    ("comment", "train / eager-otter", "--comment=train / eager-otter"),
    ("directives", ["--mail-type=END"], "--mail-type=END"),
]


class Job:
    """A rendered script on disk with a stand-in for Python."""

    def __init__(
        self, folder: Path, supervisor: str = "exit 0", *, has_package: int = 0, **values: Any
    ) -> None:
        self.folder = folder / "it's $(touch pwned) ü"
        self.run_dir = self.folder / 'run "dir"'
        self.run_dir.mkdir(parents=True)
        self.python = self.folder / "py thon"
        # asked with -c whether it has the package
        answers = f'[ "$2" = -c ] && exit {has_package}'
        self.python.write_text(f"#!/bin/bash\n{answers}\n{supervisor}\n", encoding="utf-8")
        self.python.chmod(0o700)
        context = {"run_dir": self.run_dir, "output": self.run_dir / "job.out"}
        self.script = self.folder / "job.sh"
        self.script.write_text(
            rendered(values.pop("spec", {}), **context | {"python": str(self.python)} | values),
            encoding="utf-8",
        )
        self.environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "42"}

    def started(self, **variables: str) -> AbstractContextManager[subprocess.Popen[str]]:
        environment = self.environment | variables
        return started(["bash", str(self.script)], self.folder, environment)

    def run(self, **variables: str) -> tuple[int, str, str]:
        with self.started(**variables) as process:
            stdout, stderr = process.communicate(timeout=20)
        assert not list(self.folder.rglob("pwned"))
        return process.returncode, stdout, stderr

    def claim(self, element: int = 0, attempt: int = 0) -> Path:
        return self.run_dir / str(element) / str(attempt)

    def record(self, element: int = 0, attempt: int = 0) -> ExitRecord:
        record = read_exit_record(self.claim(element, attempt) / "exit.json")
        assert record is not None
        return record
