"""Partitions of Slurm: their limits, what is free in them, and what waits."""

from __future__ import annotations

import pytest

from hpc_bridge.errors import SchedulerUnavailable
from hpc_bridge.schedulers.base import Demand, Queue, QueueNode
from hpc_bridge.schedulers.slurm_fields import gpus
from tests.unit.slurm_answers import SLURM, answer, each_version, printed


def node(state: str = "idle", cpus: str = "0/8/0/8", gres: str = "(null)", used: str = "(null)"):
    """What is read of one node."""
    row = ("cpu*", "up", "1:00:00", "c1", state, cpus, gres, used)
    (queue,) = SLURM.parse_queues(printed((*row, ""))).values()
    return queue.nodes[0]


@each_version
def test_partitions_have_their_limits_and_nodes(version: str) -> None:
    queues = SLURM.parse_queues(answer(version, "queues"))
    assert list(queues) == ["cpu", "gpu", "scavenge", "scavrq"]
    cpu = queues["cpu"]
    assert (cpu.is_default, cpu.is_up, cpu.walltime_seconds) == (True, True, 86400)
    assert [(node.name, node.is_idle, node.free_cpus) for node in cpu.nodes] == [
        ("c1", True, 8),
        ("c2", False, 0),  # drained
    ]
    assert not queues["gpu"].is_default


@each_version
def test_free_cpus_and_gpus_are_those_that_a_job_could_have(version: str) -> None:
    queues = SLURM.parse_queues(answer(version, "queues-odd"))
    g1, h1, _, h3 = queues["mixedgpu"].nodes
    assert (g1.free_cpus, g1.gpus, g1.free_gpus) == (6, {"tiny": 2}, {"tiny": 1})
    assert h1.gpus == {"a100": 2, "a100_1g.5gb": 7}
    assert h1.free_gpus == {"a100": 0, "a100_1g.5gb": 0}  # down
    assert (h3.state, h3.cpus, h3.free_cpus, h3.is_idle) == ("down*", 128, 0, False)
    assert (h3.gpus, h3.free_gpus) == ({"gpu": 4}, {"gpu": 0})


@each_version
def test_partitions_that_start_nothing_say_so(version: str) -> None:
    queues = SLURM.parse_queues(answer(version, "queues-odd"))
    assert {name: queue.state for name, queue in queues.items() if not queue.is_up} == {
        "off": "down",
        "lean": "drain",
    }
    assert queues["lean"].walltime_seconds is None
    assert "hidden" not in queues
    assert "ops" not in queues  # for other groups


@each_version
def test_what_waits_and_runs_is_counted_by_partition(version: str) -> None:
    demand = SLURM.parse_demand(answer(version, "demand"))
    assert demand["gpu"] == Demand(
        waiting=5, waiting_cpus=5, waiting_gpus=10, running=1, running_cpus=2
    )
    assert demand["cpu"] == Demand(waiting=1, waiting_cpus=3, running=1, running_cpus=4)
    assert demand["scavenge"] == Demand(waiting=1, waiting_cpus=3)


@each_version
def test_a_controller_that_is_away_is_no_empty_queue(version: str) -> None:
    with pytest.raises(SchedulerUnavailable, match="Unable to contact slurm controller"):
        SLURM.parse_demand(answer(version, "demand-controller-dead"))


@pytest.mark.parametrize(
    ("given", "per_node", "count"),
    [
        ("cpu=4,gres/gpu=8,gres/gpu:a100=8", "gres/gpu:a100:4", 8),
        ("cpu=4,node=2", "gres/gpu:4", 8),  # GPUs are not tracked
        ("cpu=4,node=2", "gres:gpu:tiny:1", 2),
        ("cpu=4,node=2", "N/A", 0),
        ("", "", 0),
    ],
)
def test_gpus_of_a_waiting_job(given: str, per_node: str, count: int) -> None:
    row = ("gpu", "PENDING", "4", "2", given, per_node)
    assert SLURM.parse_demand(printed((*row, "")))["gpu"].waiting_gpus == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("infinite", None),
        ("n/a", None),
        ("30:00", 1800),
        ("1:00:00", 3600),
        ("12:30:15", 45015),
        ("7-00:00:00", 604800),
    ],
)
def test_a_partitions_walltime_is_read(text: str, seconds: int | None) -> None:
    row = ("cpu", "down", text, "", "n/a", "0/0/0/0", "", "")
    assert SLURM.parse_queues(printed((*row, "")))["cpu"] == Queue(
        "cpu", is_default=False, state="down", walltime_seconds=seconds
    )


@pytest.mark.parametrize(
    ("state", "is_idle", "free_cpus"),
    [
        ("idle", True, 6),
        ("idle~", True, 6),  # powered off until it is wanted
        ("idle-", False, 6),  # planned for another job
        ("mixed@", False, 6),
        ("idle$", False, 0),
        ("idle*", False, 0),  # it does not respond; its CPUs are told as idle
        ("reserved", False, 0),
        ("draining", False, 0),
        ("unheard-of", False, 0),
    ],
)
def test_only_nodes_that_work_have_something_free(
    state: str, is_idle: bool, free_cpus: int
) -> None:
    found = node(state, "2/6/0/8", "gpu:2", "gpu:1(IDX:0)")
    assert (found.is_idle, found.free_cpus) == (is_idle, free_cpus)
    assert found.free_gpus == {"gpu": 1 if free_cpus else 0}


def test_a_node_without_gpus_has_none_free() -> None:
    assert node(used="gpu:0,shard:0") == QueueNode("c1", "idle", True, 8, 8)  # so in 22.05


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(null)", {}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0,2-3),gpu:h100:1(S:1)", {"a100": 2, "h100": 1}),
        ("gpu:a100_1g.5gb:7(S:0),shard:8,mps:a100:200", {"a100_1g.5gb": 7}),
        ("gpu:4(S:0)", {"gpu": 4}),
        ("gpu", {"gpu": 1}),
        ("gpu:3090:2", {"3090": 2}),
        ("gpu:a100:no_consume:2", {"a100": 2}),
        ("gpu:a100:2(IDX:0,3),gpu:a100:1(IDX:N/A)", {"a100": 3}),
    ],
)
def test_gpus_of_a_gres_list(text: str, found: dict[str, int]) -> None:
    assert gpus(text) == found
