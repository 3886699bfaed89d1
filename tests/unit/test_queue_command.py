"""Partitions with what is free in them, for choosing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpc_bridge.cli import queue as command
from hpc_bridge.cli.queue import Overview, QueueLine, Share, overview, show_queues
from hpc_bridge.errors import CommandNotFound
from hpc_bridge.schedulers.base import Demand, Queue, QueueNode
from hpc_bridge.schedulers.pbs import COMMANDS
from hpc_bridge.settings import Settings
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.user_part import UserPart
from hpc_bridge.transports.login import Login
from tests.fake_pbs import FakePBS
from tests.unit.site_folders import SiteFolders, write
from tests.unit.slurm_answers import SLURM, answer, each_version

NODE = QueueNode("n1", "mixed", False, 8, 6, {"a100": 4}, {"a100": 1})
BUSY = QueueNode("n2", "allocated", False, 8, 0)
IDLE = QueueNode("n3", "idle", True, 8, 8)


def site(*partitions: dict[str, object], user: UserPart | None = None, **parts: object) -> Site:
    content = {"name": "s", "scheduler": {"type": "slurm"}, "partitions": partitions, **parts}
    return Site(SiteProfile.model_validate(content), user or UserPart())


def queues(**nodes: tuple[QueueNode, ...]) -> dict[str, Queue]:
    return {
        name: Queue(name, is_default=name == "a", state="up", walltime_seconds=3600, nodes=of)
        for name, of in nodes.items()
    }


def line(found: Overview, name: str) -> QueueLine:
    return next(one for one in found.queues if one.name == name)


def test_resources_are_summed_over_the_nodes_of_a_partition() -> None:
    found = overview(queues(a=(NODE, BUSY, IDLE)), {"a": Demand(2, 16, 4, 3, 10)}, None)
    a = line(found, "a")
    assert (a.resources.nodes, a.resources.cpus) == (Share(1, 3), Share(14, 24))
    assert a.resources.gpus == {"a100": Share(1, 4)}
    assert (a.waiting, a.waiting_cpus, a.waiting_gpus, a.running) == (2, 16, 4, 3)
    assert not found.notes


def test_shared_nodes_are_counted_once_in_all_and_said_to_be_shared() -> None:
    found = overview(
        queues(a=(NODE, IDLE), b=(IDLE,), c=(BUSY,)), {"c": Demand(0, 0, 0, 1, 8)}, None
    )
    assert line(found, "a").shares_nodes_with == ["b"]
    assert line(found, "c").shares_nodes_with == []
    assert found.resources.nodes == Share(1, 3)
    assert found.resources.cpus == Share(14, 24)
    assert "in all there are 1/3 idle nodes, 14/24 free CPUs, 1/4 a100 GPUs" in found.notes[0]


@pytest.mark.parametrize(
    ("user", "usable", "because"),
    [
        ({"account": "lab", "qos": "long"}, True, ""),
        ({"account": "other", "qos": "long"}, False, "not for account other"),
        ({"account": "lab", "qos": "debug"}, False, "not for qos debug"),
        ({"account": "lab"}, None, "with qos long"),
        ({}, None, "with account lab or team, qos long"),
    ],
)
def test_whether_the_users_account_may_use_it(
    user: dict[str, str], usable: bool | None, because: str
) -> None:
    profile = site(
        {"name": "a", "accounts": ["lab", "team"], "qos": ["long"], "description": "Fast"},
        {"name": "b"},
        user=UserPart(**user),
    )
    found = overview(queues(a=(), b=(), c=()), {}, profile)
    a = line(found, "a")
    assert (a.usable, a.because, a.description) == (usable, because, "Fast")
    assert line(found, "b").usable is True
    assert line(found, "c").usable is None  # the profile does not know it


def test_a_partition_of_other_groups_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "groups_asked", lambda _: {"people"})
    found = overview(queues(a=()), {}, site({"name": "a", "groups": ["staff", "root"]}))
    assert (line(found, "a").usable, line(found, "a").because) == (
        False,
        "only for members of staff, root",
    )


def test_what_the_profile_has_and_the_scheduler_does_not_show_is_said() -> None:
    found = overview(queues(a=()), {}, site({"name": "a"}, {"name": "gone"}))
    assert found.notes == [
        "in the profile of s, but not shown by the scheduler (gone, hidden, or not for your"
        " groups): gone"
    ]


def test_an_example_is_not_the_cluster_that_answers() -> None:
    (note,) = overview(queues(a=()), {}, site({"name": "a"}, example=True)).notes
    assert "example" in note


@pytest.mark.parametrize(("running_cpus", "hides"), [(0, True), (2, True), (8, False)])
def test_jobs_that_are_not_shown_are_noticed(running_cpus: int, hides: bool) -> None:
    found = overview(queues(a=(BUSY, IDLE)), {"a": Demand(running_cpus=running_cpus)}, None)
    assert any("only some of the jobs" in note for note in found.notes) is hides


def test_a_node_that_is_away_hides_no_jobs() -> None:
    away = QueueNode("n4", "down*", False, 64, 0)
    assert not overview(queues(a=(away,)), {}, None).notes


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler answers with one capture."""
    cluster = SimpleNamespace(
        queues=lambda: SLURM.parse_queues(answer("24.11", "queues-odd")),
        demand=lambda: SLURM.parse_demand(answer("24.11", "demand")),
    )
    monkeypatch.setattr(command, "connect", lambda *_: SimpleNamespace(cluster=cluster))


