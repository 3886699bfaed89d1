"""What the doctor makes of the answers of PBS's commands, on records and on the fake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_bridge.doctor import torque
from hpc_bridge.doctor.findings import Examination, Finding, Status, Verdict
from hpc_bridge.doctor.pbs import (
    CHECKS,
    PBS,
    Person,
    check_submission,
    judge_history,
    judge_server,
    judge_submission,
)
from hpc_bridge.doctor.scheduler import judge_commands, judge_profile_facts
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.schedulers.base import Queue, QueueNode
from hpc_bridge.schedulers.pbs import COMMANDS
from hpc_bridge.schedulers.pbs_site import Access, SiteQueue, SiteServer, parse_server
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.files import load_site
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.transports.base import Completed
from tests.fake_pbs import FakePBS
from tests.unit.pbs_answers import answer
from tests.unit.site_folders import SiteFolders, write

ADA = Person("ada", ("staff",))


def completed(program: str, name: str) -> Completed:
    recorded = answer(program, name)
    return Completed(recorded.exit_code, recorded.stdout, recorded.stderr)


def server(**changed: object) -> SiteServer:
    found = parse_server(answer("qstat", "qstat_B_f_json").stdout)
    assert found is not None
    return replace(found, **changed)  # type: ignore[arg-type]


def queue(name: str = "workq", **changed: object) -> SiteQueue:
    usual = {
        **dict.fromkeys(("is_routing", "only_from_routes"), False),
        **dict.fromkeys(("is_enabled", "is_started"), True),
        **dict.fromkeys(("walltime", "shortest_walltime", "default_walltime", "nodes_per_job")),
        **dict.fromkeys(("cpus_per_job", "memory_per_job")),
        "leads_to": (),
        "access": Access(),
    }
    return SiteQueue(name=name, **usual | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "profiled", "status", "words"),
    [
        ("23.06.06", None, Status.GREEN, "PBS 23.06.06"),
        ("23.06.06", "23.06", Status.GREEN, "PBS 23.06.06"),
        ("2022.1.6", None, Status.GREEN, "PBS 2022.1.6"),
        ("23.06.06", "2022.1.6", Status.YELLOW, "set scheduler.version to '23.06.06'"),
        ("13.1.2", None, Status.YELLOW, "PBS Pro 19 and later"),
    ],
)
def test_versions(version: str, profiled: str | None, status: Status, words: str) -> None:
    answers = {name: Completed(0, f"pbs_version = {version}\n", "") for name in COMMANDS}
    verdict = judge_commands(answers, lambda name: (name,), profiled, PBS)
    assert verdict.status is status
    assert words in verdict.message + verdict.advice


def test_the_recorded_server_answers() -> None:
    verdict = judge_server(completed("qstat", "qstat_B_f_json"))
    assert (verdict.status, verdict.message) == (Status.GREEN, "the server pbshost answers")


def test_a_server_that_is_down_is_red_with_its_words_in_one_line() -> None:
    verdict = judge_server(completed("qstat", "down.qstat_B"))
    assert verdict.status is Status.RED
    assert "Connection refused; qstat: cannot connect to server pbshost" in verdict.message


def test_a_server_that_starts_no_job_is_yellow() -> None:
    stdout = answer("qstat", "qstat_B_f_json").stdout
    idle = stdout.replace('"scheduling":"True"', '"scheduling":"False"')
    verdict = judge_server(Completed(0, idle, ""))
    assert verdict.status is Status.YELLOW
    assert "switched off" in verdict.message


@pytest.mark.parametrize(
    ("keeps", "profiled", "status"),
    [
        (True, True, Status.GREEN),
        (True, None, Status.GREEN),
        (False, None, Status.GREEN),
        (False, True, Status.YELLOW),
    ],
)
def test_a_history_that_is_off_is_lived_with(
    keeps: bool, profiled: bool | None, status: Status
) -> None:
    verdict = judge_history(server(keeps_history=keeps), profiled=profiled)
    assert verdict.status is status
    assert ("exit record decides" in verdict.message) is not keeps
    assert ("scheduler.accounting to false" in verdict.advice) == (status is Status.YELLOW)


HOUR = 3600


@pytest.mark.parametrize(
    ("named", "given", "status", "words"),
    [
        (None, [queue()], Status.GREEN, "queue workq takes your jobs"),
        ("gpuq", [queue(), queue("gpuq")], Status.GREEN, "queue gpuq takes"),
        ("gpq", [queue(), queue("gpuq")], Status.RED, "no queue 'gpq'; did you mean 'gpuq'?"),
        ("gpq", [queue(), queue("gpuq")], Status.RED, "--queue: workq, gpuq"),
        ("workq", [queue(is_enabled=False)], Status.RED, "disabled"),
        ("workq", [queue(is_started=False)], Status.YELLOW, "none starts"),
        ("workq", [queue(walltime=60)], Status.RED, "takes jobs of 00:01:00 at most"),
        ("workq", [queue(shortest_walltime=HOUR)], Status.RED, "takes jobs of 01:00:00 at least"),
        ("workq", [queue(access=Access(users=("bob",)))], Status.YELLOW, "it is for bob"),
        ("workq", [queue(access=Access(groups=()))], Status.YELLOW, "it is for nobody"),
        ("workq", [queue(access=Access(users=("ada@*",)))], Status.GREEN, "takes your jobs"),
        ("r", [queue("r", is_routing=True, leads_to=("a",))], Status.GREEN, "which leads to a"),
        (
            "a",
            [
                queue("a", only_from_routes=True),
                queue("r", is_routing=True, leads_to=("a",)),
            ],
            Status.RED,
            "choose with --queue: r",
        ),
        ("workq@other", [queue()], Status.YELLOW, "another server"),
    ],
)
def test_whether_a_job_would_be_taken(
    named: str | None, given: list[SiteQueue], status: Status, words: str
) -> None:
    verdict = judge_submission(named, 120, server(), given, ADA)
    assert verdict.status is status, verdict
    assert words in f"{verdict.message} {verdict.advice}"


def test_where_none_starts_no_job_is_tried() -> None:
    assert judge_submission(None, 120, server(), [queue(is_started=False)], ADA).blocks


def test_without_a_default_a_queue_must_be_named() -> None:
    verdict = judge_submission(None, None, server(default_queue=None), [queue()], ADA)
    assert (verdict.status, "--queue: workq" in verdict.advice) == (Status.RED, True)


def test_the_servers_own_lists_count_too() -> None:
    closed = server(access=Access(users=("-ada", "*")))
    verdict = judge_submission(None, 120, closed, [queue()], ADA)
    assert verdict.message.startswith("the server does not seem to be for you (ada)")


@pytest.mark.parametrize(
    ("gpus", "status", "words"),
    [({"gpu": 4}, "green", "every queue"), ({}, "yellow", "no node has GPUs by the name 'gpus'")],
)
def test_gpus_by_a_name_that_no_node_has_are_told(
    gpus: dict[str, int], status: str, words: str
) -> None:
    profile = SiteProfile.model_validate(
        {
            "name": "p",
            "scheduler": {"type": "pbs", "gpu_resource": "gpus"},
            "queues": [{"name": "gpuq", "gpus_per_node": {"a100": 4}}],
        }
    )
    node = QueueNode("n", "free", True, 8, 8, gpus, gpus)
    verdict = judge_profile_facts(profile, {"gpuq": Queue("gpuq", True, "up", None, (node,))})
    assert verdict.status == status
    assert words in verdict.message


# on the fake


@pytest.fixture
def pbs(tmp_path: Path) -> Iterator[FakePBS]:
    queues = {"workq": {}, "closed": {"enabled": False}, "vip": {"acl_users": ["somebody"]}}
    with FakePBS(tmp_path / "pbs", queues=queues) as server:
        yield server


@pytest.fixture
def subject(
    pbs: FakePBS, site_folders: SiteFolders, shared: Path
) -> Callable[[str | None], Subject]:
    """A user of a site whose profile names the fake's commands and no queues."""
    commands = {name: pbs.commands[name] for name in COMMANDS}
    scheduler = {"type": "pbs", "commands": commands}
    content = {"name": "p", "scheduler": scheduler, "paths": {"shared_dir": str(shared)}}
    write(site_folders.user / "p.yaml", json.dumps(content))
    return lambda queue: Subject(load_settings(), partition=queue, site=load_site("p"))


