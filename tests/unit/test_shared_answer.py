"""The status answer that all processes of one user share: age, damage, failures."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import CommandTimeout, SchedulerUnavailable, UnexpectedOutput
from tests.unit.answering import BARE, FULL, START, Process
from tests.unit.restrictions import no_file_longer_than


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "status.json"


def test_the_second_process_uses_the_answer_of_the_first(path: Path) -> None:
    first, second = Process(path, FULL, BARE), Process(path)
    assert first.ask() == {"1_2": FULL, "2": BARE}
    assert second.ask(after=26.9) == {"1_2": FULL, "2": BARE}
    assert (first.queries, second.queries) == (1, 0)


def test_the_moment_of_the_answer_is_kept(path: Path) -> None:
    Process(path).ask()
    second = Process(path)
    second.now = START + timedelta(seconds=20)
    assert second.shared.ask().taken_at == START


def test_a_process_uses_its_own_answer_too(path: Path) -> None:
    process = Process(path, BARE)
    process.ask()
    process.ask(after=10)
    assert process.queries == 1


def test_an_old_answer_is_asked_anew(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask()
    assert second.ask(after=27.0) == {"1_2": FULL}
    assert first.ask(after=30.0) == {"1_2": FULL}
    assert (first.queries, second.queries) == (1, 1)


def test_an_answer_from_the_future_is_asked_anew(path: Path) -> None:
    """The clock was set back."""
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask(after=3600)
    assert second.ask() == {"1_2": FULL}


def test_an_empty_queue_is_an_answer(path: Path) -> None:
    first, second = Process(path), Process(path, BARE)
    assert (first.ask(), second.ask()) == ({}, {})
    assert second.queries == 0


def test_a_shorter_answer_leaves_nothing_of_a_longer_one(path: Path) -> None:
    first = Process(path, *[FULL] * 50, BARE)
    first.ask()
    first.jobs = []
    assert first.ask(after=60) == {}
    assert Process(path, BARE).ask(after=61) == {}


# damage


MOMENT = START.isoformat()
STORED: dict[str, Any] = {
    "format": 2,
    "stored_at": MOMENT,
    "taken_at": MOMENT,
    "complete": True,
    "jobs": [],
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe\x00",
        json.dumps(STORED | {"format": 1}).encode(),
        json.dumps(STORED | {"format": 3}).encode(),
        json.dumps(STORED | {"format": "2"}).encode(),
        json.dumps({"taken_at": MOMENT, "jobs": []}).encode(),
        json.dumps(STORED | {"stored_at": "yesterday"}).encode(),
        json.dumps({name: STORED[name] for name in STORED if name != "complete"}).encode(),
        json.dumps({"format": 2, "failure": "down"}).encode(),
        json.dumps(STORED | {"taken_at": "yesterday"}).encode(),
        json.dumps(STORED | {"taken_at": None}).encode(),
        json.dumps(STORED | {"jobs": None}).encode(),
        json.dumps(STORED | {"jobs": ["text"]}).encode(),
        json.dumps(STORED | {"jobs": [{}]}).encode(),
        json.dumps(STORED)[:-3].encode(),
    ],
)
def test_a_damaged_or_newer_file_is_written_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    first, second = Process(path, BARE), Process(path)
    assert first.ask() == {"2": BARE}
    assert second.ask() == {"2": BARE}
    assert (first.queries, second.queries) == (1, 0)


@pytest.mark.parametrize("change", [{"state": "BANANA"}, {"another": 1}, {"ended": "now"}])
def test_a_status_of_another_version_is_not_used(path: Path, change: dict[str, object]) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask()
    stored = json.loads(path.read_text())
    stored["jobs"][0] |= change
    path.write_text(json.dumps(stored))
    assert second.ask() == {"1_2": FULL}


def test_an_undamaged_file_is_used(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(STORED))
    process = Process(path, BARE)
    assert (process.ask(), process.queries) == ({}, 0)


# age


def test_age_counts_from_the_end_of_a_slow_query(path: Path) -> None:
    first, second = Process(path, BARE), Process(path)
    first.takes = timedelta(seconds=40)
    first.ask()
    second.now = START + timedelta(seconds=40 + 26)
    answer = second.shared.ask()
    assert (answer.taken_at, second.queries) == (START, 0)
    assert second.ask(after=40 + 27) == {}
    assert second.queries == 1


# failures


def test_a_failure_is_shared_like_an_answer(path: Path) -> None:
    """A scheduler that hangs is asked by one process, not by one after another."""
    first, second = Process(path), Process(path, FULL)
    first.error = CommandTimeout("no answer within 60 s from: squeue")
    with pytest.raises(CommandTimeout):
        first.ask()
    with pytest.raises(SchedulerUnavailable, match="no answer within 60 s") as caught:
        second.ask(after=26)
    assert caught.value.retryable
    assert second.queries == 0
    assert second.ask(after=27) == {"1_2": FULL}


def test_an_error_that_nobody_thought_of_is_nobodys_answer(path: Path) -> None:
    first, second = Process(path), Process(path, BARE)
    first.error = RuntimeError("odd")
    with pytest.raises(RuntimeError):
        first.ask()
    assert second.ask() == {"2": BARE}


def test_the_readable_part_of_an_odd_answer_is_shared(path: Path) -> None:
    first, second = Process(path), Process(path)
    first.error = UnexpectedOutput("job 1 is in state 'BANANA'", readable={BARE.job_id: BARE})
    for process in (first, second):
        answer = process.shared.ask()
        assert (answer.jobs, answer.complete) == ({BARE.job_id: BARE}, False)
    assert second.queries == 0


def test_a_whole_answer_is_complete(path: Path) -> None:
    assert [Process(path, BARE).shared.ask().complete for _ in range(2)] == [True, True]


@pytest.mark.parametrize("room", [0, 50])
def test_a_full_disk_loses_no_answer(path: Path, room: int) -> None:
    process = Process(path, FULL, BARE)
    with no_file_longer_than(room):
        assert process.ask() == {"1_2": FULL, "2": BARE}
    assert process.ask(after=1) == {"1_2": FULL, "2": BARE}
    assert process.queries == 2
