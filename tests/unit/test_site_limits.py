"""What a site forbids or does not have is told with the nearest thing that would work."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.sites.limits import check_request, duration, found_problems, own_groups
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site

CPU = {
    "name": "cpu",
    "default": True,
    "walltime": "1d",
    "nodes": 10,
    "nodes_per_job": 4,
    "cpus_per_node": 8,
    "memory_per_node": "16G",
}
LONG = {"name": "long", "walltime": "7d", "nodes": 2, "cpus_per_node": 8, "memory_per_node": "16G"}
GPU = {
    "name": "gpu",
    "walltime": "3d",
    "nodes": 2,
    "cpus_per_node": 32,
    "memory_per_node": "64G",
    "gpus_per_node": {"a100": 4},
}
CLOSED = {"name": "closed", "accounts": ["chem"], "qos": ["high"], "groups": ["owners"]}


def profile(**parts: Any) -> SiteProfile:
    return SiteProfile.model_validate(
        {
            "name": "alpha",
            "scheduler": {"type": "slurm"},
            "partitions": [CPU, LONG, GPU, CLOSED],
            **parts,
        }
    )


def problems(_profile: SiteProfile | None = None, **asked: Any) -> list[str]:
    return found_problems(_profile or profile(), asked, groups={"users"})


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        # names
        (
            {"partition": "gpuu"},
            "there is no partition 'gpuu'; did you mean 'gpu'? (there: cpu, long, gpu, closed)",
        ),
        ({"partition": "x"}, "there is no partition 'x' (there: cpu, long, gpu, closed)"),
        # walltime
        (
            {"walltime": "5d"},
            "partition 'cpu' allows 1 day; you asked for 5 days: use walltime='1d', or use"
            " partition='long'",
        ),
        (
            {"walltime": "9d", "partition": "long"},
            "partition 'long' allows 7 days; you asked for 9 days: use walltime='7d'",
        ),
        # nodes
        (
            {"nodes": 5},
            "partition 'cpu' allows 1 day and 4 nodes; you asked for 5: use nodes=4",
        ),
        (
            {"nodes": 3, "partition": "gpu", "gpus": 1},
            "partition 'gpu' allows 3 days and 2 nodes; you asked for 3: use nodes=2",
        ),
        (
            {"tasks": 8, "tasks_per_node": 1, "partition": "long"},
            "partition 'long' allows 7 days and 2 nodes; you asked for 8: use nodes=2",
        ),
        # CPUs
        (
            {"cpus_per_task": 9},
            "partition 'cpu' allows 1 day and 8 CPUs per node; you asked for 9 for one task: use"
            " cpus_per_task=8, or use partition='gpu'",
        ),
        (
            {"tasks": 8, "cpus_per_task": 4, "nodes": 1, "gpus": 1, "partition": "cpu"},
            "partition 'cpu' allows 1 day and 8 CPUs per node; you asked for 8 tasks of 4 CPUs on"
            " 1 node: use nodes=4, or use partition='gpu'",
        ),
        (
            {"tasks_per_node": 40, "partition": "gpu", "gpus": 1},
            "partition 'gpu' allows 3 days and 32 CPUs per node; you asked for 40 tasks on each"
            " node: use tasks_per_node=32",
        ),
        (
            {"tasks": 80, "partition": "gpu", "gpus": 1},
            "partition 'gpu' allows 3 days and 32 CPUs on each of 2 nodes; you asked for 80 tasks:"
            " use tasks=64",
        ),
        # memory
        (
            {"memory": "20G", "gpus": 1, "partition": "cpu"},
            "partition 'cpu' allows 1 day and 16G of memory per node; you asked for 20G: use"
            " memory='16G', or use partition='gpu'",
        ),
        (
            {"memory_per_cpu": "4G", "cpus_per_task": 20, "gpus": 1, "partition": "gpu"},
            "partition 'gpu' allows 3 days and 64G of memory per node; you asked for 80G on a node"
            " (20 CPUs with 4G each): use memory_per_cpu='3276M'",
        ),
        # GPUs
        (
            {"gpus": 1},
            "partition 'cpu' has no GPUs; you asked for 1 GPU: use partition='gpu'",
        ),
        (
            {"gpus": "v100:2"},
            "partition 'cpu' has no GPUs; you asked for 2 v100 GPUs: no other partition takes it",
        ),
        (
            {"partition": "gpu", "gpus_per_node": "v100:2"},
            "partition 'gpu' has no GPUs of type 'v100' (there: a100); you asked for 2 v100 GPUs:"
            " use gpus_per_node='a100:2'",
        ),
        (
            {"partition": "gpu", "gpus": "v100:20"},
            "partition 'gpu' has no GPUs of type 'v100' (there: a100); you asked for 20 v100 GPUs:"
            " use gpus='a100:8'",
        ),
        (
            {"partition": "gpu", "gpus": 8, "nodes": 1},
            "partition 'gpu' allows 3 days and 4 GPUs per node; you asked for 8 GPUs on 1 node:"
            " use nodes=2",
        ),
        (
            {"partition": "gpu", "gpus_per_node": "a100:5"},
            "partition 'gpu' allows 3 days and 4 a100 GPUs per node; you asked for 5 a100 GPUs per"
            " node: use gpus_per_node='a100:4'",
        ),
        (
            {"partition": "gpu", "gpus": "a100:9"},
            "partition 'gpu' allows 3 days and 4 a100 GPUs per node on 2 nodes; you asked for 9"
            " a100 GPUs: use gpus='a100:8'",
        ),
        # who may
        (
            {"partition": "closed", "account": "bio", "gpus": 1},
            "partition 'closed' is for accounts chem; you asked with 'bio': use partition='gpu'",
        ),
        (
            {"partition": "closed", "qos": "low"},
            "partition 'closed' is for QOS high; you asked with 'low': use partition='cpu' or"
            " 'long' or 'gpu'",
        ),
        (
            {"partition": "closed"},
            "partition 'closed' is for members of owners; you are in none of them: use"
            " partition='cpu' or 'long' or 'gpu'",
        ),
        ({"scheduler": "local"}, "its scheduler is 'slurm', not 'local': leave scheduler out"),
    ],
)
def test_what_would_not_be_taken_is_told_with_what_would(
    asked: dict[str, Any], problem: str
) -> None:
    assert problem in problems(**asked)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"walltime": "1d", "nodes": 4, "cpus_per_task": 8, "memory": "16G"},
        {"partition": "gpu", "gpus": 8},
        {"partition": "gpu", "gpus": 8, "nodes": 2, "tasks_per_node": 32},
        {"partition": "gpu", "gpus_per_node": "a100:4", "walltime": "3-00:00:00"},
        {"tasks": 32},
        {"tasks": 4, "tasks_per_node": 8, "cpus_per_task": 2},
        # the first that can runs it
        {"partition": "cpu,gpu", "gpus": 1},
        # known when the server has been asked
        {"partition": "{{ prefect.variables.where }}", "walltime": "9d", "account": None},
    ],
)
def test_what_fits_is_taken(asked: dict[str, Any]) -> None:
    assert problems(**asked) == []


def test_a_limit_that_is_not_known_judges_nothing() -> None:
    bare = profile(partitions=[{"name": "cpu", "default": True, "gpus_per_node": {"a100": 1}}])
    asked = {"nodes": 999, "memory": "9T", "cpus_per_task": 512, "walltime": "99d", "gpus": 99}
    assert problems(bare, **asked) == []
    assert problems(profile(partitions=[]), partition="any", **asked) == []


def test_each_problem_is_told_and_no_cpus_for_nodes_that_are_too_many() -> None:
    assert [text.partition(";")[2] for text in problems(walltime="9d", nodes=50, gpus=1)] == [
        " you asked for 9 days: use walltime='1d'",
        " you asked for 50: use nodes=4",
        " you asked for 1 GPU: use partition='gpu'",
    ]


def test_what_is_asked_for_later_may_change_the_partition() -> None:
    assert found_problems(profile(), {"walltime": "5d"}, whole=False) == []
    assert found_problems(profile(), {"walltime": "5d", "partition": "cpu"}, whole=False) != []


def test_groups_that_are_not_known_judge_nothing() -> None:
    assert found_problems(profile(), {"partition": "closed"}) == []
    assert found_problems(profile(), {"partition": "closed"}, groups={"owners"}) == []
    assert own_groups()


def test_accounts_and_qos_are_those_that_are_offered() -> None:
    offering = profile(accounts=["chem", "bio"], qos=["high"])
    assert problems(offering, account="chme", qos="low") == [
        "account 'chme' is not offered; did you mean 'chem'? (there: chem, bio)",
        "qos 'low' is not offered (there: high)",
    ]


def test_rules_bind_any_variable_and_say_the_sites_words() -> None:
    rules = {
        "tasks": {"maximum": 2, "description": "ask us for more"},
        "memory": {"minimum": "2G"},
        "constraint": {"choices": ["ib", "eth"]},
        "array_throttle": {"maximum": 5},
    }
    asked = {"tasks": 3, "memory": "1G", "constraint": "wlan", "array_throttle": 6}
    assert problems(profile(job_variables=rules), **asked) == [
        "tasks 3 is above the largest, 2 (ask us for more)",
        "memory 1G is below the smallest, 2G",
        "constraint 'wlan' is none of ib, eth",
        "array_throttle 6 is above the largest, 5",
    ]


def test_a_site_with_pbs_has_queues() -> None:
    queues = [{"name": "cpu", "walltime": "1d", "default": True}, {"name": "gpu"}]
    rules = {"queue": {"choices": ["cpu", "gpu"]}}
    pbs = SiteProfile.model_validate(
        {"name": "p", "scheduler": {"type": "pbs"}, "queues": queues, "job_variables": rules}
    )
    unknown, by_rule = problems(pbs, partition="nope")
    assert unknown.startswith("there is no queue 'nope'")
    assert by_rule.startswith("queue 'nope' is none of cpu, gpu")
    assert problems(pbs, walltime="5d") == [
        "queue 'cpu' allows 1 day; you asked for 5 days: use walltime='1d', or use queue='gpu'"
    ]
    assert "no other queue takes it" in problems(pbs, partition="cpu", gpus=1)[0]
    # PBS takes no list of queues.
    assert problems(pbs, partition="cpu,gpu")[0].startswith("there is no queue 'cpu,gpu'")


def test_all_problems_are_one_error_that_names_the_site() -> None:
    with pytest.raises(InvalidJobSpec) as caught:
        check_request(Site(profile()), {"nodes": 5, "walltime": "2d"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "site 'alpha' would not take this job:"
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (259200, "3 days"),
        (86400, "1 day"),
        (129600, "36 hours"),
        (5400, "90 minutes"),
        (61, "00:01:01"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: int, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("there", "instead"),
    [({"gpu": 2}, "use gpus=1"), ({"a100": 2, "l40s": 2}, "no other partition takes it")],
)
def test_another_type_of_gpu_is_named_when_it_is_the_only_one(
    there: dict[str, int], instead: str
) -> None:
    site = profile(partitions=[{"name": "gpu", "gpus_per_node": there}])
    [problem] = problems(site, partition="gpu", gpus="v100:1")
    assert problem.endswith(f": {instead}")
