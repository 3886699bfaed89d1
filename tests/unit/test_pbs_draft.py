"""A profile drafted from what PBS says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import CommandError, SchedulerUnavailable, UnexpectedOutput
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.pbs_site import parse_hosts, parse_queues, parse_server
from hpc_bridge.sites.draft import Draft, Said
from hpc_bridge.sites.draft_text import draft_text
from hpc_bridge.sites.files import read_profile
from hpc_bridge.sites.pbs_draft import draft_pbs
from hpc_bridge.sites.pbs_facts import PBSFacts, ask_pbs
from hpc_bridge.sites.surroundings import Folder, Surroundings
from tests.fake_pbs import FakePBS
from tests.unit.pbs_answers import answer
from tests.unit.test_pbs_site import QUEUES, VNODES, as_json, as_text

AROUND = Surroundings("login", Folder("~", "nfs4"))
SERVER = {
    "pbs01.centre.example": {
        "default_queue": "route",
        "scheduling": "True",
        "query_other_jobs": "False",
        "resources_max": {"walltime": "48:00:00"},
        "max_run": "[u:PBS_GENERIC=50]",
        "pbs_version": "2022.1.6",
    }
}
OPEN = {"queue_type": "Execution", "enabled": "True", "started": "True"}


def recorded(client: str = "") -> Callable[[Sequence[str]], Answer]:
    """The login node of the recorded site."""

    def ask(command: Sequence[str]) -> Answer:
        if "pbsnodes" in command:
            return answer("pbsnodes", f"{client}pbsnodes_json" if client else "pbsnodes_av_json")
        return answer("qstat", f"{client}qstat_{'B' if '-B' in command else 'Q'}_f_json")

    return ask


def made(
    queues: dict[str, dict[str, Any]] = QUEUES,
    nodes: dict[str, dict[str, Any]] = VNODES,
    **server: Any,
) -> PBSFacts:
    """A site made up."""
    [(name, fields)] = SERVER.items()
    about = parse_server(as_json("Server", {name: fields | server}))
    assert about is not None
    return PBSFacts(
        about, parse_queues(as_json("Queue", queues)), parse_hosts(as_json("nodes", nodes))
    )


def drafted(facts: PBSFacts, folder: Path, **said: Any) -> Draft:
    """The draft, of which the file has been read back as its author would check it."""
    draft = draft_pbs(facts, AROUND, Said(**({"name": "centre"} | said)))
    path = folder / "centre.yaml"
    path.write_text(draft_text(draft))
    assert read_profile(path) == draft.profile
    return draft


@pytest.mark.parametrize("client", ["", "master."])
def test_the_recorded_site_is_described_truly(client: str, tmp_path: Path) -> None:
    draft = drafted(ask_pbs(recorded(client)), tmp_path)
    profile = draft.profile
    assert (profile.scheduler.type, profile.scheduler.version) == ("pbs", "23.06.06")
    assert (profile.scheduler.accounting, profile.scheduler.arrays) == (True, True)
    assert profile.scheduler.gpu_resource is None
    [workq] = profile.partitions
    assert (workq.name, workq.default, workq.walltime) == ("workq", True, None)
    assert (workq.nodes, workq.cpus_per_node, workq.memory_per_node) == (1, 8, 16384)
    assert workq.gpus_per_node == {"gpu": 4}
    text = draft_text(draft)
    assert "\nqueues:\n" in text
    assert "partition" not in text
    assert "from the answers of PBS 23.06.06" in text.replace("\n# ", " ")


def test_only_queues_that_take_and_start_jobs_are_listed(tmp_path: Path) -> None:
    queues = QUEUES | {
        "short": OPEN,
        "closed": OPEN | {"enabled": "False"},
        "halted": OPEN | {"started": "False"},
    }
    draft = drafted(made(queues), tmp_path)
    assert [one.name for one in draft.profile.partitions] == ["short"]
    assert draft.remarks["partitions"][1:] == [
        "Left out: route (only leads to short, long@other).",
        "Left out: long (takes jobs from routing queues only).",
        "Left out: closed (disabled: it takes no jobs now).",
        "Left out: halted (stopped: none of its jobs starts now).",
        "Jobs that name none go to route.",
    ]


def test_limits_are_the_tightest_of_queue_server_and_hosts(tmp_path: Path) -> None:
    limits = {
        "resources_max": {"walltime": "72:00:00", "nodect": 1, "ncpus": 48, "mem": "100gb"},
        "resources_default": {"walltime": "60:00:00"},
    }
    [one] = drafted(made({"gpu": OPEN | limits}), tmp_path).profile.partitions
    assert (one.walltime, one.default_walltime) == (172800, 172800)  # the server's
    assert (one.nodes, one.nodes_per_job) == (1, None)
    assert (one.cpus_per_node, one.memory_per_node) == (48, 102400)
    [other] = drafted(made({"any": OPEN | limits}), tmp_path).profile.partitions
    assert (other.nodes, other.nodes_per_job, other.cpus_per_node) == (2, 1, 16)


def test_gpus_by_another_name_are_found(tmp_path: Path) -> None:
    profile = drafted(made({"gpu": OPEN, "any": OPEN}), tmp_path).profile
    assert profile.scheduler.gpu_resource == "gpus"
    gpu, other = profile.partitions
    assert (gpu.gpus_per_node, other.gpus_per_node) == ({"gpu": 4}, {})
    both = {"n": {"resources_available": {"ncpus": 4, "ngpus": 1, "vgpus": 2}}}
    remarks = drafted(made({"gpu": OPEN}, both), tmp_path).remarks["scheduler"]
    assert any("(ngpus, vgpus): gpu_resource is the right one?" in line for line in remarks)


def test_who_may_use_a_queue_and_its_limits_are_remarked_on(tmp_path: Path) -> None:
    lists = {
        "acl_user_enable": "True",
        "acl_users": "ada,bob",
        "acl_group_enable": "True",
        "acl_groups": "staff",
        "max_run": "[u:PBS_GENERIC=2]",
        "resources_min": {"walltime": "01:00:00"},
    }
    draft = drafted(made({"vip": OPEN | lists}), tmp_path)
    assert draft.remarks["partitions.vip"] == [
        "Only these may use it: users ada, bob (acl_users).",
        "Only these may use it: groups staff (acl_groups).",
        "It takes no jobs shorter than 1h.",
        "Its limits: max_run [u:PBS_GENERIC=2].",
    ]
    assert draft.profile.partitions[0].groups == ()  # which of a user's counts, PBS decides
    assert any("max_run [u:PBS_GENERIC=50]" in line for line in draft.remarks["scheduler"])


@pytest.mark.parametrize(
    ("server", "accounting", "arrays", "words"),
    [
        ({}, False, True, "forgets jobs as they end"),
        ({"job_history_enable": "True"}, True, True, "only their own jobs"),
        ({"max_array_size": 1}, False, False, "1 elements at most"),
        ({"scheduling": "False"}, False, True, "Scheduling is switched off"),
        (
            {"acl_user_enable": "True", "acl_users": "ada"},
            False,
            True,
            "may use the cluster: users",
        ),
    ],
)
def test_what_the_server_says_of_itself(
    server: dict[str, Any], accounting: bool, arrays: bool, words: str, tmp_path: Path
) -> None:
    draft = drafted(made({"q": OPEN}, **server), tmp_path)
    scheduler = draft.profile.scheduler
    assert (scheduler.accounting, scheduler.arrays) == (accounting, arrays)
    assert any(words in line for line in draft.remarks["scheduler"])


def test_text_of_the_site_stays_comment(tmp_path: Path) -> None:
    odd = OPEN | {"max_run": "x\u2028y: z\u0007", "acl_user_enable": "True", "acl_users": "a\nb: c"}
    draft = drafted(made({"q": odd}), tmp_path)
    assert [one.name for one in draft.profile.partitions] == ["q"]
    assert "x?y: z?" in draft_text(draft)


def test_a_site_without_queues_or_nodes_is_drafted(tmp_path: Path) -> None:
    draft = drafted(made({}, {}), tmp_path)
    assert draft.profile.partitions == ()
    assert "PBS shows no nodes to this user, so these are not known." in draft.remarks["partitions"]


# asking


def test_an_old_pbs_is_asked_for_text() -> None:
    asked: list[Sequence[str]] = []

    def ask(command: Sequence[str]) -> Answer:
        asked.append(command)
        if "-F" in command:
            return Answer(tuple(command), 2, "", "qstat: invalid option -- 'F'\nusage: qstat ...\n")
        if "-B" in command:
            return Answer(tuple(command), 0, as_text("Server: ", SERVER), "")
        if "-Q" in command:
            return Answer(tuple(command), 0, as_text("Queue: ", {"q": OPEN}), "")
        return Answer(tuple(command), 0, as_text("", VNODES, "     "), "")

    facts = ask_pbs(ask)
    assert (facts.cluster, facts.server.version) == ("pbs01", "2022.1.6")
    assert [queue.name for queue in facts.queues] == ["q"]
    assert len(facts.hosts) == 3
    assert len(asked) == 6


def test_a_server_that_is_down_is_no_profile() -> None:
    with pytest.raises(SchedulerUnavailable, match="PBS does not answer"):
        ask_pbs(lambda _: answer("qstat", "down.qstat_B"))


def test_nodes_that_are_not_shown_are_not_known(tmp_path: Path) -> None:
    def ask(command: Sequence[str]) -> Answer:
        if "pbsnodes" in command:
            return Answer(tuple(command), 159, "", "pbsnodes: Unauthorized Request \n")
        return recorded()(command)

    facts = ask_pbs(ask)
    assert facts.refused == {"nodes": "pbsnodes: Unauthorized Request"}
    draft = drafted(facts, tmp_path)
    assert draft.profile.partitions[0].cpus_per_node is None
    line = "The nodes are not known, so nor are these: pbsnodes: Unauthorized Request"
    assert line in draft.remarks["partitions"]


def test_ports_that_ran_out_are_no_empty_site() -> None:
    said = "pbs_iff: all reserved ports in use\n"
    with pytest.raises(SchedulerUnavailable):
        ask_pbs(lambda command: Answer(tuple(command), 0, "", said))


@pytest.mark.parametrize(
    ("stdout", "words"),
    [
        ("", "is not that of PBS"),
        (as_text("Server: ", {"s": {"pbs_version": "6.1.2"}}), "6.1.2, which is Torque's"),
    ],
)
def test_what_is_no_pbs_is_told(stdout: str, words: str) -> None:
    with pytest.raises(UnexpectedOutput, match=words):
        ask_pbs(lambda command: Answer(tuple(command), 0, stdout, ""))


def test_grid_engines_qstat_is_an_error_with_its_words() -> None:
    said = 'ERROR! invalid option argument "-B"\nType "qstat -help" to get help\n'
    with pytest.raises(CommandError, match="invalid option argument"):
        ask_pbs(lambda command: Answer(tuple(command), 1, "", said))


def test_the_fake_is_described_as_it_is_configured(tmp_path: Path) -> None:
    queues = {"workq": {}, "gpuq": {"resources_max": {"walltime": "24:00:00"}}}
    closed = {"closed": {"enabled": False}}
    with FakePBS(tmp_path / "pbs", queues=queues | closed) as pbs:
        pbs.switch("no-history")

        def ask(command: Sequence[str]) -> Answer:
            done = pbs.run(*command[command.index(next(c for c in command if c in pbs.commands)) :])
            return Answer(
                tuple(command), done.returncode, done.stdout.decode(), done.stderr.decode()
            )

        draft = drafted(ask_pbs(ask), tmp_path)
        assert len(pbs.calls()) == 3
    assert [(one.name, one.walltime) for one in draft.profile.partitions] == [
        *(("workq", None), ("gpuq", 86400)),
    ]
    assert draft.profile.scheduler.accounting is False


def test_only_what_a_site_differs_in_is_written(tmp_path: Path) -> None:
    facts = replace(made({"q": OPEN}, job_history_enable="True"), hosts=[])
    text = draft_text(drafted(facts, tmp_path, commands={"qsub": "/opt/pbs/bin/qsub"}))
    assert "gpu_resource:" not in text.replace("# ", "")
    assert "  commands:\n    qsub:\n      - /opt/pbs/bin/qsub\n" in text
