"""The command lines that Slurm is asked with."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from hpc_bridge.jobs import JobId
from tests.unit.slurm_answers import ASKED, SINCE, SLURM


def test_the_records_of_elements_are_asked_for_by_their_arrays_id() -> None:
    """``sacct --jobs=4_2`` does not find the record that elements share that did not start."""
    jobs = [JobId("4_2"), JobId("5"), JobId("4_3")]
    assert "--jobs=4,5" in SLURM.history_command(jobs, "me", SINCE)


def test_a_search_by_name_also_finds_jobs_that_were_never_eligible_to_run() -> None:
    """Without ids sacct looks for jobs that were, between start and end time."""
    command = SLURM.find_history_command("hbabc", "me", SINCE)
    assert {"--name=hbabc", "--user=me", "--duplicates", "--allocations"} <= set(command)
    assert "--endtime=2037-01-01T00:00:00" in command
    assert any(word.startswith("--state=") and "CA" in word for word in command)


@pytest.mark.parametrize("command", ASKED.values(), ids=ASKED)
def test_what_shapes_an_output_is_pinned_by_the_command_itself(command: list[str]) -> None:
    assert command[0] == "env"
    pinned = {"TZ=UTC", "LC_ALL=C.UTF-8", "SLURM_TIME_FORMAT=standard", "SLURM_BITSTR_LEN=0"}
    assert pinned | {"--noheader"} <= set(command)
    assert {f"--unset={name}_FORMAT" for name in ("SQUEUE", "SACCT", "SINFO")} <= set(command)


def test_history_is_asked_in_utc() -> None:
    local = datetime(2026, 11, 21, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    command = SLURM.history_command([JobId("1"), JobId("2_3")], "me", local)
    assert {"--starttime=2026-11-20T23:30:00", "--jobs=1,2", "--user=me"} <= set(command)


def test_the_name_of_a_job_is_said_on_the_command_line() -> None:
    """There it wins over what a template or a directive says."""
    assert SLURM.submit_command("hbabc")[-3:] == ["sbatch", "--parsable", "--job-name=hbabc"]


@pytest.mark.parametrize(
    ("directive", "jobs"),
    [
        ("#SBATCH --array=0-2%1", 3),
        ("#SBATCH --array 1,5,7-9:2", 4),
        ("#SBATCH -a 0-1", 2),
        ("#SBATCH --array-like=0-9", 1),
        ("echo --array=0-9", 1),
        ("", 1),
    ],
)
def test_a_script_says_how_many_jobs_it_makes(directive: str, jobs: int) -> None:
    assert SLURM.job_count(f"#!/bin/bash\n{directive}\ntrue\n") == jobs
