"""The drill's judge on records that are made up: it sees what is lost, doubled and wrong."""

from __future__ import annotations

from typing import Any

import pytest

from drill.judge import Attempt, Evidence, JobRow, Line, judge
from drill.kinds import plan
from drill.records import read_rows

A, B = "hbaaaaaaaaaaaaa", "hbbbbbbbbbbbbbb"


def row(state: str, submission: str = A, job: str = "7") -> JobRow:
    return JobRow(submission, job, state)


def line(
    what: str, attempt: int = 0, submission: str = A, job: str = "7", step: Any = None
) -> Line:
    return Line(what, submission, job, attempt, step)


def evidence(**changes: Any) -> Evidence:
    """A run of kind ``sleeps`` that nothing hit."""
    usual: dict[str, Any] = {
        "flow_run": "one",
        "kind": "sleeps",
        "state_type": "COMPLETED",
        "state_name": "Completed",
        "history": ["Scheduled", "Pending", "Queued", "Running", "Completed"],
        "rows": [row("COMPLETED")],
        "attempts": [Attempt(A, 0, "COMPLETED")],
        "lines": [line("start"), line("effect")],
    }
    return Evidence(**usual | changes)


def crashed(name: str, **changes: Any) -> Evidence:
    usual: dict[str, Any] = {
        "attempts": [Attempt(A, 0, "")],
        "lines": [line("start")],
        "history": ["Running", name],
    }
    return evidence(state_type="CRASHED", state_name=name, **usual | changes)


CANCELLED = {"state_type": "CANCELLED", "state_name": "Cancelled"}

RIGHT = {
    "nothing hit it": evidence(),
    "accounting has lost its job": evidence(rows=[], submitted=True),
    "accounting has lost its job, which was cancelled": evidence(
        **CANCELLED,
        rows=[],
        submitted=True,
        faults=["scancel"],
        attempts=[Attempt(A, 0, "")],
        lines=[line("start")],
    ),
    "its flow failed": evidence(
        kind="raises",
        state_type="FAILED",
        state_name="Failed",
        rows=[row("FAILED")],
        attempts=[Attempt(A, 0, "FAILED")],
        lines=[line("start")],
    ),
    "its flow was killed": crashed("Killed", kind="is killed", rows=[row("FAILED")]),
    "its node died": crashed("NodeFail", rows=[row("NODE_FAIL")], attempts=[Attempt(A, 0, None)]),
    "its job was forgotten": crashed("Lost", rows=[row("RUNNING")], attempts=[], lines=[]),
    "its walltime was over": crashed("WalltimeExceeded", kind="overruns", rows=[row("FAILED")]),
    "somebody cancelled its job": evidence(
        **CANCELLED,
        faults=["scancel"],
        rows=[row("CANCELLED")],
        attempts=[],
        lines=[],
    ),
    "it was cancelled before it had a job": evidence(
        **CANCELLED, faults=["cancel"], rows=[], attempts=[], lines=[]
    ),
    "it completed in spite of its cancellation": evidence(faults=["cancel"]),
    "it was requeued": evidence(
        rows=[row("REQUEUED"), row("COMPLETED")],
        attempts=[Attempt(A, 0, ""), Attempt(A, 1, "COMPLETED")],
        lines=[line("start"), line("start", 1), line("effect", 1)],
    ),
    "it was resubmitted on purpose": evidence(
        kind="resubmits",
        rows=[row("FAILED"), row("COMPLETED", B, "8")],
        attempts=[Attempt(A, 0, "PENDING"), Attempt(B, 0, "COMPLETED")],
        lines=[line("start"), line("start", 0, B, "8"), line("effect", 0, B, "8")],
    ),
    "a step that was cut is done again": evidence(
        kind="tasks",
        rows=[row("REQUEUED"), row("COMPLETED")],
        attempts=[Attempt(A, 0, None), Attempt(A, 1, "COMPLETED")],
        lines=[
            line("start"),
            line("step", step=0),
            line("start", 1),
            line("step", 1, step=0),
            line("effect", 1),
        ],
    ),
}

REQUEUED_AFTER_ITS_EFFECT: dict[str, Any] = {
    "rows": [row("REQUEUED"), row("COMPLETED")],
    "lines": [line("start"), line("effect"), line("start", 1), line("effect", 1)],
}

