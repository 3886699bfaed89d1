"""What the doctor makes of the answers of Slurm's commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from hpc_bridge.doctor.findings import Status, Verdict
from hpc_bridge.doctor.scheduler import (
    SchedulerCommands,
    check_profile_facts,
    judge_commands,
    judge_missing,
    judge_profile_facts,
)
from hpc_bridge.doctor.slurm import (
    COMMANDS,
    SLURM,
    judge_accounting,
    judge_controller,
    judge_submission,
)
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import SchedulerUnavailable
from hpc_bridge.schedulers.base import Commands, Queue
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.transports.base import Completed
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import LOCAL, Login

GOOD = Completed(0, "slurm-wlm 24.11.5\n", "")


def judged(
    changed: dict[str, Completed] | None = None,
    profiled: str | None = None,
) -> Verdict:
    return judge_commands(
        dict.fromkeys(COMMANDS, GOOD) | (changed or {}),
        lambda name: (name,),
        profiled,
        SLURM,
    )


OLD = dict.fromkeys(COMMANDS, Completed(0, "slurm 20.11.9", ""))


@pytest.mark.parametrize(
    ("changed", "profiled", "status", "words"),
    [
        ({}, None, Status.GREEN, "Slurm 24.11.5"),
        ({}, "24.11", Status.GREEN, "Slurm 24.11.5"),
        ({}, "24.11.1", Status.GREEN, "Slurm 24.11.5"),
        ({}, "23.02", Status.YELLOW, "set scheduler.version to '24.11.5'"),
        ({}, "some", Status.GREEN, "Slurm 24.11.5"),
        ({"sacct": Completed(0, "slurm 23.02.1", "")}, None, Status.YELLOW, "several"),
        (OLD, None, Status.YELLOW, "22.05 and later"),
        ({"sinfo": Completed(1, "", "fatal: no slurm.conf")}, None, Status.RED, "no slurm.conf"),
        ({"sinfo": Completed(0, "hello", "")}, None, Status.RED, "hello"),
    ],
)
def test_commands(
    changed: dict[str, Completed], profiled: str | None, status: Status, words: str
) -> None:
    verdict = judged(changed, profiled)
    assert verdict.status is status
    assert words in verdict.message + verdict.advice


HERE, THERE = "here", "on mini"


def without_sbatch(where: str, named: str = "sbatch", *, folders: tuple[str, ...] = ()) -> Verdict:
    subject = SimpleNamespace(
        login=LOCAL if where == HERE else Login("openssh", "mini"),
        here=where,
        where_to_set=lambda field, variable: f"{variable}, or {field} in the profile",
    )
    slurm = SlurmScheduler(Commands.of({"sbatch": [named]}))
    commands = SchedulerCommands(LocalTransport(), slurm, "place")
    product = replace(SLURM, folders=("/nowhere", *folders))
    return judge_missing(["sbatch"], commands, cast("Subject", subject), product)


@pytest.mark.parametrize(
    ("where", "message", "found", "not_found"),
    [
        (HERE, "not on PATH: sbatch", "export PATH=$PATH:{}", "run this on a login node"),
        (
            *(THERE, "not on PATH on mini: sbatch"),
            *("write export PATH=$PATH:{} into a start-up file on mini", "what brings Slurm's"),
        ),
    ],
)
def test_a_folder_that_has_the_command_is_named(
    where: str,
    message: str,
    found: str,
    not_found: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "sbatch").touch(mode=0o755)
    verdict = without_sbatch(where, folders=(str(tmp_path),))
    assert (verdict.status, verdict.message) == (Status.RED, message)
    assert found.format(tmp_path) in verdict.advice
    assert not_found in without_sbatch(where).advice


def test_a_wrong_path_is_the_profiles() -> None:
    verdict = without_sbatch(HERE, "/opt/nope/sbatch")
    assert "/opt/nope/sbatch" in verdict.message
    assert "correct scheduler.commands.sbatch" in verdict.advice


ONE, TWO = "Slurmctld(primary) at a is {}\n", "Slurmctld(backup) at b is {}\n"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Completed(0, ONE.format("UP"), ""), Status.GREEN),
        (Completed(0, (ONE + TWO).format("UP", "UP"), ""), Status.GREEN),
        (Completed(0, (ONE + TWO).format("DOWN", "UP"), ""), Status.YELLOW),
        (Completed(1, ONE.format("DOWN"), ""), Status.RED),
        (Completed(1, "", "slurm_load_ctl_conf error: Unable to contact"), Status.RED),
    ],
)
def test_controllers(answer: Completed, status: Status) -> None:
    assert judge_controller(answer).status is status


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Completed(0, "", ""), Status.GREEN),
        (Completed(1, "", "Slurm accounting storage is disabled\n"), Status.YELLOW),
        (Completed(1, "", "sacct: error: slurmdbd: Connection refused"), Status.RED),
    ],
)
def test_accounting(answer: Completed, status: Status) -> None:
    assert judge_accounting(answer).status is status


NOBODY = {"partition": None, "account": None, "qos": None}
REFUSED = "sbatch: error: {}\nallocation failure: {}\n"


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("invalid partition specified: nosuch", "--partition: cpu, gpu"),
        ("Invalid account or account/partition combination specified", "sacctmgr show assoc"),
        ("Invalid qos specification", "sacctmgr show assoc"),
        ("Memory specification can not be satisfied", "as Slurm says"),
    ],
)
def test_a_refusal_has_slurms_words_and_what_to_do(said: str, advice: str) -> None:
    answer = Completed(1, "", REFUSED.format(said, said))
    verdict = judge_submission(answer, NOBODY | {"account": "lab"}, ["cpu", "gpu"])
    assert verdict.status is Status.RED
    assert said in verdict.message
    assert "account lab" in verdict.message
    assert advice in verdict.advice


def test_the_time_of_a_possible_start_is_told() -> None:
    said = "sbatch: Job 3 to start at 2026-11-21T11:48:02 using 1 processors on nodes c1\n"
    verdict = judge_submission(Completed(0, "", said), NOBODY, [])
    assert verdict.status is Status.GREEN
    assert "2026-11-21 11:48:02 UTC" in verdict.message


HOUR = 3600


@pytest.mark.parametrize(
    ("partitions", "status", "words"),
    [
        ([{"name": "cpu", "walltime": "2h"}, {"name": "free", "walltime": "9d"}], "green", "every"),
        ([{"name": "cpu"}], "green", "every"),
        ([], "green", "no partitions"),
        ([{"name": "cpu"}, {"name": "old"}], "yellow", "no partition 'old'"),
        ([{"name": "cpu", "walltime": "3h"}], "yellow", "'cpu' takes jobs of 02:00:00 at most"),
    ],
)
def test_a_profile_is_compared_with_the_scheduler(
    partitions: list[dict[str, str]], status: str, words: str
) -> None:
    profile = SiteProfile.model_validate(
        {"name": "here", "scheduler": {"type": "slurm"}, "partitions": partitions}
    )
    limits = {"cpu": 2 * HOUR, "free": None, "unprofiled": HOUR}
    queues = {name: Queue(name, False, "up", limit) for name, limit in limits.items()}
    verdict = judge_profile_facts(profile, queues)
    assert verdict.status == status
    assert words in verdict.message
    assert ("hpc-bridge site init --output -" in verdict.advice) == (status == "yellow")


def test_a_scheduler_that_does_not_say_its_partitions_is_not_red() -> None:
    def queues() -> dict[str, Queue]:
        raise SchedulerUnavailable("sinfo: timed out")

    cluster = SimpleNamespace(queues=queues)
    profile = SiteProfile.model_validate({"name": "here", "scheduler": {"type": "slurm"}})
    verdict = check_profile_facts(
        cast("Subject", SimpleNamespace(profile=profile, cluster=cluster))
    )
    assert verdict.status is Status.YELLOW
    assert "timed out" in verdict.message
    nothing = check_profile_facts(cast("Subject", SimpleNamespace(profile=None)))
    assert nothing.status is Status.SKIPPED
