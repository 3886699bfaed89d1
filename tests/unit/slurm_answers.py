"""What real Slurm commands of three versions printed, and lines made up like theirs.

The captures ask for more columns than the package does; ``answer`` keeps those that it asks for.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.slurm import SlurmScheduler

SLURM = SlurmScheduler()
CAPTURES = Path(__file__).parents[1] / "data" / "slurm"
VERSIONS = sorted(folder.name for folder in CAPTURES.iterdir() if folder.is_dir())
SINCE = datetime(2026, 11, 21, tzinfo=UTC)
ASKED = {
    "status": SLURM.status_command("researcher"),
    "find": SLURM.find_command("hb", "researcher"),
    "history": SLURM.history_command([JobId("1")], "researcher", SINCE),
    "usage": SLURM.usage_command([JobId("1")], "researcher", SINCE),
}

# Which would break the lines while columns are picked.
ODD_NAMES = {
    "newline": "a\nb",
    "tab": "a\tb",
    "u2028": "a\u2028b",
    "unit-separator": "a\x1fb",
}

each_version = pytest.mark.parametrize("version", VERSIONS)


def columns(command: list[str]) -> list[str]:
    (form,) = [word for word in command if word.startswith("--format=")]
    return re.split(r"[\x1f,]", form.removeprefix("--format="))


def answer(version: str, name: str) -> Answer:
    """A captured answer, as the package's own command would have printed it."""
    stored = json.loads((CAPTURES / version / f"{name}.json").read_text(encoding="utf-8"))
    stdout = stored["stdout"]
    kind = "history" if name.startswith("find-history") else name.split("-")[0]
    if kind in ASKED and stdout:
        given, asked = columns(stored["command"]), columns(ASKED[kind])
        odd = ODD_NAMES.get(name.partition("-name-with-")[2], "@")
        lines = stdout.replace(odd, "@").split("\n")[:-1]
        stdout = "".join(_projected(line, given, asked) for line in lines).replace("@", odd)
    return Answer(tuple(stored["command"]), stored["exit_code"], stdout, stored["stderr"])


def _projected(line: str, given: list[str], asked: list[str]) -> str:
    named = dict(zip(given, line.split("\x1f"), strict=True))
    # Of a partition, %R is the name alone, %P the name and the default's star.
    return "\x1f".join(named[column] if column in named else named["%R"] for column in asked) + "\n"


def printed(*rows: tuple[str, ...], exit_code: int = 0, stderr: str = "") -> Answer:
    stdout = "".join("\x1f".join(row) + "\n" for row in rows)
    return Answer(("squeue",), exit_code, stdout, stderr)


def queued(
    job: str = "1", name: str = "hb", word: str = "RUNNING", **fields: str
) -> tuple[str, ...]:
    """One line of squeue."""
    moment = "2026-11-21T05:25:03"
    rest = {"reason": "None", "nodes": "c1", "submitted": moment, "started": moment, "ended": "N/A"}
    return (job, name, word, *(rest | fields).values())


def recorded(job: str = "1", name: str = "hb", word: str = "COMPLETED", code: str = "0:0"):
    """One line of sacct."""
    moment = "2026-11-21T05:25:03"
    return (job, name, word, code, "None", "c1", moment, moment, moment)


def subject(jobs: dict[JobId, JobStatus]) -> JobStatus:
    """The job that a capture is about: the newest."""
    return max(jobs.values(), key=lambda job: int(job.job_id.value))


def captured(version: str, kind: str) -> set[str]:
    paths = (CAPTURES / version).glob(f"{kind}-*.json")
    return {path.stem.removeprefix(f"{kind}-") for path in paths}
