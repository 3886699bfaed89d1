"""What jobs used, from the records of three versions."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from hpc_bridge.jobs import JobId
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.slurm_usage import FIELDS
from tests.unit.slurm_answers import CAPTURES, SLURM, each_version

IDS = {
    "srun": "30",
    "short": "31",
    "gpu": "32",
    "two nodes": "33",
    "array": "34_1",
    "requeued": "35",
    "out of memory": "36",
    "held": "37",
    "killed": "38",
    "cancelled while held": "39",
}


def captured(version: str) -> dict[str, JobUsage]:
    stored = json.loads((CAPTURES / version / "usage-several.json").read_text())
    found = SLURM.parse_usage(Answer(tuple(stored["command"]), 0, stored["stdout"], ""))
    return {name: found[JobId(job)] for name, job in IDS.items()}


def row(job: str = "7", **columns: str) -> str:
    given = {
        "State": "COMPLETED",
        "Submit": "2026-11-21T05:00:00",
        "Start": "2026-11-21T05:00:10",
        "End": "2026-11-21T05:01:50",
        "AllocTRES": "billing=2,cpu=2,mem=1.50G,node=1",
    }
    values = dict.fromkeys(FIELDS, "") | given | {"JobID": job} | columns
    return "\x1f".join(values[name] for name in FIELDS) + "\n"


def step(job: str = "7.batch", **columns: str) -> str:
    return row(job, **({"NTasks": "1"} | columns))


def used(*rows: str, job: str = "7") -> JobUsage:
    return SLURM.parse_usage(Answer(("sacct",), 0, "".join(rows), ""))[JobId(job)]


# real records


@each_version
def test_what_a_job_was_given_is_read(version: str) -> None:
    jobs = captured(version)
    given = {name: (job.nodes, job.cpus, job.memory, job.gpus) for name, job in jobs.items()}
    assert given == {
        "srun": (1, 2, 500, 0),
        "short": (1, 1, 100, 0),
        "gpu": (1, 1, 300, 1),
        "two nodes": (2, 2, 300, 0),
        "array": (1, 1, 200, 0),
        "requeued": (1, 1, 200, 0),
        "out of memory": (1, 1, 60, 0),
        "held": (1, 1, 100, 0),
        "killed": (1, 1, 200, 0),
        "cancelled while held": (1, 1, 100, 0),
    }


@each_version
def test_the_memory_of_a_step_is_that_of_all_its_tasks(version: str) -> None:
    jobs = captured(version)
    for name, each, tasks in (("srun", 100, 2), ("two nodes", 60, 2), ("gpu", 50, 1)):
        memory = jobs[name].max_memory
        assert memory is not None
        assert each * tasks < memory < each * tasks + 30


@each_version
def test_cpu_time_is_that_of_all_steps(version: str) -> None:
    jobs = captured(version)
    for name in ("srun", "gpu", "two nodes", "array", "requeued"):
        seconds, percent = jobs[name].cpu_seconds, jobs[name].cpu_efficiency
        assert seconds is not None
        assert percent is not None
        assert 0.1 < seconds < 20
        assert 1 < percent <= 100


@each_version
def test_a_requeued_job_used_what_its_newest_attempt_did(version: str) -> None:
    job = captured(version)["requeued"]
    assert job.max_memory is not None
    assert job.max_memory < 60  # the first took 80
    assert job.wall_seconds is not None
    assert job.wall_seconds < 10


@each_version
def test_what_was_not_sampled_is_not_known(version: str) -> None:
    jobs = captured(version)
    out = jobs["out of memory"]
    assert (out.max_memory, out.cpu_seconds) == (None, None)
    for name in ("held", "cancelled while held"):
        job = jobs[name]
        assert (job.started, job.wall_seconds, job.cpu_seconds, job.max_memory) == (None,) * 4
        assert (job.node_hours, job.cpu_efficiency, job.memory_efficiency) == (None,) * 3
        assert job.submitted is not None
    assert {job.gpu_utilisation for job in jobs.values()} == {None}
    assert {job.energy_joules for job in jobs.values()} == {None}


@each_version
def test_jobs_without_a_record_are_left_out(version: str) -> None:
    stored = json.loads((CAPTURES / version / "usage-none.json").read_text())
    assert SLURM.parse_usage(Answer((), stored["exit_code"], stored["stdout"], "")) == {}


def test_a_site_without_records_has_none() -> None:
    words = "Slurm accounting storage is disabled\n"
    assert SLURM.parse_usage(Answer(("sacct",), 1, "", words)) == {}


# what the test site cannot do


def test_times_and_hours() -> None:
    job = used(row())
    assert job.started == datetime(2026, 11, 21, 5, 0, 10, tzinfo=UTC)
    assert (job.queue_seconds, job.wall_seconds) == (10.0, 100.0)
    assert job.cpu_hours == pytest.approx(200 / 3600)
    assert (job.memory, job.gpu_hours) == (1536, 0.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:01.500", 1.5), ("01:00:00", 3600.0), ("2-01:00:00", 176400.0), ("00:00:00", None)],
)
def test_cpu_time_is_read(text: str, seconds: float | None) -> None:
    assert used(row(TotalCPU=text)).cpu_seconds == seconds


def test_of_a_job_that_was_killed_the_samples_count_where_they_know_more() -> None:
    """TotalCPU lacks processes that nobody waited for."""
    job = row(State="TIMEOUT", TotalCPU="00:00.001")
    assert used(job, step(TRESUsageInTot="cpu=00:01:30,mem=10M")).cpu_seconds == 90.0
    assert used(job, step(TRESUsageInTot="cpu=00:00:00,mem=10M")).cpu_seconds is None
    job = row(State="CANCELLED by 1500", TotalCPU="00:30.000")
    assert used(job, step(TRESUsageInTot="cpu=00:00:20")).cpu_seconds == 30.0


@pytest.mark.parametrize(
    ("rss", "mebibytes"),
    [("92184K", 91), ("1.5G", 1536), ("104857600", 100), ("0", None), ("", None)],
)
def test_the_largest_resident_set_is_read(rss: str, mebibytes: int | None) -> None:
    assert used(row(), step(MaxRSS=rss)).max_memory == mebibytes


def test_the_largest_step_counts() -> None:
    steps = [step(MaxRSS="10M"), step("7.0", MaxRSS="300M"), step("7.1", MaxRSS="20M")]
    assert used(row(), *steps).max_memory == 300


def test_gpu_use_is_shown_where_the_site_records_it() -> None:
    job = used(
        row(AllocTRES="cpu=1,gres/gpu:a100=2,gres/gpu=2,mem=1G,node=1"),
        step(
            TRESUsageInAve="cpu=00:01:00,gres/gpumem=1024M,gres/gpuutil=87",
            TRESUsageInMax="cpu=00:01:00,gres/gpumem=2048M,gres/gpuutil=99",
        ),
    )
    assert (job.gpus, job.gpu_utilisation, job.max_gpu_memory) == (2, 87.0, 2048)


def test_gpus_are_counted_by_type_where_there_is_no_sum() -> None:
    assert used(row(AllocTRES="cpu=1,gres/gpu:a=1,gres/gpu:b=2")).gpus == 3


@pytest.mark.parametrize(
    ("energy", "joules"), [("36000", 36000), ("0", None), ("", None), (str(2**64 - 2), None)]
)
def test_energy_is_shown_where_the_site_records_it(energy: str, joules: int | None) -> None:
    assert used(row(ConsumedEnergyRaw=energy)).energy_joules == joules
    assert used(row(), step(ConsumedEnergyRaw=energy)).energy_joules == joules


def test_the_newest_attempt_counts_in_whatever_order_they_come() -> None:
    old = row(Submit="2026-11-21T04:00:00"), step(MaxRSS="900M")
    new = row(), step(MaxRSS="30M")
    assert used(*old, *new).max_memory == used(*new, *old).max_memory == 30


def test_the_steps_of_elements_are_their_own() -> None:
    rows = [
        row("4_1"),
        step("4_1.batch", MaxRSS="10M"),
        row("4_10"),
        step("4_10.batch", MaxRSS="20M"),
        row("4_[11-12%3]", AllocTRES="", ReqTRES="cpu=3"),
    ]
    assert used(*rows, job="4_1").max_memory == 10
    assert used(*rows, job="4_10").max_memory == 20
    assert (used(*rows, job="4_12").cpus, used(*rows, job="4_12").started) == (3, None)


def test_one_command_asks_for_many_jobs() -> None:
    since = datetime(2026, 11, 21, tzinfo=UTC)
    command = SLURM.usage_command([JobId("1"), JobId("2_3")], "me", since)
    assert {"--jobs=1,2_3", "--user=me", "--duplicates"} <= set(command)
    assert "--allocations" not in command
