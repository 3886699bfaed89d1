"""What all records of a flow run call for, and whether it is so. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drill.kinds import CRASHED, KINDS

_BY_SCHEDULER = {
    "CANCELLED": "Cancelled",
    "TIMEOUT": "WalltimeExceeded",
    "NODE_FAIL": "NodeFail",
    "OUT_OF_MEMORY": "OutOfMemory",
    "PREEMPTED": "Preempted",
    "BOOT_FAIL": "BootFail",
    "DEADLINE": "DeadlineExceeded",
}
_BY_FLOW = {"COMPLETED": "Completed", "FAILED": "Failed", "CANCELLED": "Cancelled"}
_FINAL_TYPES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_UNRECORDED = "unrecorded"
_CANCELS = frozenset({"cancel", "scancel"})


@dataclass(frozen=True, slots=True)
class JobRow:
    """One attempt of a job in the scheduler's records (``sacct -D``), by their starts."""

    submission: str
    job: str
    state: str
    """The first word: ``CANCELLED`` for ``CANCELLED by 0``."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of the run directory; ``flow_state`` is None without an exit record."""

    submission: str
    number: int
    flow_state: str | None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that the flow left: ``start``, ``step`` or ``effect``."""

    what: str
    submission: str
    job: str
    attempt: int
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known of one flow run when the drill is over."""

    flow_run: str
    kind: str
    state_type: str
    state_name: str
    history: Sequence[str] = ()
    """Names of its states, oldest first."""
    faults: Sequence[str] = ()
    """What was done to this run or its job on purpose; not what hit everybody."""
    rows: Sequence[JobRow] = ()
    attempts: Sequence[Attempt] = ()
    lines: Sequence[Line] = ()
    submitted: bool = False
    """Whether its run directory knows a job. Accounting never hears of one whose news wait in the
    memory of a controller that is killed; then there is no row."""

    def of(self, what: str) -> list[Line]:
        """The flow's lines of one sort."""
        return [line for line in self.lines if line.what == what]

    def flow_state(self, line: Line) -> str | None:
        """What the attempt that left a line said of the flow's end."""
        for attempt in self.attempts:
            if (attempt.submission, attempt.number) == (line.submission, line.attempt):
                return attempt.flow_state
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``problems`` is empty for a run that is as its records say."""

    expected: frozenset[str]
    problems: tuple[str, ...]
    cut: bool = False
    """An attempt was ended between its effect and the word of it, so that another did it again, or
    the run ended otherwise: at that moment nobody can know. Counted, and no error."""


def judge(run: Evidence) -> Verdict:
    """Compare the state of one flow run with its job's records and with what the flow did."""
    expected = expected_ends(run)
    seen = CRASHED if _is_unnamed_crash(run) else run.state_name
    problems = []
    if run.state_type not in _FINAL_TYPES:
        problems.append(f"not over: {run.state_name}")
    elif seen not in expected:
        problems.append(f"is {run.state_name}")
    effects, cut = _check_effects(run)
    return Verdict(expected, (*problems, *_check_starts(run), *_check_steps(run), *effects), cut)


def expected_ends(run: Evidence) -> frozenset[str]:
    """Names of the states that are right; empty when nothing can be."""
    if not run.rows and not run.submitted:
        # Only a run that was cancelled before it was submitted needs no job.
        return frozenset({"Cancelled"} if "cancel" in run.faults else ())
    natural = KINDS[run.kind].end
    newest = max(run.attempts, key=lambda a: (a.submission, a.number), default=None)
    told = _BY_FLOW.get(newest.flow_state or "") if newest is not None else None
    by_scheduler = run.rows[-1].state if run.rows else _UNRECORDED
    if told in ("Completed", "Failed"):
        return frozenset({told}) & {natural}
    if told == "Cancelled":
        return frozenset({"Cancelled"} if _CANCELS.intersection(run.faults) else ())
    if by_scheduler == "CANCELLED" and not _CANCELS.intersection(run.faults):
        ends = {natural}  # nobody was to cancel it
    elif by_scheduler in _BY_SCHEDULER:
        ends = {_BY_SCHEDULER[by_scheduler]}
        if newest is not None and newest.flow_state == "CRASHED":
            ends.add(natural)  # had crashed by itself before
    elif by_scheduler in ("COMPLETED", "FAILED"):
        ends = {natural}
    elif by_scheduler == _UNRECORDED:
        ends = {"Cancelled", natural} if "scancel" in run.faults else {natural, "Lost"}
    else:  # the records end before the job does: the scheduler has forgotten it
        ends = {"Lost"}
    if "cancel" in run.faults:
        ends.add("Cancelled")
    return frozenset(ends)


def _is_unnamed_crash(run: Evidence) -> bool:
    named = {*_BY_SCHEDULER.values(), "Lost"}
    return run.state_type == "CRASHED" and run.state_name not in named


def _check_starts(run: Evidence) -> list[str]:
    starts = run.of("start")
    problems = []
    submissions = {line.submission for line in starts}
    if len(submissions) > KINDS[run.kind].submissions:
        problems.append(f"doubled: ran in {len(submissions)} submissions")
    for submission in sorted(submissions):
        jobs = {line.job for line in starts if line.submission == submission}
        if len(jobs) > 1:
            problems.append(f"doubled: {submission} ran as jobs {', '.join(sorted(jobs))}")
    attempts = [(line.submission, line.attempt) for line in starts]
    if len(attempts) > len(set(attempts)):
        problems.append("doubled: an attempt started twice")
    if run.history.count("Completed") > 1:
        problems.append("doubled: completed more than once")
    return problems


def _check_steps(run: Evidence) -> list[str]:
    """A task whose result was kept is not done again; it was kept when the next line came."""
    kept: set[int | None] = set()
    problems = []
    for before, line in zip([None, *run.lines], run.lines, strict=False):
        same = before is not None and (before.submission, before.attempt) == (
            line.submission,
            line.attempt,
        )
        if same and before is not None and before.what == "step":
            kept.add(before.step)
        if line.what == "step" and line.step in kept:
            problems.append(f"doubled: step {line.step} was done again")
    return problems


def _check_effects(run: Evidence) -> tuple[list[str], bool]:
    """(problems, whether an effect was cut from its report)."""
    effects = run.of("effect")
    completed = run.state_type == "COMPLETED"
    if completed and not effects:
        return ["lost: completed without its effect"], False
    problems = []
    cut = False
    for number, effect in enumerate(effects):
        if completed and number == len(effects) - 1:
            break  # the one that counts
        if run.flow_state(effect) == "COMPLETED" or not _was_ended_from_outside(run, effect):
            what = "done again" if number < len(effects) - 1 else f"done, but {run.state_name}"
            problems.append(f"doubled: effect {what}")
        else:
            cut = True
    return problems, cut


def _was_ended_from_outside(run: Evidence, effect: Line) -> bool:
    """Whether the scheduler, or a cancel, ended the attempt that had left this effect."""
    rows = [row for row in run.rows if row.submission == effect.submission]
    state = rows[effect.attempt].state if effect.attempt < len(rows) else ""
    return bool(_CANCELS.intersection(run.faults)) or state in {
        *_BY_SCHEDULER,
        "REQUEUED",
    }
