"""Slurm where one database has several clusters, and each is named with every command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hpc_bridge.errors import (
    CommandError,
    SchedulerUnavailable,
    SettingsError,
    SubmissionRefused,
)
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.slurm import SlurmScheduler
from tests.unit.slurm_answers import SINCE, SLURM, answer, each_version

MINI = SlurmScheduler(cluster="mini")
ME = "researcher"
JOBS = [JobId("1")]
COMMANDS = {
    "sbatch": MINI.submit_command("hb"),
    "squeue": MINI.status_command(ME),
    "squeue by name": MINI.find_command("hb", ME),
    "squeue of all": MINI.demand_command(),
    "sacct": MINI.history_command(JOBS, ME, SINCE),
    "sacct by name": MINI.find_history_command("hb", ME, SINCE),
    "sacct of use": MINI.usage_command(JOBS, ME, SINCE),
    "scancel": MINI.cancel_command(JOBS),
    "scontrol": MINI.array_limit_command(),
    "sinfo": MINI.queue_command(),
}
PARSERS: dict[str, Callable[[Answer], Any]] = {
    "submit": MINI.parse_submit,
    "status": MINI.parse_status,
    "scancel": MINI.parse_cancel,
    "queues": MINI.parse_queues,
    "limits": MINI.parse_array_limit,
}
ASKED = ["submit", "status", "scancel", "queues"]


@pytest.mark.parametrize("what", COMMANDS)
def test_every_command_names_the_cluster(what: str) -> None:
    command = COMMANDS[what]
    assert command[command.index(what.split()[0]) + 1] == "--clusters=mini"


def test_without_a_cluster_none_is_named() -> None:
    assert not [word for word in SLURM.status_command(ME) if word.startswith("--clusters")]


def test_sacctmgr_takes_no_cluster() -> None:
    assert MINI.command("sacctmgr")[-1] == "sacctmgr"


@pytest.mark.parametrize("several", ["mini,maxi", "all"])
def test_several_clusters_are_refused(several: str) -> None:
    """Two clusters may have jobs of the same id."""
    with pytest.raises(SettingsError, match=r"scheduler\.cluster"):
        SlurmScheduler(cluster=several)


@pytest.mark.parametrize("directive", ["-M other", "-Mother", "--clusters=other", "--clusters a"])
def test_a_job_cannot_go_elsewhere_by_a_directive(directive: str) -> None:
    with pytest.raises(ValueError, match="decided by hpc-bridge"):
        SLURM.check_directives([directive])


@each_version
def test_the_answers_are_read(version: str) -> None:
    assert MINI.parse_submit(answer(version, "cluster-submit-ok")) == JobId("1")
    assert MINI.parse_submit(answer(version, "cluster-submit-array")) == JobId("2")
    jobs = MINI.parse_status(answer(version, "cluster-status-ok"))
    assert {str(job) for job in jobs} == {"1", "2_0", "2_1"}
    (found,) = MINI.parse_find(answer(version, "cluster-find-ok"))
    assert (found.job_id, found.name) == (JobId("1"), "hbaaaaaaaaaaaaa")
    record = MINI.parse_history(answer(version, "cluster-history-ok"))[JobId("1")]
    assert record.state is JobState.RUNNING
    queues = MINI.parse_queues(answer(version, "cluster-queues-ok"))
    assert set(queues) == {"cpu", "gpu", "scavenge", "scavrq"}
    MINI.parse_cancel(answer(version, "cluster-scancel-ok"))
    MINI.parse_cancel(answer(version, "cluster-scancel-over"))


@each_version
def test_a_refusal_keeps_its_words(version: str) -> None:
    with pytest.raises(SubmissionRefused, match="invalid partition specified: nope"):
        MINI.parse_submit(answer(version, "cluster-submit-refused"))


@each_version
@pytest.mark.parametrize("kind", [*ASKED, "limits"])
def test_an_unknown_cluster_is_named_and_not_tried_again(version: str, kind: str) -> None:
    with pytest.raises(CommandError, match=r"no cluster 'nope'.*scheduler\.cluster") as caught:
        PARSERS[kind](answer(version, f"cluster-{kind}-unknown"))
    assert not caught.value.retryable
    assert isinstance(caught.value, SubmissionRefused) == (kind == "submit")


@each_version
@pytest.mark.parametrize("dead", ["controller-dead", "accounting-dead"])
@pytest.mark.parametrize("kind", ASKED)
def test_a_cluster_that_does_not_answer_may_be_tried_again(
    version: str, kind: str, dead: str
) -> None:
    """By its name it is found through the database, without which nothing answers either."""
    with pytest.raises(SchedulerUnavailable):
        PARSERS[kind](answer(version, f"cluster-{kind}-{dead}"))


def test_lines_that_name_the_cluster_are_no_jobs() -> None:
    """As squeue and sinfo print them without --noheader, which a wrapper may take away."""
    given = answer("24.11", "cluster-status-ok")
    noisy = Answer(given.command, 0, "CLUSTER: mini\n" + given.stdout, "")
    assert MINI.parse_status(noisy) == MINI.parse_status(given)
