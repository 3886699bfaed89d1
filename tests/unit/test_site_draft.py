"""A profile drafted from what a cluster says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hpc_bridge.errors import SchedulerUnavailable, UnexpectedOutput
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.slurm_site import SiteNode, SitePartition
from hpc_bridge.sites.draft import Draft, Said, site_name
from hpc_bridge.sites.draft_text import draft_text
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.slurm_draft import draft_slurm
from hpc_bridge.sites.slurm_facts import SlurmFacts, ask_slurm
from hpc_bridge.sites.surroundings import Folder, Surroundings
from hpc_bridge.sites.yaml_text import load
from tests.unit.slurm_answers import answer, each_version

AROUND = Surroundings("login", Folder("~", "ext4"))
KINDS = {"config": "config", "partition": "partitions", "node": "nodes", "account": "accounts"}


def asked(version: str, **variants: str) -> SlurmFacts:
    """What captured answers tell; ``nodes="-odd"`` chooses another capture."""

    def ask(command: Sequence[str]) -> Answer:
        shown = command[list(command).index("show") + 1]
        kind = KINDS.get(shown, shown)
        return answer(version, f"site-{kind}{variants.get(kind, '')}")

    return ask_slurm(ask)


def odd(version: str) -> SlurmFacts:
    return asked(version, partitions="-odd", nodes="-odd")


def drafted(facts: SlurmFacts, around: Surroundings = AROUND, **said: str) -> Draft:
    """The draft, of which the YAML has been read back."""
    draft = draft_slurm(facts, around, Said(**({"name": "mini"} | said)))
    read = load(draft_text(draft))
    assert not read.problems
    assert SiteProfile.model_validate(read.content) == draft.profile
    return draft


def made(*nodes: SiteNode, partitions: Sequence[SitePartition] = (), **config: str) -> SlurmFacts:
    """A cluster made up."""
    everything = {"ClusterName": "made", "MaxArraySize": "1001"} | config
    return SlurmFacts(everything, list(partitions), list(nodes))


def partition(name: str = "p", **fields: object) -> SitePartition:
    unlimited = dict.fromkeys(("walltime", "default_walltime", "nodes_per_job", "cpus_per_node",
                               "memory_per_node"))  # fmt: skip
    usual = {"is_default": False, "state": "UP", "is_hidden": False, "is_for_root_only": False}
    return SitePartition(name=name, **{**unlimited, **usual, "nodes": 4, **fields})


def node(name: str = "n1", **fields: object) -> SiteNode:
    usual = {"partitions": ("p",), "cpus": 64, "threads_per_core": 1, "memory": 256000}
    return SiteNode(name=name, **{**usual, **fields})


@each_version
def test_the_test_site_is_described_truly(version: str) -> None:
    profile = drafted(asked(version)).profile
    assert profile.scheduler.type == "slurm"
    assert profile.scheduler.version.startswith(version)
    assert (profile.scheduler.accounting, profile.scheduler.arrays) == (True, True)
    assert [one.name for one in profile.partitions] == ["cpu", "gpu", "scavenge", "scavrq"]
    assert profile.default_partition.name == "cpu"
    for one in profile.partitions:
        assert (one.walltime, one.default_walltime) == (86400, 600)
        assert (one.cpus_per_node, one.memory_per_node) == (8, 4000)
        assert one.nodes == (1 if one.name == "gpu" else 2)
        assert one.gpus_per_node == ({"tiny": 2} if one.name == "gpu" else {})
    assert [one.name for one in profile.accounts] == ["lab", "other"]
    assert [one.name for one in profile.qos] == ["normal", "long", "debug", "limited"]
    assert profile.paths.node_scratch == "/tmp"


@each_version
def test_odd_partitions_are_told_as_they_are(version: str) -> None:
    draft = drafted(odd(version))
    profile = draft.profile
    assert not {"hidden", "ops", "none"} & {one.name for one in profile.partitions}
    assert "Left out: ops (for root only)." in draft.remarks["partitions"]
    mixed = profile.partition("mixedgpu")
    assert (mixed.nodes, mixed.nodes_per_job, mixed.cpus_per_node) == (4, 2, 128)
    assert mixed.gpus_per_node == {"a100": 2, "a100_1g.5gb": 7, "gpu": 4, "tiny": 2}
    assert (mixed.accounts, mixed.qos) == (("lab", "other"), ("long", "normal"))
    assert (
        "  2 with 64 CPUs, 504000M, a100:2, a100_1g.5gb:7" in draft.remarks["partitions.mixedgpu"]
    )
    lean = profile.partition("lean")
    assert (lean.walltime, lean.cpus_per_node, lean.memory_per_node) == (None, 4, 2000)
    remarks = draft.remarks["partitions.lean"]
    assert "It is set to DRAIN now: no job can be submitted." in remarks
    assert "Accounts that may not use it: other." in remarks
    assert "It is DOWN now" in draft.remarks["partitions.off"][0]


def test_text_of_the_site_stays_comment_or_text() -> None:
    written = node(partitions=("on",), features=("a\nb: c", "x\u2028y: z"))
    draft = drafted(
        made(written, partitions=[partition("on")]),
        description="tricky: 'yes' # no",
        contact="me\u2028\x1b[1m",
    )
    assert draft.profile.partitions[0].name == "on"
    assert draft.profile.description == "tricky: 'yes' # no"
    assert "x?y: z" in draft_text(draft)


def test_gpus_and_sizes_are_those_of_the_largest_node() -> None:
    nodes = [
        node("n1", gpus={"a100": 8, "h100": 1}, cpus=32),
        node("n2", gpus={"a100": 4}, memory=512000),
    ]
    (one,) = drafted(made(*nodes, partitions=[partition()])).profile.partitions
    assert one.gpus_per_node == {"a100": 8, "h100": 1}
    assert (one.cpus_per_node, one.memory_per_node) == (64, 512000)


def test_limits_that_limit_nothing_are_left_out() -> None:
    facts = made(
        node(), partitions=[partition(nodes_per_job=9, default_walltime=7200, walltime=3600)]
    )
    (one,) = drafted(facts).profile.partitions
    assert (one.nodes, one.nodes_per_job) == (4, None)
    assert (one.walltime, one.default_walltime) == (3600, 3600)


def test_preemption_needs_shared_nodes_and_a_higher_tier() -> None:
    shared = node(partitions=("low", "high"))
    partitions = [
        partition("low", preempt_mode="REQUEUE"),
        partition("high", priority_tier=10, preempt_mode="REQUEUE"),
        partition("other", priority_tier=20),
    ]
    preempting = drafted(
        made(shared, partitions=partitions, PreemptType="preempt/partition_prio")
    ).remarks
    line = "Its jobs give way to those of high (PreemptMode REQUEUE)."
    assert line in preempting["partitions.low"]
    assert not preempting["partitions.high"]
    quiet = drafted(made(shared, partitions=partitions, PreemptType="preempt/none"))
    assert line not in quiet.remarks["partitions.low"]


def test_a_cluster_without_accounting_and_arrays() -> None:
    facts = made(MaxArraySize="0", AccountingStorageType="(null)")
    scheduler = drafted(facts).profile.scheduler
    assert (scheduler.accounting, scheduler.arrays) == (False, False)
    assert not drafted(facts).remarks["accounts"]


def test_without_accounting_sacctmgr_is_not_asked() -> None:
    commands: list[Sequence[str]] = []

    def ask(command: Sequence[str]) -> Answer:
        commands.append(command)
        return Answer(tuple(command), 0, "ClusterName = x\n", "")

    ask_slurm(ask)
    assert not [command for command in commands if "sacctmgr" in command]


@each_version
def test_what_is_refused_is_lived_with_and_said(version: str) -> None:
    facts = asked(version, accounts="-accounting-dead")
    draft = drafted(facts)
    assert not draft.profile.accounts
    assert "Connection refused" in draft.remarks["accounts"][0]
    assert "# accounts:\n" in draft_text(draft)
    assert draft.profile.qos


@each_version
def test_a_controller_that_is_away_is_an_error(version: str) -> None:
    with pytest.raises(SchedulerUnavailable, match="Unable to contact slurm controller"):
        asked(version, config="-controller-dead")


def test_an_answer_without_a_cluster_is_an_error() -> None:
    with pytest.raises(UnexpectedOutput, match="ClusterName"):
        ask_slurm(lambda command: Answer(tuple(command), 0, "", ""))


@pytest.mark.parametrize("hidden", ["accounts,jobs", "usage,accounts"])
def test_accounts_that_users_see_only_their_own_of_are_not_listed(hidden: str) -> None:
    facts = made(AccountingStorageType="accounting_storage/slurmdbd", PrivateData=hidden)
    draft = drafted(replace(facts, accounts=[("mine", "")]))
    assert not draft.profile.accounts
    assert "PrivateData" in draft.remarks["accounts"][0]


def test_too_many_accounts_are_no_choice() -> None:
    facts = made(AccountingStorageType="accounting_storage/slurmdbd")
    many = [(f"a{number}", "") for number in range(26)]
    assert not drafted(replace(facts, accounts=many)).profile.accounts
    assert len(drafted(replace(facts, accounts=many[:25])).profile.accounts) == 25


def test_nodes_that_are_not_shown_leave_the_partitions() -> None:
    facts = replace(made(partitions=[partition(nodes=7)]), refused={"nodes": "Access denied"})
    draft = drafted(facts)
    (one,) = draft.profile.partitions
    assert (one.nodes, one.cpus_per_node, one.memory_per_node) == (7, None, None)
    assert any("Access denied" in line for line in draft.remarks["partitions"])


def test_hardware_threads_and_keyless_defaults_are_remarked_on() -> None:
    draft = drafted(made(node(threads_per_core=2), partitions=[partition()]))
    assert any("threads" in line for line in draft.remarks["partitions.p"])
    assert "None is the default: each job must name one." in draft.remarks["partitions"]


def test_what_was_found_around_is_in_the_draft() -> None:
    around = Surroundings(
        "login",
        Folder("~", "ext4"),
        (Folder("$SCRATCH", "lustre"),),
        has_modules=True,
        container_runtime="apptainer",
    )
    draft = drafted(made(), around)
    assert draft.profile.paths.shared_dir == "$SCRATCH/.hpc-bridge"
    assert draft.profile.containers.runtime == "apptainer"
    assert "#   modules:\n" in draft_text(draft)
    assert drafted(made(), around, shared_dir="/x/{user}").profile.paths.shared_dir == "/x/{user}"


@pytest.mark.parametrize(
    ("cluster", "name"),
    [("mini", "mini"), ("HPC cluster (2)", "HPC-cluster-2-"), ("_x", "x"), ("ü", "cluster")],
)
def test_a_clusters_name_makes_a_sites_name(cluster: str, name: str) -> None:
    assert site_name(cluster) == name
