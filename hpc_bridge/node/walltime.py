"""The warning before the walltime: when it is handed on, and what it means.

Slurm looks every 30 s and sends the signal up to a minute too early, which for a short job is its
whole time; the supervisor holds it back. The flow's process learns from a notice beside the
supervisor's FIFO that a signal means the walltime. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from hpc_bridge.node.attempt import REPORTS
from hpc_bridge.node.records import WARNED

ENDS = "HPC_BRIDGE_ENDS"
"""When PBS, which does not say it, will end the job: seconds since 1970."""
STARTED = "HPC_BRIDGE_STARTED"
"""When the job script began, in seconds since 1970: Slurm before 23.02 does not say it."""

_EARLIEST = 75.0
"""A signal earlier than this does not follow from the end that we know: it was changed, or the job
is preempted on a site that warns then."""
_AT_END = 5.0
_NOTICE = "warned.json"


@dataclass(frozen=True, slots=True)
class Notice:
    """What the supervisor tells the flow's process as it hands the warning on."""

    message: str
    resubmit: bool
    caught: bool
    """The flow catches the signal itself, so that it is not ended by it."""
    end: float | None

    def is_at_end(self, now: float) -> bool:
        """Whether a termination at ``now`` is that of the walltime, and not somebody's cancel."""
        return self.end is not None and now >= self.end - _AT_END

    def write(self, reports: Path) -> None:
        """Leave it beside the FIFO."""
        aside = reports.with_name(f"{_NOTICE}.new")
        aside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        aside.replace(reports.with_name(_NOTICE))

    @classmethod
    def read(cls) -> Self | None:
        """In the flow's process; None while nothing was handed on."""
        try:
            path = Path(os.environ[REPORTS]).with_name(_NOTICE)
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, OSError):
            return None


class Walltime:
    """What an attempt knows about the end of its job."""

    def __init__(self, submission: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        spec = submission.get("spec", {})
        name, _, seconds = (spec.get("warning") or "").partition("@")
        self._asked: str | None = spec.get("walltime")
        self._goes_on = spec.get("on_walltime") == "resubmit"
        self._most = int(spec.get("max_resubmissions", 10))
        self._before = int(submission.get("resubmissions", 0))
        start = float(
            variables.get("SLURM_JOB_START_TIME") or variables.get(STARTED) or time.time()
        )
        self.signal: int | None = getattr(signal, f"SIG{name}", None)
        told = variables.get("SLURM_JOB_END_TIME") or variables.get(ENDS)
        self.end = _end(told, start, self._asked)
        self.seconds = float(seconds or 0)
        if self._asked is None and self.end is not None:  # which nobody could know before
            self.seconds = min(self.seconds, (self.end - start) / 4)

    def hold_back(self, now: float) -> float:
        """Seconds for which a warning that came at ``now`` is kept."""
        if self.end is None:
            return 0.0
        early = self.end - self.seconds - now
        return early if 0 < early <= _EARLIEST else 0.0

    def is_warned_by(self, number: int, now: float) -> bool:
        """Whether a signal that came at ``now`` is the warning.

        A SIGTERM that was asked for as the warning may also be somebody's cancel, which the
        scheduler knows; before its time it can be nothing else. After the end it is the end's own.
        """
        end = self.end
        return number == self.signal and (
            end is not None and end - self.seconds - _EARLIEST <= now < end
        )

    def left(self, now: float) -> float:
        """Seconds until the job is ended, as far as a warning that is handed on at ``now`` says."""
        if self.end is None or not 0 < self.end - now <= self.seconds + _EARLIEST:
            return self.seconds
        return self.end - now

    def notice(self, now: float, *, caught: bool) -> Notice:
        """What to tell the flow's process at ``now``."""
        resubmit = self._goes_on and self._before < self._most
        walltime = f"the walltime of {self._asked}" if self._asked else "the job's time limit"
        if resubmit:
            message = (
                f"Resubmission {self._before + 1} of at most {self._most}: {walltime} was not"
                " enough; the run goes on in a new job."
            )
        elif caught or self.end is None or self.end - now > self.seconds + _EARLIEST:
            message = WARNED  # the scheduler knows better
        else:
            message = f"Ended {self.end - now:.0f} s before the end of {walltime}. " + (
                f"It has been resubmitted as often as max_resubmissions={self._most} allows."
                if self._goes_on
                else "Ask for a longer walltime, or let the run go on in a new job with"
                " on_walltime='resubmit'."
            )
        return Notice(message, resubmit, caught, self.end)


def _end(told: str | None, start: float, asked: str | None) -> float | None:
    if told:
        return float(told)
    if asked is None:
        return None
    days, _, clock = asked.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    walltime = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    return start + -(-walltime // 60) * 60  # Slurm counts whole minutes
