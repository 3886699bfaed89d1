"""What Slurm says about a whole site."""

from __future__ import annotations

import pytest

from hpc_bridge.schedulers.slurm_site import (
    SiteQos,
    parse_accounts,
    parse_config,
    parse_nodes,
    parse_partitions,
    parse_qos,
)
from tests.unit.slurm_answers import answer, each_version


def printed(version: str, name: str) -> str:
    return answer(version, f"site-{name}").stdout


@each_version
def test_the_configuration_is_read(version: str) -> None:
    config = parse_config(printed(version, "config"))
    assert config["ClusterName"] == "mini"
    assert config["SLURM_VERSION"].startswith(version)
    assert config["MaxArraySize"] == "10001"
    assert config["AccountingStorageType"] == "accounting_storage/slurmdbd"
    assert config["PreemptType"] == "preempt/partition_prio"


def test_a_later_section_does_not_replace_a_setting() -> None:
    config = parse_config(
        "PluginDir   = /a\nPriorityFlags =\n\nMPI Plugins:\nPluginDir = /b = /c\n"
    )
    assert config == {"PluginDir": "/a", "PriorityFlags": ""}


@each_version
def test_the_partitions_of_the_test_site(version: str) -> None:
    cpu, gpu, scavenge, scavrq = parse_partitions(printed(version, "partitions"))
    assert (cpu.name, cpu.is_default, cpu.state, cpu.nodes) == ("cpu", True, "UP", 2)
    assert (cpu.walltime, cpu.default_walltime) == (86400, 600)
    assert (cpu.nodes_per_job, cpu.cpus_per_node, cpu.memory_per_node) == (None, None, None)
    assert (cpu.accounts, cpu.qos, cpu.groups, cpu.own_qos) == ((), (), (), None)
    assert not gpu.is_default
    assert (scavenge.preempt_mode, scavrq.preempt_mode) == ("CANCEL", "REQUEUE")
    assert (cpu.priority_tier, scavrq.priority_tier) == (10, 1)


@each_version
def test_odd_partitions(version: str) -> None:
    found = {one.name: one for one in parse_partitions(printed(version, "partitions-odd"))}
    assert [name for name, one in found.items() if one.is_hidden] == ["hidden"]
    assert [name for name, one in found.items() if one.is_for_root_only] == ["ops"]
    assert found["hidden"].walltime is None  # UNLIMITED
    assert (found["off"].state, found["lean"].state) == ("DOWN", "DRAIN")
    assert found["mixedgpu"].nodes_per_job == 2
    assert (found["mixedgpu"].accounts, found["mixedgpu"].qos) == (
        ("lab", "other"),
        ("long", "normal"),
    )
    assert found["mixedgpu"].default_walltime is None
    assert found["ops"].groups == ("root", "slurm")
    assert (found["lean"].cpus_per_node, found["lean"].memory_per_node) == (4, 2000)
    assert (found["lean"].denied_accounts, found["lean"].denied_qos) == (("other",), ("debug",))
    assert found["lean"].accounts == ()
    assert found["none"].nodes == 0


@each_version
def test_the_nodes_of_the_test_site(version: str) -> None:
    c1, _, g1 = parse_nodes(printed(version, "nodes"))
    assert (c1.name, c1.cpus, c1.memory, c1.gpus, c1.features) == ("c1", 8, 4000, {}, ())
    assert c1.partitions == ("cpu", "scavenge", "scavrq")
    assert g1.gpus == {"tiny": 2}


@each_version
def test_odd_nodes(version: str) -> None:
    found = {one.name: one for one in parse_nodes(printed(version, "nodes-odd"))}
    assert found["h1"].gpus == {"a100": 2, "a100_1g.5gb": 7}
    assert found["h1"].memory == 512000 - 8000  # what Slurm keeps
    assert found["h1"].features == ("ib", "a100", "zen3")
    assert found["h3"].gpus == {"gpu": 4}  # without a type, and beside shards
    assert "fut1" not in found


def test_what_people_wrote_about_a_node_changes_nothing() -> None:
    (node,) = parse_nodes(
        "NodeName=n1 CPUTot=256 ThreadsPerCore=2 OS=Linux 5.14 #1 SMP RealMemory=1000"
        " Gres=gpu:a100:4(S:0-1) Partitions=p Comment=old RealMemory=9 Reason=Gres=gpu:8 bad\n"
    )
    assert (node.cpus, node.threads_per_core, node.memory) == (256, 2, 1000)
    assert node.gpus == {"a100": 4}


def test_cores_that_slurm_keeps_are_not_for_jobs() -> None:
    (node,) = parse_nodes("NodeName=n1 CPUEfctv=60 CPUTot=64 RealMemory=1 MemSpecLimit=5\n")
    assert (node.cpus, node.memory) == (60, 0)


@each_version
def test_accounts_and_qos(version: str) -> None:
    assert dict(parse_accounts(printed(version, "accounts"))) == {"lab": "lab", "other": "other"}
    normal, long, _, limited = parse_qos(printed(version, "qos"))
    assert normal == SiteQos("normal", "Normal QOS default", None, None)
    assert (long.name, limited.live_jobs) == ("long", 3)


@pytest.mark.parametrize("parse", [parse_partitions, parse_nodes, parse_accounts, parse_qos])
def test_noise_is_no_record(parse) -> None:
    assert parse("") == []
    assert parse("No nodes in the system\nWelcome to the cluster\n") == []
