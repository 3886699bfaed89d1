"""Attempts of a run directory: claims, and the exit record that counts."""

from __future__ import annotations

import pytest

from hpc_bridge.journal import RunDirectory
from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.records import ExitRecord, write_exit_record
from tests.unit.run_directories import claim

# exit records


def test_a_job_that_never_started_has_no_record(run: RunDirectory) -> None:
    assert (run.newest_attempt(), run.exit_record()) == (None, None)
    (run.path / "0").mkdir()
    assert (run.newest_attempt(), run.exit_record()) == (None, None)


def test_an_attempt_that_goes_on_has_no_record(run: RunDirectory) -> None:
    folder = claim(run, 0)
    assert (run.newest_attempt(), run.exit_record()) == (folder, None)


def test_the_newest_attempts_record_counts(run: RunDirectory) -> None:
    for attempt in (0, 9, 10, 2):
        record = ExitRecord(exit_code=attempt)
        write_exit_record(claim(run, attempt) / "exit.json", record)
    assert run.exit_record() == ExitRecord(exit_code=10)
    claim(run, 11)
    assert run.exit_record() is None


def test_an_attempt_is_the_newest_until_a_later_one_has_its_claim(run: RunDirectory) -> None:
    claim(run, 9)
    claim(run, 0, element=1)
    assert Attempt(run.path, 0, 9).is_newest()
    (run.path / "0" / ".nfs000000000a1b2c3d").write_text("")
    assert Attempt(run.path, 0, 9).is_newest()
    claim(run, 10)
    assert [Attempt(run.path, 0, number).is_newest() for number in (9, 10)] == [False, True]


def test_every_element_has_its_own_attempts(run: RunDirectory) -> None:
    write_exit_record(claim(run, 0, element=0) / "exit.json", ExitRecord(exit_code=1))
    write_exit_record(claim(run, 0, element=7) / "exit.json", ExitRecord(exit_code=2))
    assert [run.exit_record(element) for element in (0, 7)] == [
        ExitRecord(exit_code=1),
        ExitRecord(exit_code=2),
    ]
    assert run.exit_record(3) is None


@pytest.mark.parametrize("name", [".nfs000000000a1b2c3d", "notes.txt"])
def test_a_strange_file_beside_the_attempts_hides_no_record(run: RunDirectory, name: str) -> None:
    """A network file system leaves such names where an open file was removed."""
    write_exit_record(claim(run, 0) / "exit.json", ExitRecord(exit_code=1))
    (run.path / "0" / name).write_text("")
    assert run.exit_record() == ExitRecord(exit_code=1)


# who has claimed a flow run


def test_the_newest_claim_says_which_job_made_it(run: RunDirectory) -> None:
    assert run.claimant() is None
    (claim(run, 0) / "job").write_text("41\n")
    assert run.claimant() == "41"
    newest = claim(run, 1)
    assert run.claimant() is None
    (newest / "job").write_text("")
    assert run.claimant() is None
    (newest / "job").write_text("42_3")
    assert run.claimant() == "42_3"
    assert run.claimant(1) is None
