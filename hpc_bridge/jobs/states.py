"""What is known of a job, in words that no scheduler owns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class JobState(StrEnum):
    """Neutral job states. A scheduler module maps its own words to these."""

    PENDING = "PENDING"
    HELD = "HELD"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETING = "COMPLETING"
    REQUEUED = "REQUEUED"

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    LOST = "LOST"

    @property
    def is_terminal(self) -> bool:
        """True when the job is over; a terminal state never changes for one attempt."""
        return self not in _LIVE

    @property
    def is_waiting(self) -> bool:
        """True while the job has not started."""
        return self in _WAITING


_WAITING = frozenset({JobState.PENDING, JobState.HELD, JobState.REQUEUED})
_LIVE = _WAITING | {
    JobState.STARTING,
    JobState.RUNNING,
    JobState.SUSPENDED,
    JobState.COMPLETING,
}


@dataclass(frozen=True, slots=True)
class JobId:
    """A scheduler's own id for a job (``"123"``, ``"123_4"``, ``"12.pbs-server"``)."""

    value: str

    def __str__(self) -> str:
        return self.value


NEVER_STARTED = "it never started: "
"""How the reason of a job begins that was given up in the queue for what follows."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One answer about one job. Times are timezone-aware UTC."""

    job_id: JobId
    name: str
    state: JobState
    scheduler_state: str
    """The scheduler's own word, unchanged."""
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    nodes: str | None = None
    submitted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    estimated_start: datetime | None = None
    cancelled_by: str | None = None
