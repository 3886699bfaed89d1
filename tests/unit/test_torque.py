"""The dialect torque: what the wrappers of Slurm 24.11 answered, and what they are asked."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest

from hpc_bridge.cluster import Cluster
from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    InvalidJobSpec,
    SchedulerUnavailable,
    SettingsError,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobSpec, JobState
from hpc_bridge.schedulers.base import Answer, Commands
from hpc_bridge.schedulers.torque import TorqueScheduler
from hpc_bridge.script import render
from hpc_bridge.sites.scheduler_part import SchedulerPart
from hpc_bridge.transports.local import LocalTransport
from tests.unit.rendered_scripts import CONTEXT

TORQUE = TorqueScheduler()
DATA = Path(__file__).parents[1] / "data" / "torque"


@cache
def recorded(program: str) -> dict[str, Answer]:
    found = {}
    for line in (DATA / f"{program}.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        raw = bytes.fromhex(entry["stdout_hex"]) if "stdout_hex" in entry else None
        stdout = entry["stdout"] if raw is None else raw.decode(errors="replace")
        found[entry["name"]] = Answer((program,), entry["exit_code"], stdout, entry["stderr"])
    return found


def script(**asked: object) -> str:
    return render(JobSpec(name="hbabc", **asked), CONTEXT, packaged="torque.sh.j2")


def resources(**asked: object) -> list[str]:
    lines = script(**asked).splitlines()
    return [line.removeprefix("#PBS -l ") for line in lines if line.startswith("#PBS -l ")]


def test_live_jobs_are_told_by_the_table() -> None:
    found = TORQUE.parse_status(recorded("qstat")["user"])
    told = {status.name: (status.state, status.scheduler_state) for status in found.values()}
    assert {name: told[name] for name in told if name.startswith("hb")} == {
        "hbruns": (JobState.RUNNING, "R"),
        "hbgpu": (JobState.RUNNING, "R"),
        "hbheld": (JobState.PENDING, "Q"),
        "hblater": (JobState.PENDING, "Q"),
        "hbafter": (JobState.PENDING, "Q"),
        "hbtoolong": (JobState.PENDING, "Q"),
        "hbarray": (JobState.RUNNING, "R"),
    }


def test_a_job_that_is_over_has_left_the_queue_but_is_found_by_its_name() -> None:
    """C and U say nothing of how, and C comes before the last of its processes has gone."""
    answer = recorded("qstat")["user"]
    over = {status.name: status for status in TORQUE.parse_find(answer)}
    live = {status.name for status in TORQUE.parse_status(answer).values()}
    for name, word in (("hbfails", "C"), ("hbmemory", "U")):
        assert name not in live
        assert (over[name].state, over[name].scheduler_state) == (JobState.LOST, word)
        assert "does not say how" in (over[name].reason or "")


def test_a_user_without_jobs_has_none() -> None:
    assert TORQUE.parse_status(recorded("qstat")["other_user"]) == {}


def test_a_state_that_is_not_known_hides_no_other_job() -> None:
    answer = recorded("qstat")["user"]
    changed = answer.stdout.replace(" R 00:00", " X 00:00", 1)
    with pytest.raises(UnexpectedOutput, match=" X 00:00") as caught:
        TORQUE.parse_status(Answer(("qstat",), 0, changed, ""))
    assert len(caught.value.readable) > 5


@pytest.mark.parametrize(
    ("program", "parse"), [("qstat", TORQUE.parse_status), ("qdel", TORQUE.parse_cancel)]
)
def test_a_controller_that_is_away_is_not_an_empty_queue(program: str, parse: object) -> None:
    with pytest.raises(SchedulerUnavailable, match="Slurm does not answer"):
        parse(recorded(program)["down"])  # type: ignore[operator]


def test_what_qsub_answers() -> None:
    answers = recorded("qsub")
    assert TORQUE.parse_submit(answers["runs"]) == JobId(answers["runs"].stdout.strip())
    with pytest.raises(SchedulerUnavailable):
        TORQUE.parse_submit(answers["down"])
    with pytest.raises(SubmissionRefused, match="invalid partition specified: nope") as caught:
        TORQUE.parse_submit(answers["unknown_queue"])
    assert "The command was" not in str(caught.value)
    with pytest.raises(SubmissionRefused, match="Invalid time limit"):
        TORQUE.parse_submit(answers["bad_walltime"])
    with pytest.raises(UnexpectedOutput):
        TORQUE.parse_submit(Answer(("qsub",), 0, "7 on cluster other\n", ""))


def test_what_qdel_answers() -> None:
    answers = recorded("qdel")
    for name in ("waiting", "running", "over", "unknown", "some_unknown"):
        TORQUE.parse_cancel(answers[name])
    with pytest.raises(CommandError, match="numeric"):
        TORQUE.parse_cancel(answers["not_an_id"])


def test_queues_and_what_waits_for_them() -> None:
    answer = recorded("qstat")["queues"]
    assert answer.exit_code == 153
    queues = TORQUE.parse_queues(answer)
    assert list(queues) == ["cpu", "gpu", "scavenge", "scavrq"]
    assert all((queue.state, queue.walltime_seconds) == ("up", 86400) for queue in queues.values())
    demand = TORQUE.parse_demand(answer)
    assert (demand["gpu"].running, demand["gpu"].waiting) == (1, 0)
    assert demand["cpu"].waiting >= 4
    with pytest.raises(SchedulerUnavailable):
        TORQUE.parse_queues(recorded("qstat")["down_queues"])


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        ({}, []),
        ({"nodes": 2, "tasks_per_node": 4}, ["nodes=2:ppn=4"]),
        ({"tasks": 8, "tasks_per_node": 4}, ["nodes=2:ppn=4"]),
        ({"tasks": 3, "cpus_per_task": 2}, ["mppwidth=3", "mppdepth=2"]),
        ({"gpus": 2}, ["nodes=1:gpus=2"]),
        ({"gpus": 2, "nodes": 2}, ["nodes=2:gpus=1"]),
        ({"gpus_per_node": 2, "nodes": 2}, ["nodes=2:gpus=2"]),
        ({"memory": "16G", "walltime": "90m"}, ["mem=16gb", "walltime=01:30:00"]),
    ],
)
def test_what_a_request_becomes(asked: dict[str, object], lines: list[str]) -> None:
    assert resources(**asked) == lines


@pytest.mark.parametrize(
    "asked",
    [
        *({name: "x"} for name in ("reservation", "constraint", "nodelist", "licenses")),
        {"memory_per_cpu": "1G"},
        {"exclusive": True},
        {"tasks": 7, "tasks_per_node": 4},
        {"gpus": 3, "nodes": 2},
        {"gpus": 2, "tasks": 2},
    ],
    ids=lambda asked: "+".join(asked),
)
def test_what_the_wrappers_cannot_be_asked_for_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(InvalidJobSpec, match=next(iter(asked))):
        script(**asked)


@pytest.mark.parametrize("line", ["-l mem=1gb", "-m e; id", "-W depend=afterok:1", "-N x", "-m $x"])
def test_directives_that_break_something_are_refused(line: str) -> None:
    TORQUE.check_directives(["-m e", "-p 5"])
    with pytest.raises(InvalidJobSpec):
        TORQUE.check_directives([line])


# A qsub that says how it was called; the others as the site has them.
QSUB = """#!/bin/sh
for word; do last=$word; echo "$word"; done > "$CALLED"
env | grep -E '^(SBATCH|SLURM|PBS)' | sort >> "$CALLED"
pwd >> "$CALLED"
cat "$last" > "$CALLED.script"
echo 42
"""


def test_the_scripts_directives_become_options_in_the_outputs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qsub = tmp_path / "qsub"
    qsub.write_text(QSUB)
    qsub.chmod(0o755)
    folder = tmp_path / "a run's $folder"
    folder.mkdir()
    monkeypatch.setenv("CALLED", str(tmp_path / "called"))
    monkeypatch.setenv("SBATCH_PARTITION", "leaked")
    text = (
        f"#!/bin/bash\n#PBS -N hbabc\n#PBS -o {folder}/job.out\n#PBS -j oe\n#PBS -l nodes=1:ppn=2\n"
        "#PBS -l mem=1gb\n\necho *\n#PBS -q later\n"
    )
    commands = Commands.of({"qsub": (str(qsub),)})
    cluster = Cluster(TorqueScheduler(commands), LocalTransport())
    assert cluster.submit(text, "hbabc") == JobId("42")
    assert (tmp_path / "called").read_text().split("\n") == [
        *("-N", "hbabc", "-j", "oe", "-l", "nodes=1:ppn=2,mem=1gb", "-o", "job.out", "-N", "hbabc"),
        *("/dev/stdin", "SBATCH_EXPORT=NONE", "SBATCH_IGNORE_PBS=1", "SBATCH_OPEN_MODE=append"),
        *(str(folder), ""),
    ]
    assert (tmp_path / "called.script").read_text() == text


def test_only_waiting_jobs_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = recorded("qstat")["by_id"].stdout.rstrip("\n")
    running = table.split("\n")[2]
    waiting = running[:62] + "Q" + running[63:]
    (tmp_path / "table").write_text(f"{table}\n{waiting.replace(running.split()[0], '7 ', 1)}\n")
    for name, text in (
        ("qstat", f"cat {tmp_path}/table"),
        ("qdel", f"echo $* > {tmp_path}/deleted"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Cluster(TORQUE, LocalTransport()).cancel([JobId("7"), JobId("32")], only_waiting=True)
    assert (tmp_path / "deleted").read_text().split() == ["7"]


def test_without_the_wrappers_it_is_said_which_package_has_them(tmp_path: Path) -> None:
    commands = Commands.of({"qstat": (str(tmp_path / "none"),)})
    with pytest.raises(CommandNotFound, match=r"the profile says scheduler\.commands\.qstat"):
        Cluster(TorqueScheduler(commands), LocalTransport()).status()


def test_there_are_no_records_and_no_arrays() -> None:
    cluster = Cluster(TORQUE, LocalTransport())
    assert (cluster.has_accounting, cluster.has_arrays, cluster.array_limit()) == (False, False, 1)


def test_the_profile_names_the_dialect() -> None:
    SchedulerPart(type="pbs", dialect="torque", commands={"qsub": ["/opt/qsub"]})
    for wrong in (
        {"type": "slurm", "dialect": "torque"},
        {"type": "pbs", "dialect": "torque", "gpu_resource": "gpus"},
        {"type": "pbs", "dialect": "torque", "add_directives": ["-l mem=1gb"]},
        {"type": "pbs", "dialect": "torque", "commands": {"qselect": ["/opt/qselect"]}},
    ):
        with pytest.raises(ValueError, match=r"dialect|gpu_resource|add_directives|never called"):
            SchedulerPart(**wrong)
    with pytest.raises(SettingsError):
        TorqueScheduler(Commands.of({"qselect": ("qselect",)}))