def step(check: Callable[[Subject], Verdict], subject: Subject) -> Finding:
    """As an examination runs it, errors included."""
    examination = Examination(lambda _: None)
    examination.step("step", "step", lambda: check(subject))
    return examination.findings[0]


@pytest.mark.parametrize("check", ["commands", "answers", "records", "submission", "profile"])
def test_a_fake_that_is_well_is_green(check: str, subject: Callable[..., Subject]) -> None:
    finding = step(getattr(CHECKS, check), subject(None))
    assert finding.status is Status.GREEN, finding


@pytest.mark.parametrize(
    ("check", "switch", "status", "words"),
    [
        ("answers", "down", Status.RED, "Connection refused"),
        ("records", "down", Status.SKIPPED, "does not answer"),
        ("submission", "down", Status.RED, "does not say its queues"),
        ("profile", "down", Status.YELLOW, "does not say its queues"),
        ("answers", "scheduling-off", Status.YELLOW, "no job starts"),
        ("records", "no-history", Status.YELLOW, "forgets jobs"),
    ],
)
def test_what_is_wrong_is_told(
    check: str,
    switch: str,
    status: Status,
    words: str,
    pbs: FakePBS,
    subject: Callable[..., Subject],
) -> None:
    pbs.switch(switch)
    finding = step(getattr(CHECKS, check), subject(None))
    assert finding.status is status, finding
    assert words in finding.message