@pytest.mark.usefixtures("answered")
def test_columns_for_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    show_queues(Settings(), None, as_json=False)
    captured = capsys.readouterr()
    head, cpu, gpu, *rest = captured.out.splitlines()
    assert head.split()[:4] == ["partition", "state", "walltime", "idle_nodes"]
    assert cpu.split()[:5] == ["cpu*", "up", "1-00:00:00", "0/2", "4/16"]
    assert gpu.split()[4:8] == ["6/8", "tiny", "1/2", "1"]
    assert len(rest) == 5
    assert "counted in each of them" in captured.err


@pytest.mark.usefixtures("answered")
def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    show_queues(Settings(), None, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["resources"]["nodes"] == {"free": 0, "total": 6}
    gpu = next(one for one in found["queues"] if one["name"] == "gpu")
    assert gpu["resources"]["gpus"] == {"tiny": {"free": 1, "total": 2}}
    assert (gpu["waiting"], gpu["waiting_gpus"], gpu["usable"]) == (5, 10, None)


def test_a_cluster_elsewhere_is_asked_over_its_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = "name: far\nscheduler: {type: slurm}\nlogin: {transport: openssh, host: mini}\n"
    (tmp_path / "far.yaml").write_text(profile)
    (tmp_path / "far.yaml").chmod(0o644)
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(tmp_path))
    asked: list[object] = []

    def connect(*place: object) -> SimpleNamespace:
        asked.extend(place)
        return SimpleNamespace(cluster=SimpleNamespace(queues=dict, demand=dict))

    monkeypatch.setattr(command, "connect", connect)
    show_queues(Settings(), "far", as_json=True)
    assert asked[-1] == Login("openssh", "mini")
    assert asked[1] == Path("~/.hpc-bridge")  # not this machine's


def test_a_pbs_site_is_not_asked_with_slurms_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.yaml").write_text("name: p\nscheduler: {type: pbs}\n")
    (tmp_path / "p.yaml").chmod(0o644)
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(tmp_path))
    with pytest.raises(CommandNotFound, match=r"a command of PBS was not found.*qstat"):
        show_queues(Settings(), "p", as_json=False)


def test_queues_of_pbs_are_called_so(
    site_folders: SiteFolders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakePBS(tmp_path / "pbs") as pbs:
        commands = {name: pbs.commands[name] for name in COMMANDS}
        content = {"name": "p", "scheduler": {"type": "pbs", "commands": commands}}
        write(site_folders.user / "p.yaml", json.dumps(content))
        show_queues(Settings(), "p", as_json=False)
    captured = capsys.readouterr()
    head, workq, gpuq = captured.out.splitlines()
    assert (head.split()[0], workq.split()[0], gpuq.split()[0]) == ("queue", "workq*", "gpuq")
    assert "queues share nodes" in captured.err
    assert captured.err.rstrip().endswith("8/8 free CPUs, 4/4 GPUs")


def test_full_nodes_of_pbs_count_when_jobs_are_hidden() -> None:
    full = QueueNode("n1", "job-busy", False, 8, 0)
    assert "only some of the jobs" in overview(queues(a=(full,)), {}, None).notes[0]


@each_version
def test_real_answers_make_an_overview(version: str) -> None:
    found = overview(
        SLURM.parse_queues(answer(version, "queues-odd")),
        SLURM.parse_demand(answer(version, "demand")),
        None,
    )
    assert line(found, "cpu").shares_nodes_with == ["scavenge", "scavrq", "off", "lean"]
    assert found.resources.gpus["tiny"] == Share(1, 2)
    assert not any("only some" in note for note in found.notes)
