"""PBS's queues, nodes and what waits for them."""

from __future__ import annotations

import pytest

from hpc_bridge.errors import CommandError, SchedulerUnavailable, UnexpectedOutput
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.pbs_programs import NEXT
from tests.unit.pbs_answers import PBS, answer, records, transcripts

NODES = [
    name
    for name, given in transcripts("pbsnodes").items()
    if "json" in given.arguments and "-v" in given.arguments
]


def together(*parts: str) -> Answer:
    return Answer(("sh",), 0, f"\n{NEXT}\n".join(parts), "")


def queues(
    nodes: str = "pbsnodes_av_json",
    *,
    about: str = "qstat_B_f_json",
    listed: str | None = None,
    given: PBSScheduler = PBS,
):
    listed = answer("qstat", "qstat_Q_f_json").stdout if listed is None else listed
    about, vnodes = answer("qstat", about).stdout, answer("pbsnodes", nodes).stdout
    return given.parse_queues(together(about, listed, vnodes))


def queue(**fields: str) -> str:
    """One more queue beside the recorded one."""
    lines = "".join(f'"{name}":"{value}",\n' for name, value in fields.items())
    limits = '"resources_max":{\n"walltime":"24:00:00"\n}\n'
    own = '"workq":{\n"queue_type":"Execution",\n"enabled":"True",\n"started":"True"\n},\n'
    return f'{{\n"Queue":{{\n{own}"other":{{\n{lines}{limits}}}\n}}\n}}\n'


def test_a_recorded_site() -> None:
    (workq,) = queues().values()
    assert (workq.name, workq.is_default, workq.state) == ("workq", True, "up")
    assert workq.walltime_seconds is None
    first, second = workq.nodes  # the host of the two has nothing by itself
    assert (first.name, first.cpus, first.free_cpus, first.is_idle) == ("pbshost[0]", 4, 1, False)
    assert (first.gpus, first.free_gpus) == ({"gpu": 2}, {"gpu": 1})
    assert (second.name, second.free_cpus, second.is_idle) == ("pbshost[1]", 4, True)


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("client", ["", "master."])
def test_every_recorded_form_is_read(nodes: str, client: str) -> None:
    listed = answer("qstat", f"{client}qstat_Q_f_json").stdout
    (workq,) = queues(nodes, about=f"{client}qstat_B_f_json", listed=listed).values()
    assert [node.cpus for node in workq.nodes] == [4, 4]


def test_a_node_that_is_down_has_nothing_free() -> None:
    (workq,) = queues("mom_down.pbsnodes_json").values()
    assert {node.free_cpus for node in workq.nodes} == {0}
    assert {node.state for node in workq.nodes} == {"down"}
    assert not any(node.is_idle for node in workq.nodes)


@pytest.mark.parametrize(
    ("enabled", "started", "state"),
    [
        ("True", "True", "up"),
        ("True", "False", "stopped"),
        ("False", "True", "disabled"),
    ],
)
def test_a_queue_is_up_where_jobs_start(enabled: str, started: str, state: str) -> None:
    listed = queue(queue_type="Execution", enabled=enabled, started=started)
    found = queues(listed=listed)["other"]
    assert (found.state, found.is_default, found.walltime_seconds) == (state, False, 86400)


def test_a_queue_that_hands_jobs_on_has_no_nodes() -> None:
    found = queues(listed=queue(queue_type="Route", enabled="True", started="True"))
    assert found["other"].nodes == ()
    assert len(found["workq"].nodes) == 2


def test_the_default_comes_first() -> None:
    listed = queue(queue_type="Execution", enabled="True", started="True")
    assert list(queues(listed=listed.replace("other", "a"))) == ["workq", "a"]


def test_gpus_are_counted_by_the_sites_own_resource() -> None:
    other = queues(given=PBSScheduler(gpu_resource="ngpu2"))["workq"]
    assert [node.gpus for node in other.nodes] == [{}, {}]


def test_damage_in_one_nodes_comment_hides_no_node() -> None:
    stdout = answer("pbsnodes", "pbsnodes_av_json").stdout
    damaged = stdout.replace('"resv_enable":"True"', '"comment":nan,\n"resv_enable":"\x01"', 1)
    about, listed = (answer("qstat", f"qstat_{part}_f_json").stdout for part in "BQ")
    found = PBS.parse_queues(together(about, listed, damaged))
    assert len(found["workq"].nodes) == 2


def test_a_part_that_is_missing_is_no_empty_site() -> None:
    with pytest.raises(UnexpectedOutput, match="2 answers"):
        PBS.parse_queues(together("{}", "{}"))
    with pytest.raises(UnexpectedOutput, match="no server"):
        PBS.parse_queues(together("{\n}\n", "{\n}\n", "{\n}\n"))
    with pytest.raises(UnexpectedOutput, match="no JSON"):
        PBS.parse_queues(together("Queue", "x", "y"))


@pytest.mark.parametrize("name", [n for n, t in transcripts("pbsnodes").items() if t.answer.stderr])
def test_nodes_that_cannot_be_asked_for(name: str) -> None:
    kind = SchedulerUnavailable if name.startswith("down") else CommandError
    with pytest.raises(kind):
        PBS.parse_queues(answer("pbsnodes", name))


def test_demand_by_queue() -> None:
    asks = {"queue": "gpu", "Resource_List.ncpus": "4", "Resource_List.ngpus": "2"}
    demand = PBS.parse_demand(
        records(
            asks | {"job_state": "R"},
            asks | {"job_state": "H"},
            asks
            | {"job_state": "B", "array_state_count": "Queued:3 Running:2 Exiting:1 Expired:9"},
            {"queue": "cpu", "job_state": "Q"},
        )
    )
    gpu, cpu = demand["gpu"], demand["cpu"]
    assert (gpu.waiting, gpu.waiting_cpus, gpu.waiting_gpus) == (4, 16, 8)
    assert (gpu.running, gpu.running_cpus) == (4, 16)
    assert (cpu.waiting, cpu.waiting_cpus, cpu.running) == (1, 0, 0)
