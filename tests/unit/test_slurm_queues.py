"""Partitions of Slurm and their limits."""

from __future__ import annotations

import json

import pytest

from hpc_bridge.schedulers.base import Queue
from tests.unit.slurm_answers import CAPTURES, SLURM, answer, each_version, printed


@each_version
def test_partitions_have_their_limits(version: str) -> None:
    for name in ("queues", "queues-node-drained"):
        queues = SLURM.parse_queues(answer(version, name))
        assert queues["gpu"] == Queue("gpu", is_default=False, is_up=True, walltime_seconds=86400)
        assert set(queues) == {"cpu", "gpu", "scavenge", "scavrq"}


@each_version
def test_the_default_partition_is_known_by_its_star(version: str) -> None:
    # This capture has names only.
    stored = json.loads((CAPTURES / version / "queues-default-marker.json").read_text())
    rows = [(name, "up", "infinite") for name in stored["stdout"].split()]
    queues = SLURM.parse_queues(printed(*rows))
    assert [name for name, queue in queues.items() if queue.is_default] == ["cpu"]


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
    (queue,) = SLURM.parse_queues(printed(("cpu", "down", text))).values()
    assert (queue.walltime_seconds, queue.is_up) == (seconds, False)
