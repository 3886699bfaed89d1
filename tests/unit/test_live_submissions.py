"""A submission is live until every end of it has been told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpc_bridge.errors import SharedDirectoryError
from hpc_bridge.journal import RunDirectory, new_submission_id
from tests.unit.restrictions import no_file_longer_than
from tests.unit.run_directories import live


def with_elements(run: RunDirectory, *elements: int) -> RunDirectory:
    run.write_submission({"flow_runs": {str(element): "id" for element in elements}})
    return run


def test_a_submission_is_live_until_every_end_is_told(run: RunDirectory) -> None:
    with_elements(run, 0, 1, 2)
    for element in (1, 0, 2):
        assert live(run)
        assert run.settled(element) is None
        run.settle(element, job_state="COMPLETED")
        assert run.settled(element) == {"format": 2, "job_state": "COMPLETED"}
    assert not live(run)


def test_ends_that_are_told_together_leave_nothing_live(run: RunDirectory) -> None:
    with_elements(run, *range(40))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run.settle, range(40)))
    assert not live(run)


def test_an_end_may_be_told_twice(run: RunDirectory) -> None:
    with_elements(run, 0)
    run.settle(0, flow_state="Completed")
    run.settle(0, flow_state="Crashed")
    assert run.settled() == {"format": 2, "flow_state": "Crashed"}
    assert not live(run)


def test_an_end_that_cannot_be_noted_leaves_the_submission_live(run: RunDirectory) -> None:
    with_elements(run, 0)
    with no_file_longer_than(10), pytest.raises(SharedDirectoryError):
        run.settle(0)
    assert run.settled() is None
    assert live(run)


def test_what_is_closed_may_be_closed_again_and_reopened(run: RunDirectory) -> None:
    for _ in range(2):
        run.close()
        assert not live(run)
    for _ in range(2):
        run.reopen()
        assert live(run)
    assert (run.shared / "live" / run.submission_id).stat().st_mode & 0o777 == 0o600


def test_a_submission_is_live_before_its_folder_exists(shared: Path) -> None:
    """Killed in between it leaves a name that leads nowhere, and never a folder without a name."""
    (shared / "runs").rmdir()
    name = new_submission_id()
    with pytest.raises(SharedDirectoryError):
        RunDirectory.create(shared, name)
    assert (shared / "live" / name).exists()


def test_a_shared_directory_of_the_first_version_gets_an_index(shared: Path) -> None:
    (shared / "live").rmdir()
    assert live(RunDirectory.create(shared, new_submission_id()))
