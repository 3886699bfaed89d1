"""What a real PBS server answered, and records made up like its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.pbs import PBSScheduler

PBS = PBSScheduler()
TRANSCRIPTS = Path(__file__).parents[1] / "data" / "pbs"
SINCE = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass(frozen=True)
class Transcript:
    name: str
    answer: Answer

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.answer.command[1:]

    @property
    def is_of_full_records(self) -> bool:
        """Of jobs, in a form that the package can read."""
        words = self.arguments
        about_jobs = "-f" in words and not {"-Q", "-B"} & set(words)
        return about_jobs and "dsv" not in words


@cache
def transcripts(program: str) -> dict[str, Transcript]:
    """By name."""
    lines = (TRANSCRIPTS / f"{program}.jsonl").read_text(encoding="utf-8").splitlines()
    return {stored["name"]: _transcript(stored) for stored in map(json.loads, lines)}


def _transcript(stored: dict) -> Transcript:
    # As a transport decodes it.
    raw = bytes.fromhex(stored["stdout_hex"]) if "stdout_hex" in stored else None
    stdout = stored["stdout"] if raw is None else raw.decode(errors="replace")
    answer = Answer(tuple(stored["command"]), stored["exit_code"], stdout, stored["stderr"])
    return Transcript(stored["name"], answer)


def answer(program: str, name: str) -> Answer:
    return transcripts(program)[name].answer


def records(*jobs: dict[str, str], exit_code: int = 0, stderr: str = "") -> Answer:
    """An answer of ``qstat -f -w``."""
    lines = []
    for number, job in enumerate(jobs, start=1):
        fields = {"Job_Name": "hb", "Job_Owner": "me@host", "job_state": "R"} | job
        lines.append(f"Job Id: {fields.pop('id', f'{number}.server')}\n")
        lines += [f"    {name} = {value}\n" for name, value in fields.items()]
        lines.append("\n")
    return Answer(("qstat",), exit_code, "".join(lines), stderr)


def status_of(**fields: str) -> JobStatus:
    (status,) = PBS.parse_status(records(fields)).values()
    return status


def job(found: dict[JobId, JobStatus], job_id: str) -> JobStatus:
    return found[JobId(job_id)]