@pytest.mark.parametrize(
    ("named", "status", "words"),
    [
        ("closed", Status.RED, "is disabled"),
        ("vip", Status.YELLOW, "it is for somebody"),
        ("wrkq", Status.RED, "did you mean 'workq'"),
    ],
)
def test_queues_are_judged_as_they_are(
    named: str, status: Status, words: str, subject: Callable[..., Subject]
) -> None:
    given = subject(named)
    finding = step(check_submission, given)
    assert finding.status is status, finding
    assert words in finding.message
    assert given.partitions == ["vip", "workq"]


def test_a_missing_command_is_named(pbs: FakePBS, subject: Callable[..., Subject]) -> None:
    (pbs.bin / "qselect").unlink()
    finding = step(CHECKS.commands, subject(None))
    assert finding.status is Status.RED
    assert "qselect: there is no such command" in finding.message
    assert "scheduler.commands.qselect" in finding.advice


def test_a_job_of_the_doctor_is_one_of_pbs(subject: Callable[..., Subject]) -> None:
    given = subject("workq")
    assert (given.pool_type, given.queue_option) == ("pbs", "--queue")
    script = given.script("hbtest", python="/probe")
    assert "#PBS -q workq\n" in script
    assert "#PBS -l walltime=00:02:00\n" in script


# Torque-style wrappers


@pytest.mark.parametrize(
    ("named", "status", "words"),
    [
        (None, Status.GREEN, "not told"),
        ("cpu", Status.GREEN, "queue cpu is up"),
        ("off", Status.YELLOW, "queue 'off' is down"),
        ("nope", Status.RED, "no queue 'nope'"),
    ],
)
def test_wrappers_tell_little_of_queues(named: str | None, status: Status, words: str) -> None:
    queues = {
        name: Queue(name, False, state, None) for name, state in (("cpu", "up"), ("off", "down"))
    }
    verdict = torque.judge_submission(named, queues)
    assert verdict.status is status
    assert words in verdict.message
    assert ("--queue: cpu" in verdict.advice) == (status is not Status.GREEN)


def test_wrappers_that_are_not_there_are_named(
    tmp_path: Path, site_folders: SiteFolders, shared: Path
) -> None:
    for name in ("qsub", "qdel"):
        (tmp_path / name).touch(mode=0o755)
    commands = {name: str(tmp_path / name) for name in ("qsub", "qstat", "qdel")}
    part = {"type": "pbs", "dialect": "torque", "commands": commands}
    content = {"name": "p", "scheduler": part, "paths": {"shared_dir": str(shared)}}
    write(site_folders.user / "p.yaml", json.dumps(content))
    subject = Subject(load_settings(), site=load_site("p"))
    finding = step(torque.CHECKS.commands, subject)
    assert (finding.status, f"{tmp_path}/qstat: there is no" in finding.message) == (
        *(Status.RED, True),
    )
    (tmp_path / "qstat").touch(mode=0o755)
    assert step(torque.CHECKS.commands, subject).status is Status.GREEN
