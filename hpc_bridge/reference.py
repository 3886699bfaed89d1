"""What a flow run's ``infrastructure_pid`` says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from hpc_bridge.jobs import JobId
from hpc_bridge.journal import submission_time
from hpc_bridge.settings import SchedulerName

_FORM = re.compile(r"(?P<scheduler>slurm|pbs|local):(?P<job>[^:]+):(?P<submission>hb[a-z2-7]{13})")


@dataclass(frozen=True, slots=True)
class JobReference:
    """``<scheduler>:<job id>:<submission id>``; the last is the job's name, because ids wrap."""

    scheduler: SchedulerName
    job_id: JobId
    submission_id: str

    @property
    def submitted(self) -> datetime:
        """When the job was submitted."""
        return submission_time(self.submission_id)

    def __str__(self) -> str:
        return f"{self.scheduler}:{self.job_id}:{self.submission_id}"

    @classmethod
    def parse(cls, text: str | None) -> JobReference | None:
        """None when the text is not one of ours."""
        match = _FORM.fullmatch(text or "")
        if match is None:
            return None
        return cls(
            cast(SchedulerName, match["scheduler"]), JobId(match["job"]), match["submission"]
        )
