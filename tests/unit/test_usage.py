"""What a job used, as people see it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hpc_bridge.jobs import JobState, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.tracking.explanation import used
from hpc_bridge.tracking.usage import NOT_RECORDED, usage_markdown
from tests.unit.ended_jobs import job, spec

START = datetime(2026, 11, 21, 5, tzinfo=UTC)
WHOLE = JobUsage(
    submitted=START - timedelta(minutes=3),
    started=START,
    ended=START + timedelta(hours=1),
    nodes=2,
    cpus=8,
    memory=16384,
    gpus=1,
    cpu_seconds=7200.0,
    max_memory=512,
    gpu_utilisation=10.0,
    max_gpu_memory=2048,
    energy_joules=3_600_000,
)


def row(markdown: str, title: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_what_follows_from_the_numbers() -> None:
    assert (WHOLE.queue_seconds, WHOLE.wall_seconds) == (180.0, 3600.0)
    assert (WHOLE.cpu_efficiency, WHOLE.memory_efficiency) == (25.0, 3.125)
    assert (WHOLE.node_hours, WHOLE.cpu_hours, WHOLE.gpu_hours) == (2.0, 8.0, 1.0)


@pytest.mark.parametrize(
    "usage",
    [
        JobUsage(),
        JobUsage(started=START, cpus=4, memory=100, cpu_seconds=1.0),
        JobUsage(started=START, ended=START, cpus=4, cpu_seconds=1.0, max_memory=3),
    ],
)
def test_what_is_not_known_stays_unknown(usage: JobUsage) -> None:
    assert (usage.cpu_efficiency, usage.memory_efficiency) == (None, None)


def test_every_number_has_its_row() -> None:
    text = usage_markdown(WHOLE, job(nodes="c[1-2]"), spec(walltime="2h"))
    assert text.startswith("# Job 42: COMPLETED\n")
    assert row(text, "Walltime")[:2] == ["02:00:00", "01:00:00"]
    assert row(text, "Walltime")[2] == f"`{'█' * 10}{'░' * 10}` 50 %"
    assert row(text, "CPUs")[:2] == ["8", "02:00:00 of CPU time"]
    assert row(text, "Memory")[:2] == ["16G", "512M"]
    assert row(text, "GPUs")[:2] == ["1", "10 % busy, 2G of memory"]
    for line in (
        "* In the queue: 00:03:00",
        "* Run: 01:00:00 on c[1-2]",
        "* Node hours: 2.00",
        "* CPU hours: 8.00",
        "* GPU hours: 1.00",
        "* Energy: 1 kWh",
    ):
        assert line in text.splitlines()


def test_what_the_site_does_not_record_is_not_called_nothing() -> None:
    usage = JobUsage(submitted=START, started=START, ended=START + timedelta(hours=1))
    text = usage_markdown(usage, job(), spec(gpus=1))
    assert row(text, "CPUs") == [NOT_RECORDED, NOT_RECORDED, ""]
    assert row(text, "Memory") == ["the site's default", NOT_RECORDED, ""]
    assert row(text, "GPUs") == ["1", NOT_RECORDED, ""]
    assert f"* Node hours: {NOT_RECORDED}" in text
    assert " 0" not in text.replace("01:00:00", "").replace("00:00:00", "")


def test_without_records_the_times_of_the_queue_and_the_request_are_shown() -> None:
    status = job(submitted=START, started=START, ended=START + timedelta(minutes=5))
    text = usage_markdown(None, status, spec(memory="2G", cpus_per_task=4))
    assert row(text, "Walltime")[1] == "00:05:00"
    assert row(text, "CPUs")[0] == "4 per task"
    assert row(text, "Memory")[0] == "2G per node"
    assert "GPUs" not in text


def test_a_job_that_never_ran_says_so() -> None:
    usage = JobUsage(submitted=START, ended=START + timedelta(hours=1), cpus=1)
    text = usage_markdown(usage, job(JobState.CANCELLED), None)
    assert row(text, "Walltime")[1] == "did not start"


def test_gpus_are_shown_to_those_who_have_some() -> None:
    usage = JobUsage(started=START, ended=START + timedelta(hours=1), gpus=0)
    assert "GPU" not in usage_markdown(usage, job(), spec())
    assert "GPU" not in usage_markdown(JobUsage(), job(), spec())


def test_a_bar_is_never_longer_than_whole() -> None:
    usage = JobUsage(memory=100, max_memory=130)
    assert row(usage_markdown(usage, job(), None), "Memory")[2] == f"`{'█' * 20}` 130 %"


def advice(usage: JobUsage, status: JobStatus) -> list[str]:
    lines = usage_markdown(usage, status, None).splitlines()
    return [line.strip("*") for line in lines if line.startswith("**")]


def test_who_asked_for_much_and_used_little_is_told() -> None:
    usage = replace(WHOLE, cpu_seconds=3600.0, gpu_utilisation=2.0)
    memory, cpus, gpus = advice(usage, job())
    assert memory.startswith("It used 3 % of 16G of memory")
    assert cpus.startswith("It kept 12 % of 8 CPUs busy")
    assert gpus == "Its GPUs were busy for 2 % of the time."
    assert advice(usage, job(JobState.FAILED)) == []  # it did not get to what it needs them for


def test_short_jobs_and_full_ones_get_no_advice() -> None:
    short = JobUsage(START, START, START + timedelta(seconds=5), cpus=8, memory=999, max_memory=1)
    full = JobUsage(START, START, START + timedelta(hours=1), 1, 1, 100, 0, 3000.0, 90)
    assert advice(short, job()) == advice(full, job()) == []


def test_one_sentence_says_what_was_used() -> None:
    assert used(WHOLE) == (
        "It used: walltime 01:00:00, memory 512M (3 % of what it asked for), 25 % of its CPU time,"
        " 10 % of its GPUs."
    )
    assert used(JobUsage()) == "The site has no record of what it used."
    assert used(None).endswith("the scheduler's records could not be had.")