WRONG = {
    "lost: completed without its effect": evidence(lines=[line("start")]),
    "not over: Running": evidence(state_type="RUNNING", state_name="Running"),
    "not over: Requeued": evidence(
        state_type="PENDING", state_name="Requeued", rows=[row("REQUEUED")]
    ),
    "is Cancelled": evidence(
        **CANCELLED, rows=[row("CANCELLED")], attempts=[Attempt(A, 0, "")], lines=[line("start")]
    ),
    "is Completed": evidence(rows=[]),
    "is NodeFail": crashed("NodeFail", rows=[row("TIMEOUT")]),
    "is TimedOut": crashed("TimedOut", rows=[], submitted=True),
    "is Lost": crashed("Lost", rows=[row("CANCELLED")], faults=["scancel"]),
    "is Failed": evidence(
        state_type="FAILED",
        state_name="Failed",
        attempts=[Attempt(A, 0, "FAILED")],
        lines=[line("start")],
    ),
    "doubled: ran in 2 submissions": evidence(
        rows=[row("COMPLETED"), row("COMPLETED", B, "8")],
        lines=[line("start"), line("start", 0, B, "8"), line("effect", 0, B, "8")],
    ),
    f"doubled: {A} ran as jobs 7, 8": evidence(
        lines=[line("start"), line("start", 1, job="8"), line("effect", 1, job="8")]
    ),
    "doubled: an attempt started twice": evidence(
        lines=[line("start"), line("start"), line("effect")]
    ),
    "doubled: completed more than once": evidence(history=["Completed", "Running", "Completed"]),
    "doubled: step 0 was done again": evidence(
        kind="tasks",
        rows=[row("REQUEUED"), row("COMPLETED")],
        lines=[
            line("start"),
            line("step", step=0),
            line("step", step=1),
            line("start", 1),
            line("step", 1, step=0),
            line("effect", 1),
        ],
    ),
    "doubled: effect done again": evidence(
        **REQUEUED_AFTER_ITS_EFFECT,
        attempts=[Attempt(A, 0, "COMPLETED"), Attempt(A, 1, "COMPLETED")],
    ),
    "doubled: effect done, but JobFailed": crashed(
        "JobFailed", rows=[row("FAILED")], lines=[line("start"), line("effect")]
    ),
}


@pytest.mark.parametrize("what", RIGHT)
def test_a_run_that_is_as_its_records_say_is_right(what: str) -> None:
    verdict = judge(RIGHT[what])
    assert verdict.problems == ()
    assert not verdict.cut


@pytest.mark.parametrize("problem", WRONG)
def test_what_is_lost_doubled_or_wrong_is_named(problem: str) -> None:
    assert problem in judge(WRONG[problem]).problems


def test_an_effect_cut_from_its_report_is_counted_and_no_error() -> None:
    verdict = judge(
        evidence(
            **REQUEUED_AFTER_ITS_EFFECT,
            attempts=[Attempt(A, 0, ""), Attempt(A, 1, "COMPLETED")],
        )
    )
    assert (verdict.problems, verdict.cut) == ((), True)


def test_rows_are_in_the_order_of_their_starts_and_elements_apart() -> None:
    printed = (
        f"9|{B}|CANCELLED by 0|2026-11-21T09:00:05|None\n"
        f"7|{A}|RUNNING|2026-11-21T09:00:00|2026-11-21T09:01:00\n"
        f"7|{A}|REQUEUED|2026-11-21T08:00:00|2026-11-21T08:00:01\n"
        f"8_[0,2-3%2]|{B}|PENDING|2026-11-21T10:00:00|Unknown\n"
    )
    rows = [(one.job, one.state) for _, one in read_rows(printed)]
    assert rows == [
        ("7", "REQUEUED"),
        ("9", "CANCELLED"),
        ("7", "RUNNING"),
        ("8_0", "PENDING"),
        ("8_2", "PENDING"),
        ("8_3", "PENDING"),
    ]


def test_the_plan_follows_from_the_seed_and_has_every_kind() -> None:
    from random import Random

    from drill.kinds import KINDS

    assert plan(50, Random(7)) == plan(50, Random(7))
    assert {planned.kind for planned in plan(20, Random(7))} == set(KINDS)
