"""What PBS says of a whole site, in both forms of its commands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_bridge.schedulers.pbs_site import (
    Access,
    SiteHost,
    SiteQueue,
    gpu_resources,
    hosts_of,
    parse_hosts,
    parse_queues,
    parse_server,
)
from tests.unit.pbs_answers import answer

QUEUES = {
    "route": {
        "queue_type": "Route",
        "enabled": "True",
        "started": "True",
        "route_destinations": "short,long@other",
    },
    "long": {
        "queue_type": "Execution",
        "acl_user_enable": "True",
        "acl_users": "-bob,ada@*,+eve@host",
        "acl_group_enable": "False",
        "acl_groups": "staff",
        "from_route_only": "True",
        "resources_max": {"walltime": "72:00:00", "nodect": 16, "ncpus": 64, "mem": "100gb"},
        "resources_min": {"walltime": "00:10:00"},
        "resources_default": {"walltime": "24:00:00"},
        "default_chunk": {"Qlist": "long", "ncpus": 1},
        "max_run": "[u:PBS_GENERIC=10],[g:staff=20]",
        "max_run_res": {"ncpus": "[u:PBS_GENERIC=512]"},
        "max_queued": "[o:PBS_ALL=1000]",
        "enabled": "True",
        "started": "False",
    },
}


def as_json(part: str, records: dict[str, dict[str, Any]]) -> str:
    """As the tools print it, with numbers raw."""
    return "Welcome to the cluster\n" + json.dumps({"pbs_server": "s", part: records}, indent=4)


def as_text(title: str, records: dict[str, dict[str, Any]], indent: str = "    ") -> str:
    """As qstat and pbsnodes print it, long lines wrapped with a tab."""
    lines = []
    for name, fields in records.items():
        lines.append(f"{title}{name}")
        for key, value in fields.items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            for inner, text in parts:
                line = f"{indent}{key}{'.' + inner if inner else ''} = {text}"
                lines += [line[:78], *([f"\t{line[78:]}"] if line[78:] else [])]
        lines.append("")
    return "\n".join(lines)


QUEUE_FORMS = [as_json("Queue", QUEUES), as_text("Queue: ", QUEUES)]
every_form = pytest.mark.parametrize("stdout", QUEUE_FORMS, ids=["json", "text"])


@pytest.mark.parametrize("client", ["", "master."])
def test_a_recorded_site(client: str) -> None:
    server = parse_server(answer("qstat", f"{client}qstat_B_f_json").stdout)
    assert server is not None
    assert (server.name, server.version, server.default_queue) == ("pbshost", "23.06.06", "workq")
    assert (server.keeps_history, server.is_scheduling, server.largest_array) == (True, True, 10000)
    assert server.limits == {}
    [queue] = parse_queues(answer("qstat", f"{client}qstat_Q_f_json").stdout)
    assert (queue.name, queue.is_routing, queue.is_enabled, queue.is_started) == (
        *("workq", False),
        *(True, True),
    )
    assert queue.access == Access()


@pytest.mark.parametrize(
    "name",
    [
        *("pbsnodes_a_json", "pbsnodes_av_json", "master.pbsnodes_json"),
        *("mom_down.pbsnodes_json", "mom_down.pbsnodes_after_json"),
    ],
)
def test_vnodes_of_a_host_belong_together(name: str) -> None:
    [host] = parse_hosts(answer("pbsnodes", name).stdout)
    assert (host.name, host.cpus, host.memory, host.queue) == ("pbshost", 8, 16384, None)
    assert gpu_resources([host]) == ["ngpus"]
    assert host.counts["ngpus"] == 4


def test_no_server_is_no_guess() -> None:
    assert parse_server('{\n    "pbs_server":"pbshost"\n}\n') is None
    assert parse_server("") is None


@every_form
def test_a_routing_queue_says_where_it_leads(stdout: str) -> None:
    route, long = parse_queues(stdout)
    assert (route.is_routing, route.leads_to) == (True, ("short", "long@other"))
    assert (long.is_routing, long.only_from_routes) == (False, True)


@every_form
def test_limits_of_a_queue(stdout: str) -> None:
    _, long = parse_queues(stdout)
    assert (long.walltime, long.shortest_walltime, long.default_walltime) == (259200, 600, 86400)
    assert (long.nodes_per_job, long.cpus_per_job, long.memory_per_job) == (16, 64, 102400)
    assert (long.is_enabled, long.is_started) == (True, False)
    assert long.limits == {
        "max_run": "[u:PBS_GENERIC=10],[g:staff=20]",
        "max_run_res.ncpus": "[u:PBS_GENERIC=512]",
        "max_queued": "[o:PBS_ALL=1000]",
    }
    assert long.chunk == {"Qlist": "long", "ncpus": "1"}


@every_form
def test_only_lists_that_are_in_force_count(stdout: str) -> None:
    _, long = parse_queues(stdout)
    assert long.access == Access(("-bob", "ada@*", "+eve@host"), None)


@pytest.mark.parametrize(
    ("access", "takes"),
    [
        (Access(), True),
        (Access(users=("ada@*",)), True),
        (Access(users=("+ada@login.example.org",)), True),
        (Access(users=("-ada", "+*")), False),
        (Access(users=("+*", "-ada")), True),
        (Access(users=("bob",)), False),
        (Access(users=()), False),
        (Access(groups=("staff",)), True),
        (Access(groups=("-staff", "people")), False),
        (Access(users=("ada",), groups=("others",)), False),
    ],
)
def test_the_first_entry_that_names_somebody_decides(access: Access, takes: bool) -> None:
    assert access.takes("ada", ("staff", "people")) is takes


VNODES = {
    "n1[0]": {
        "Mom": "n1.example",
        "state": "free",
        "resources_available": {"host": "n1", "mem": "131072mb", "ncpus": 32, "gpus": 2},
        "queue": "gpu",
    },
    "n1[1]": {
        "Mom": "n1.example",
        "state": "job-busy",
        "resources_available": {"host": "n1", "mem": "128gb", "ncpus": 32, "gpus": 2},
        "queue": "gpu",
    },
    "n2": {
        "Mom": "n2.example",
        "state": "down,offline",
        "resources_available": {"host": "n2", "mem": "64gb", "ncpus": 16, "Qlist": "long,short"},
        "jobs": "1.s/0, 2.s/1",
    },
    "n3": {"Mom": "n3.example", "resources_available": {"mem": "64gb", "ncpus": 16}},
}


@pytest.mark.parametrize(
    "stdout",
    [as_json("nodes", VNODES), as_text("", VNODES, "     ")],
    ids=["json", "text"],
)
def test_hosts_in_both_forms(stdout: str) -> None:
    hosts = {host.name: host for host in parse_hosts(stdout)}
    assert list(hosts) == ["n1", "n2", "n3.example"]
    first = hosts["n1"]
    assert (first.cpus, first.memory, first.queue, first.counts) == (64, 262144, "gpu", {"gpus": 4})
    assert hosts["n2"].texts == {"Qlist": "long,short"}


def queue(name: str, **chunk: str) -> SiteQueue:
    [found] = parse_queues(as_json("Queue", {name: {"default_chunk": chunk}}))
    return found


def test_a_queue_has_its_own_hosts_or_those_that_are_nobodys() -> None:
    hosts = parse_hosts(as_json("nodes", VNODES))
    assert [host.name for host in hosts_of(queue("gpu"), hosts)] == ["n1"]
    assert [host.name for host in hosts_of(queue("any"), hosts)] == ["n2", "n3.example"]


def test_a_queue_may_be_bound_to_hosts_by_what_its_chunks_have() -> None:
    hosts = [
        SiteHost("a", None, 8, 8, texts={"Qlist": "long,short"}),
        SiteHost("b", None, 8, 8, texts={"Qlist": "gpu"}),
    ]
    assert [host.name for host in hosts_of(queue("q", Qlist="long", ncpus="1"), hosts)] == ["a"]
    assert hosts_of(queue("q", ncpus="4"), hosts) == hosts


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"ngpus": 2, "gpus": 4}, ["ngpus", "gpus"]),
        ({"nvidia_gpus": 4, "ngpu": 1}, ["ngpu", "nvidia_gpus"]),
        ({"ngpus": 0}, []),
        ({"naccelerators": 3, "scratch": 4}, []),
    ],
)
def test_the_likeliest_name_for_gpus_comes_first(counts: dict[str, int], names: list[str]) -> None:
    assert gpu_resources([SiteHost("n", None, 8, 8, counts)]) == names


def test_damage_in_one_nodes_attribute_hides_no_other() -> None:
    stdout = as_json("nodes", VNODES).replace('"down,offline"', "nan,, \x01")
    assert [host.name for host in parse_hosts(stdout)] == ["n1", "n2", "n3.example"]
