"""Which submissions are taken over: those that nobody looks after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hpc_bridge.storage.cluster_files import HERE
from hpc_bridge.tracking.adoption import orphans
from hpc_bridge.tracking.claims import Claims, claims_on
from tests.unit.orphaned_runs import HOUR, a_run, found


@pytest.fixture
def owner(shared: Path) -> Iterator[Claims]:
    """Another process, which lives."""
    owner = Claims(shared)
    yield owner
    owner.end()


def test_live_submissions_that_nobody_looks_after_are_claimed(shared: Path) -> None:
    runs = sorted((a_run(shared) for _ in range(3)), key=lambda run: run.submission_id)
    assert found(shared) == runs
    assert all(claims_on(shared).held([run]) for run in runs)


def test_a_submission_that_is_over_is_left(shared: Path) -> None:
    over, partly = a_run(shared), a_run(shared, elements=2)
    over.settle(0)
    partly.settle(1)
    assert found(shared) == [partly]


def test_what_a_living_process_looks_after_is_left_until_it_ends(
    shared: Path, owner: Claims
) -> None:
    run = a_run(shared)
    owner.take(run)
    assert found(shared) == []
    owner.end()
    assert found(shared) == [run]


def test_what_is_not_wanted_is_not_claimed(shared: Path, owner: Claims) -> None:
    run = a_run(shared)
    asked: list[tuple[str, dict[str, Any]]] = []

    def wanted(name: str, submission: dict[str, Any]) -> bool:
        asked.append((name, submission))
        return False

    assert list(orphans(shared, HERE, wanted)) == []
    assert asked == [(run.submission_id, run.read_submission())]
    assert owner.take(run)


def test_a_newer_format_is_left_alone_and_said(
    shared: Path, owner: Claims, caplog: pytest.LogCaptureFixture
) -> None:
    run = a_run(shared, format=3)
    assert found(shared) == []
    assert f"{run.path} was written by a newer version" in caplog.text
    assert owner.take(run)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'{"format": 2}'])
def test_a_damaged_journal_hides_no_other(
    shared: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    damaged, run = a_run(shared, age=2 * HOUR), a_run(shared)
    damaged.write("submission.json", content)
    assert found(shared) == [run]
    assert str(damaged.path) in caplog.text


def test_a_journal_that_cannot_be_read_hides_no_other(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd, run = a_run(shared, age=2 * HOUR, journal=False), a_run(shared)
    (odd.path / "submission.json").mkdir()
    assert found(shared) == [run]
    assert f"{odd.path} cannot be adopted now: [Errno 21] Is a directory" in caplog.text


def test_a_submission_that_is_just_being_written_is_left(shared: Path) -> None:
    run = a_run(shared, age=60, journal=False)
    assert found(shared) == []
    run.write_submission({"flow_runs": {"0": str(uuid4())}})
    assert found(shared) == [run]


def test_a_submission_that_was_never_written_is_forgotten_after_an_hour(shared: Path) -> None:
    run = a_run(shared, age=HOUR + 10, journal=False)
    assert found(shared) == []
    assert not (shared / "live" / run.submission_id).exists()


def test_strange_files_in_the_index_are_no_submissions(shared: Path) -> None:
    for name in (".nfs0001", "notes.txt", "hb"):
        (shared / "live" / name).write_text("")
    assert found(shared) == []


def test_without_an_index_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_a_resubmission_is_left_to_who_looks_after_the_job_before(
    shared: Path, owner: Claims
) -> None:
    """Whose end is not told yet: following that one leads to it."""
    before = a_run(shared, elements=2)
    flow_run = before.read_submission()["flow_runs"]["1"]
    after = a_run(shared, age=60, continues=before.submission_id, flow_runs={"0": flow_run})
    assert found(shared) == [before]
    before.settle(1, continued=after.submission_id)
    claims_on(shared).release(before)
    assert found(shared) == [before, after]


def test_a_resubmission_whose_job_before_was_cleared_away_is_taken_over(shared: Path) -> None:
    after = a_run(shared, continues="hbaaaaaaaaaaaaa")
    assert found(shared) == [after]
