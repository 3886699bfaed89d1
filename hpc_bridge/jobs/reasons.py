"""Why a job waits, in words that no scheduler owns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Clears(StrEnum):
    """Whether a job that waits for this reason can start without a change."""

    BY_ITSELF = "by itself"
    BY_SOMEBODY = "by somebody"
    """You, an account's manager or the site has to do something first."""
    NEVER = "never"
    """Not while the job and the site's limits are what they are."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class QueueReason:
    """The scheduler's reason for a job's wait."""

    word: str
    """The scheduler's own, unchanged."""
    meaning: str
    """Whole sentences: what it means, and what to do where waiting does not help."""
    clears: Clears
