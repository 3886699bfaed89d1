"""Submission ids: names that every scheduler takes, sorted by time."""

from __future__ import annotations

import string
from datetime import UTC, datetime

import pytest

from hpc_bridge.journal import is_submission_id, new_submission_id, submission_time


def test_an_id_is_a_job_name_for_every_scheduler() -> None:
    for _ in range(200):
        name = new_submission_id()
        assert len(name) == 15
        assert name.isalnum()
        assert name.islower()
        assert name[0] in string.ascii_lowercase
        assert is_submission_id(name)


def test_ids_sort_by_time() -> None:
    moments = [0, 1, 31, 32, 1_000_000_000, 1_800_000_000, 1_800_000_001, 2**34, 2**35 - 1]
    names = [new_submission_id(moment) for moment in moments]
    assert names == sorted(names)


@pytest.mark.parametrize("moment", [0, 1, 1_000_000_000, 1_795_240_800, 2**35 - 1])
def test_an_id_tells_when_it_was_made(moment: int) -> None:
    assert submission_time(new_submission_id(moment + 0.9)) == datetime.fromtimestamp(moment, UTC)


def test_ids_of_one_second_differ() -> None:
    assert len({new_submission_id(1_800_000_000) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "name", ["", "train", "hb", "hbabc", "HBAAAAAAAAAAAAA", "hbaaaaaaaaaaaaa1", "hbaaaaaaaaaaaa1"]
)
def test_other_names_are_not_taken_for_ids(name: str) -> None:
    assert not is_submission_id(name)
