"""Answers that are newer than a moment."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hpc_bridge.errors import CommandTimeout, SchedulerUnavailable
from hpc_bridge.jobs import JobStatus
from tests.unit.answering import BARE, FULL, START, Process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "status.json"


def moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def newer(process: Process, than: float, at: float) -> dict[str, JobStatus]:
    process.now = moment(at)
    answer = process.shared.ask(moment(than))
    assert answer.taken_at >= moment(than)
    return {job_id.value: job for job_id, job in answer.jobs.items()}


def test_a_young_answer_that_is_too_old_for_one_is_asked_anew_and_shared(path: Path) -> None:
    first, second, third = Process(path, BARE), Process(path, FULL), Process(path)
    first.ask()
    assert newer(second, than=5, at=6) == {"1_2": FULL}
    assert newer(third, than=5.5, at=7) == {"1_2": FULL}
    assert first.ask(after=8) == {"1_2": FULL}
    assert (first.queries, second.queries, third.queries) == (1, 1, 0)


def test_an_answer_of_that_very_moment_is_new_enough(path: Path) -> None:
    first, second = Process(path, BARE), Process(path)
    first.ask(after=5)
    assert newer(second, than=5, at=5) == {"2": BARE}
    assert second.queries == 0


def test_a_new_enough_answer_that_is_too_old_all_the_same_is_asked_anew(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask(after=5)
    assert newer(second, than=1, at=40) == {"1_2": FULL}


def test_what_was_asked_before_and_answered_after_is_not_new_enough(path: Path) -> None:
    """The scheduler may have looked before it happened."""
    first, second = Process(path, BARE), Process(path, FULL)
    first.takes = timedelta(seconds=10)
    first.ask()
    assert newer(second, than=5, at=11) == {"1_2": FULL}
    assert second.queries == 1


def test_a_scheduler_that_does_not_answer_is_not_hurried(path: Path) -> None:
    first, second = Process(path), Process(path, FULL)
    first.error = CommandTimeout("no answer")
    with pytest.raises(CommandTimeout):
        first.ask()
    second.now = moment(6)
    with pytest.raises(SchedulerUnavailable):
        second.shared.ask(moment(5))
    assert second.queries == 0


TENTH = 2.7


def test_one_who_wants_a_newer_answer_waits_for_a_tenth_of_its_age(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.takes = timedelta(seconds=10)
    first.ask()
    assert newer(second, than=10.5, at=11) == {"1_2": FULL}
    assert second.slept == [pytest.approx(TENTH - 1)]


def test_who_comes_later_than_that_does_not_wait(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask()
    assert newer(second, than=2.9, at=3) == {"1_2": FULL}
    assert sum(second.slept) == 0


def test_who_can_use_the_known_answer_does_not_wait(path: Path) -> None:
    first, second = Process(path, BARE), Process(path)
    first.ask()
    second.ask(after=1)
    newer(second, than=0, at=1)
    assert (second.slept, second.queries) == ([], 0)


def test_however_many_want_a_newer_answer_a_tenth_of_its_age_lies_between_questions(
    path: Path,
) -> None:
    asked_at: list[datetime] = []
    now = START
    queries = 0
    for number in range(40):
        process = Process(path, BARE)
        newer(process, than=(now - START).total_seconds(), at=(now - START).total_seconds() + 0.01)
        if process.queries:
            asked_at.append(process.now)
        queries += process.queries
        now = process.now + timedelta(seconds=0.1 * (number % 3))
    assert queries == len(asked_at) > 10
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(asked_at)]
    assert min(gaps) == pytest.approx(TENTH)


def test_those_who_want_an_answer_of_the_same_moment_share_the_next_one(path: Path) -> None:
    first = Process(path)
    first.ask()
    others = [Process(path, BARE) for _ in range(20)]
    assert newer(others[0], than=1, at=1) == {"2": BARE}
    for other in others[1:]:  # they waited for the lock meanwhile
        assert newer(other, than=1, at=TENTH) == {"2": BARE}
    assert sum(other.queries for other in others) == 1
    assert [other.slept for other in others[1:]] == [[]] * 19
