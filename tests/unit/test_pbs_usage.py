"""What PBS recorded of a job's use."""

from __future__ import annotations

from hpc_bridge.jobs import JobId
from tests.unit.pbs_answers import PBS, answer, records


def test_a_recorded_job() -> None:
    usage = PBS.parse_usage(answer("qstat", "mem_over.finished.qstat_xf"))[JobId("1193.pbshost")]
    assert (usage.nodes, usage.cpus, usage.memory, usage.gpus) == (1, 1, 100, 0)
    assert (usage.queue_seconds, usage.wall_seconds) == (1, 12)
    assert usage.max_memory == 315  # 321620kb, rounded up
    assert usage.cpu_seconds is None  # 0 is what was not looked at in time


def test_gpus_and_cpu_time() -> None:
    usages = PBS.parse_usage(
        records(
            {
                "job_state": "F",
                "Resource_List.ngpus": "2",
                "resources_used.cput": "01:00:05",
                "resources_used.mem": "0kb",
            }
        )
    )
    (usage,) = usages.values()
    assert (usage.gpus, usage.cpu_seconds, usage.max_memory) == (2, 3605, None)


def test_an_array_is_counted_by_its_elements() -> None:
    usages = PBS.parse_usage(answer("qstat", "array.finished.qstat_xtf_json"))
    assert {job.value for job in usages} == {f"41[{index}].pbshost" for index in range(4)}
    assert {usage.cpus for usage in usages.values()} == {2}


def test_a_job_that_runs_again_has_not_ended() -> None:
    usages = PBS.parse_usage(answer("qstat", "rerun.t7.qstat_xf"))
    assert usages[JobId("1197.pbshost")].ended is None


def test_a_job_that_never_ran_has_ended_all_the_same() -> None:
    (usage,) = PBS.parse_usage(answer("qstat", "deleted_while_queued.qstat_xf_json")).values()
    assert usage.started is None
    assert usage.ended is not None
