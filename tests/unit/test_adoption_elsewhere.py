"""Taking over what lies on a cluster elsewhere, where every question is a command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.adoption import index_older_runs, orphans
from hpc_bridge.tracking.claims import Claims, claims_on
from tests.unit.counted_files import CountedFiles
from tests.unit.orphaned_runs import HOUR, a_run

MANY = 50
FEW = 10


@pytest.fixture
def files(shared: Path) -> Iterator[CountedFiles]:
    files = CountedFiles()
    claims_on(shared, files).living()  # this process is known there already
    yield files
    claims_on(shared, files).end()


@pytest.fixture
def runs(shared: Path) -> list[RunDirectory]:
    """Live ones, the oldest first."""
    return [a_run(shared, age=HOUR + MANY - n, job_id=str(n)) for n in range(MANY)]


def found(shared: Path, files: CountedFiles, wanted: bool = True) -> list[Path]:
    return [orphan.run.path for orphan in orphans(shared, files, lambda *_: wanted)]


def test_what_nobody_looks_after_is_adopted_from_elsewhere(
    shared: Path, files: CountedFiles, claims: Claims, runs: list[RunDirectory]
) -> None:
    assert found(shared, files) == [run.path for run in runs]
    assert not any(claims.take(run) for run in runs)
    assert runs[0].read_submission()["job_id"] == "0"


def test_what_is_anothers_pool_is_two_commands_however_many_there_are(
    shared: Path, files: CountedFiles, runs: list[RunDirectory]
) -> None:
    before = files.commands
    assert found(shared, files, wanted=False) == []
    assert files.commands - before == 2


def test_what_others_look_after_is_few_commands_however_many_there_are(
    shared: Path, files: CountedFiles, claims: Claims, runs: list[RunDirectory]
) -> None:
    for run in runs[1:]:
        assert claims.take(run)
    assert found(shared, files) == [runs[0].path]
    claims_on(shared, files).release(RunDirectory(runs[0].path, files))
    claims.take(runs[0])
    before = files.commands
    assert found(shared, files) == []
    assert files.commands - before <= FEW


def test_older_runs_are_looked_through_by_few_commands(
    shared: Path, files: CountedFiles, runs: list[RunDirectory]
) -> None:
    older = a_run(shared, format=1)
    older.close()
    before = files.commands
    assert index_older_runs(shared, files) == 1
    assert older.live_marker.exists()
    assert files.commands - before <= FEW


def test_one_that_cannot_be_read_hides_no_other(
    shared: Path,
    files: CountedFiles,
    runs: list[RunDirectory],
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = runs[7].path / "submission.json"
    odd.unlink()
    odd.mkdir()
    assert found(shared, files) == [run.path for run in runs if run != runs[7]]
    assert f"{runs[7].path} cannot be adopted now" in caplog.text


def test_one_that_is_removed_meanwhile_hides_no_other(
    shared: Path, files: CountedFiles, runs: list[RunDirectory]
) -> None:
    def wanted(name: str, _: object) -> bool:
        if name == runs[3].submission_id:
            files.remove_trees(runs[3].path)
        return True

    adopted = [orphan.run.path for orphan in orphans(shared, files, wanted)]
    assert adopted == [run.path for run in runs if run != runs[3]]


def test_a_run_that_an_earlier_job_still_leads_to_is_left(
    shared: Path, files: CountedFiles
) -> None:
    flow_runs = {"0": str(uuid4())}
    earlier = a_run(shared, age=2 * HOUR, flow_runs=flow_runs)
    later = a_run(shared, flow_runs=flow_runs, continues=earlier.submission_id)
    assert found(shared, files) == [earlier.path]
    earlier.settle(0)
    assert found(shared, files) == [later.path]
