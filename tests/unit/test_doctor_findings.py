"""Steps of the doctor's examination: what is skipped, and when it fails."""

from __future__ import annotations

import pytest

from hpc_bridge.doctor.findings import (
    Examination,
    Finding,
    Status,
    Verdict,
    green,
    red,
    skipped,
    worst,
    yellow,
)
from hpc_bridge.errors import SettingsError


def examined(first: Verdict) -> tuple[list[Status], Examination]:
    told: list[Finding] = []
    examination = Examination(told.append)
    examination.step("a", "the first", lambda: first)
    examination.step("b", "the second", lambda: green("fine"), needs=["a"])
    examination.step("c", "the third", lambda: green("fine"), needs=["b"])
    examination.step("d", "the fourth", lambda: green("fine"))
    assert examination.findings == told
    return [finding.status for finding in told], examination


@pytest.mark.parametrize(
    ("first", "others", "exit_code"),
    [
        (green("fine"), Status.GREEN, 0),
        (yellow("odd"), Status.GREEN, 0),
        (yellow("not now", blocks=True), Status.SKIPPED, 0),
        (skipped("not wanted"), Status.SKIPPED, 0),
        (red("broken", "mend it"), Status.SKIPPED, 1),
    ],
)
def test_what_needs_a_step_is_skipped_when_it_cannot_be_built_on(
    first: Verdict, others: Status, exit_code: int
) -> None:
    statuses, examination = examined(first)
    assert statuses == [first.status, others, others, Status.GREEN]
    assert examination.exit_code == exit_code


def test_the_terminal_is_left_alone_by_a_step_that_may_ask_on_it() -> None:
    begun: list[str] = []
    examination = Examination(lambda _: None, begun.append)
    examination.step("a", "A", lambda: green("fine"))
    examination.step("b", "B", lambda: green("fine"), may_ask=True)
    assert begun == ["A", ""]


def test_a_skipped_step_names_where_it_began() -> None:
    _, examination = examined(red("broken", "mend it"))
    assert [f.message for f in examination.findings[1:3]] == ["needs: the first"] * 2


def test_an_error_on_purpose_is_red_in_one_line() -> None:
    def check() -> Verdict:
        raise SettingsError("two things are wrong:\n  this\n\n  that")

    examination = Examination(lambda _: None)
    assert not examination.step("a", "A", check)
    [finding] = examination.findings
    assert (finding.status, finding.message) == (
        Status.RED,
        "two things are wrong: this; that",
    )
    assert finding.advice


def test_an_error_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        Examination(lambda _: None).step("a", "A", lambda: green(str(1 / 0)))


def test_several_answers_are_as_bad_as_the_worst() -> None:
    together = worst([green("a"), red("b", "mend b"), yellow("c", "look at c")])
    assert together == Verdict(Status.RED, "a; b; c", "mend b; look at c")


@pytest.mark.parametrize(
    ("verdicts", "summary"),
    [
        ([green("fine"), skipped("there are none")], "all green"),
        ([red("a", "b"), yellow("c"), yellow("d")], "1 red, 2 yellow"),
    ],
)
def test_the_summary_counts_what_is_not_green(verdicts: list[Verdict], summary: str) -> None:
    examination = Examination(lambda _: None)
    for number, verdict in enumerate(verdicts):
        examination.step(str(number), "title", lambda v=verdict: v)
    assert examination.summary == summary


def test_what_was_not_examined_is_not_hidden_in_the_summary() -> None:
    _, examination = examined(skipped("not wanted"))
    assert examination.summary == "all green, 2 not examined"


def test_a_finding_is_for_machines_too() -> None:
    finding = Finding("a", "A", Status.RED, "broken", "mend it", 0.12345)
    assert finding.as_json() == {
        "step": "a",
        "title": "A",
        "status": "red",
        "message": "broken",
        "advice": "mend it",
        "seconds": 0.123,
    }
