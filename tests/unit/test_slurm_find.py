"""Slurm jobs are found by their name, in the queue and in the records."""

from __future__ import annotations

from hpc_bridge.jobs import JobState
from tests.unit.slurm_answers import SLURM, answer, each_version, printed, queued, subject


@each_version
def test_a_job_is_found_by_its_name(version: str) -> None:
    (job,) = SLURM.parse_find(answer(version, "find-one"))
    assert job.name == "hb-find-me"


@each_version
def test_no_job_of_that_name_is_an_empty_list(version: str) -> None:
    assert SLURM.parse_find(answer(version, "find-none")) == []


@each_version
def test_a_job_is_found_in_the_records_by_its_name(version: str) -> None:
    jobs = SLURM.parse_history(answer(version, "find-history-one"))
    assert (subject(jobs).name, subject(jobs).state) == ("hb-find-me", JobState.RUNNING)
    assert SLURM.parse_history(answer(version, "find-history-none")) == {}


def test_of_several_jobs_of_that_name_the_newest_is_first() -> None:
    lines = [queued("9"), queued("8_10"), queued("10"), queued("8_2"), queued("8_[11-12]")]
    found = SLURM.parse_find(printed(*lines))
    assert [job.job_id.value for job in found] == ["10", "9", "8_2", "8_10", "8_11", "8_12"]


@each_version
def test_all_elements_of_an_array_are_found(version: str) -> None:
    assert len(SLURM.parse_find(answer(version, "find-array"))) == 6
