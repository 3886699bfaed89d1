"""Jobs and nodes of the fake PBS look as the real one's did, in every state that was recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_pbs import FakePBS
from tests.fake_pbs.server.forms import Row
from tests.unit.pbs_recorded import (
    RECORDED,
    RESEARCHER,
    RESULT,
    records,
    same,
    stdout_of,
)
from tests.waiting import until

SLEEP = "#!/bin/bash\nsleep 60\n"
STUBBORN = "#!/bin/bash\ntrap '' TERM\nsleep 60\n"
"""Ends only by KILL, so that there is time to look at a job that is being deleted."""


class Day:
    """Jobs brought into all the states once; ``job`` by the name of their recording."""

    def __init__(self, pbs: FakePBS) -> None:
        self.pbs = pbs
        self.job: dict[str, str] = {}

    def submit(self, name: str, script: str, recording: str) -> str:
        command = RECORDED[recording]["command"]
        words = [word.replace("28.pbshost", self.job.get("running", "")) for word in command[1:]]
        words = [re.sub(r"^/home/researcher/w", str(self.pbs.home), word) for word in words]
        done = self.pbs.run("qsub", *words, stdin=script, variables=RESEARCHER)
        assert done.returncode == 0, done
        self.job[name] = done.stdout.decode().strip()
        return self.job[name]

    def ask(self, program: str, *words: str) -> RESULT:
        return self.pbs.run(program, *words, variables=RESEARCHER)

    def answers(self, name: str, recording: str) -> list[str]:
        """How the answer about a job differs from the recording."""
        entry = RECORDED[recording]
        command = [self.job[name] if "pbshost" in word else word for word in entry["command"]]
        done = self.ask(*command)
        differences = [] if done.returncode == entry["exit_code"] else [f"exit {done.returncode}"]
        mine, theirs = shape(done.stdout.decode("latin-1")), shape(stdout_of(entry))
        differences += [f"- {line}" for line in theirs if line not in mine]
        differences += [f"+ {line}" for line in mine if line not in theirs]
        if not differences and mine != theirs:
            differences.append(f"order: {mine}")
        return differences


_SAID = (
    "job_state queue server Checkpoint Hold_Types Join_Path Keep_Files Mail_Points Priority "
    "Rerunable substate comment run_count Stageout_status Exit_status array project depend "
    "array_state_count array_indices_submitted array_indices_remaining array_index Job_Name "
    "Job_Owner Remove_Files Resource_List.select Resource_List.place Resource_List.ncpus"
)
SAID = _SAID.split()


def shape(answer: str) -> list[str]:
    """Names in their order, and what does not depend on the day, the place or luck."""
    if answer.startswith("{"):
        jobs = json.loads(answer).get("Jobs", {}).values()
        rows = [
            row
            for job in jobs
            for name, value in job.items()
            for row in (
                [(name, r, str(v)) for r, v in value.items()]
                if isinstance(value, dict)
                else [(name, None, str(value))]
            )
        ]
    else:
        rows = [row for _, job in records(answer) for row in job]
    return list(_lines(rows))


def _lines(rows: list[Row]) -> Iterator[str]:
    for attribute, resource, value in rows:
        name = f"{attribute}.{resource}" if resource else attribute
        if attribute == "Variable_List":
            if resource is None:
                yield name
        elif attribute == "session_id" or name == "Resource_List.walltime":
            continue  # comes and goes with the moment; qalter changed the limit of one job
        elif name in SAID:
            value = re.sub(r"\w{3} \w{3} \d\d at \d\d:\d\d", "TIME", value)
            value = re.sub(r"\d+(\[\])?\.pbshost", "JOB", value)
            yield f"{name} = {re.sub(r'pbshost.[01].:', 'NODE:', value)}"
        else:
            yield name


@pytest.fixture(scope="module")
def pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePBS]:
    with FakePBS(tmp_path_factory.mktemp("pbs"), kill_delay=1.0, check_interval=0.2) as fake:
        yield fake
        assert not fake.errors()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Day]:
    """A server that has nothing to do yet."""
    with FakePBS(tmp_path / "pbs", kill_delay=1.0, check_interval=0.2) as fake:
        yield Day(fake)
        assert not fake.errors()


@pytest.fixture(scope="module")
def quiet(pbs: FakePBS) -> Day:
    """For jobs that end by themselves."""
    return Day(pbs)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """One job that runs, and others that wait for this and that: to be looked at only."""
    with FakePBS(tmp_path_factory.mktemp("day")) as fake:
        yield _waiting_jobs(Day(fake))
        assert not fake.errors()


def _waiting_jobs(day: Day) -> Day:
    day.submit("running", STUBBORN, "qsub.running")
    day.pbs.wait_for(day.job["running"], "R")
    day.submit("held", SLEEP, "qsub.hold")
    day.submit("queued_never", SLEEP, "qsub.queued")
    day.submit("waiting", SLEEP, "qsub.waiting")
    day.submit("depend_held", SLEEP, "qsub.depend")
    day.submit("depend_any", "true\n", "qsub.depend_any")
    day.submit("depend_notok", "true\n", "qsub.depend_notok")
    return day


@pytest.mark.parametrize("form", ["qstat_f", "qstat_f_json"])
@pytest.mark.parametrize("name", ["held", "queued_never", "waiting", "depend_held", "running"])
def test_a_job_that_waits_or_runs_looks_as_recorded(name: str, form: str, day: Day) -> None:
    assert not day.answers(name, f"{name}.{form}")


def test_the_plain_table_has_the_recorded_columns(day: Day) -> None:
    head, lines = _table(day.ask("qstat").stdout.decode())
    expected, recorded = _table(RECORDED["qstat_default"]["stdout"])
    assert head == expected
    named = {re.sub(r"^\d+\.pbshost +", "", line): None for line in recorded}
    mine = [re.sub(r"^\d+\.pbshost +", "", line) for line in lines]
    known = [line for line in mine if line in named]
    assert len(known) == 7, mine


def _table(text: str) -> tuple[str, list[str]]:
    first, second, *lines = text.splitlines()
    return f"{first}\n{second}", lines


def test_queues_and_the_server_look_as_recorded(day: Day) -> None:
    queue = json.loads(day.ask("qstat", "-Q", "-f", "-F", "json").stdout)["Queue"]["workq"]
    expected = json.loads(RECORDED["qstat_Q_f_json"]["stdout"])["Queue"]["workq"]
    assert list(queue) == list(expected)
    assert list(queue["resources_assigned"]) == list(expected["resources_assigned"])
    assert _words(queue["state_count"]) == _words(expected["state_count"])
    server = json.loads(day.ask("qstat", "-B", "-f", "-F", "json").stdout)["Server"]["pbshost"]
    recorded = json.loads(RECORDED["qstat_B_f_json"]["stdout"])["Server"]["pbshost"]
    counted = ("total_jobs", "state_count", "resources_assigned")
    assert list(server) == list(recorded)
    assert {k: v for k, v in server.items() if k not in counted} == {
        k: v for k, v in recorded.items() if k not in counted
    }
    for option in ("-Q", "-B"):
        lines = day.ask("qstat", option).stdout.decode().splitlines()
        expected_lines = RECORDED[f"qstat_{option[1]}"]["stdout"].splitlines()
        assert lines[:2] == expected_lines[:2]
        assert _words(lines[2]) == _words(expected_lines[2])


def _words(text: str) -> str:
    """Digits and blanks before them as one sign."""
    return re.sub(r" *\d+", "#", text)


def test_a_job_looks_as_recorded_when_rerun_and_deleted_and_so_do_those_that_depend_on_it(
    alone: Day,
) -> None:
    day = _waiting_jobs(alone)
    running = day.job["running"]
    day.pbs.rerun(running)
    until(lambda: day.pbs.job(running).get("run_count") == 2, 10, "second run")
    day.pbs.wait_for(running, "R")
    for form in ("qstat_f", "qstat_f_json"):
        assert not day.answers("running", f"after_qrerun_running.{form}")
    assert day.ask("qdel", running).returncode == 0
    assert not day.answers("running", "deleted_right_after.qstat_xf")
    day.pbs.wait_for(running, "F")
    assert not day.answers("running", "deleted_while_running.qstat_xf")
    assert not day.answers("running", "deleted_while_running.qstat_f")
    day.pbs.wait_for(day.job["depend_held"], "F")
    assert not day.answers("depend_held", "depend_afterok_failed.qstat_xf")
    for name, recording in (("depend_any", "afterany_done"), ("depend_notok", "afternotok")):
        day.pbs.wait_for(day.job[name], "F")
        assert not day.answers(name, f"depend_{recording}.qstat_xf_json")
    assert day.ask("qdel", day.job["queued_never"]).returncode == 0
    assert not day.answers("queued_never", "deleted_while_queued.qstat_xf")
    assert not day.answers("queued_never", "deleted_while_queued.qstat_f_json")


@pytest.mark.parametrize(
    ("recording", "script", "asked"),
    [
        ("finished_ok", "true\n", "qsub.ok_stdin"),
        ("finished_exit3", "#!/bin/bash\necho bye; exit 3\n", "qsub.exit3"),
        ("exit255.finished", "exit 255\n", "exit255.qsub"),
        ("noshebang.finished", "true\n", "noshebang.qsub"),
        ("badshebang.finished", "#!/no/such/interpreter\n", "badshebang.qsub"),
        ("selfkill9.finished", "#!/bin/bash\nkill -9 $$\n", "selfkill9.qsub"),
        ("k_oe.finished", "true\n", "k_oe.qsub"),
        ("k_doe_joe.finished", "true\n", "k_doe_joe.qsub"),
        ("o_dir.finished", "true\n", "o_dir.qsub"),
        ("R_oe.finished", "exit 1\n", "R_oe.qsub"),
        ("outdir_missing.finished", "true\n", "outdir_missing.qsub"),
    ],
)
def test_a_job_that_ended_looks_as_recorded(
    recording: str, script: str, asked: str, quiet: Day
) -> None:
    job = quiet.submit(recording, script, asked)
    quiet.pbs.wait_for(job, "F")
    if recording == "outdir_missing.finished":  # recorded under another name
        recording, quiet.job["cwd_gone.finished"] = "cwd_gone.finished", job
    assert not quiet.answers(recording, f"{recording}.qstat_xf")
    assert not quiet.answers(recording, f"{recording}.qstat_xf_json")


def test_a_job_over_its_walltime_looks_as_recorded(quiet: Day) -> None:
    job = quiet.pbs.run(
        "qsub", "-N", "wtkillplain", "-l", "walltime=1", stdin=SLEEP, variables=RESEARCHER
    )
    quiet.job["late"] = job.stdout.decode().strip()
    quiet.pbs.wait_for(quiet.job["late"], "F")
    assert not quiet.answers("late", "walltime_killed_plain.qstat_xf")


def test_an_array_looks_as_recorded(alone: Day) -> None:
    script = '#!/bin/bash\nwhile [ ! -e go ]; do sleep 0.1; done\n[ "$PBS_ARRAY_INDEX" -ne 1 ]\n'
    (alone.pbs.folder / "sequence").write_text("41")  # as wide as the recorded number
    array = alone.submit("array", script, "array.qsub")
    number = array.split("[")[0]
    subjobs = [f"{number}[{index}].pbshost" for index in range(4)]
    for job in subjobs:
        alone.pbs.wait_for(job, "R")
    for form in ("qstat_f", "qstat_f_json", "qstat_tf_json"):
        assert not alone.answers("array", f"array.running.{form}")
    table = alone.ask("qstat", "-t", array).stdout.decode()
    assert table.replace(number, "41") == RECORDED["array.running.qstat_t"]["stdout"]
    table = alone.ask("qstat", array).stdout.decode()
    assert table.replace(number, "41") == RECORDED["array.running.qstat_plain"]["stdout"]
    (alone.pbs.home / "go").touch()
    alone.pbs.wait_for(array, "F")
    recorded = RECORDED["array.finished.qstat_xtf_json"]
    mine = json.loads(alone.ask("qstat", "-x", "-t", "-f", "-F", "json", array).stdout)["Jobs"]
    theirs = json.loads(recorded["stdout"])["Jobs"]
    assert [job.replace(number, "41") for job in mine] == list(theirs)
    for job in (array, subjobs[0], subjobs[1]):
        assert list(mine[job]) == [
            name
            for name in theirs[job.replace(number, "41")]
            if name in mine[job] or name != "session_id"
        ]
    assert mine[array]["Exit_status"] == theirs["41[].pbshost"]["Exit_status"] == 1
    assert mine[array]["substate"] == theirs["41[].pbshost"]["substate"] == 93
    same_words = alone.ask("qstat", array)
    expected = RECORDED["array.finished.qstat_plain"]
    assert same_words.returncode == expected["exit_code"]
    assert same_words.stderr.decode().replace(number, "41") == expected["stderr"]


def test_a_job_that_is_held_later_looks_as_recorded(alone: Day) -> None:
    with alone.pbs.switched("scheduling-off"):
        job = alone.submit("later", "true\n", "qhold_later.qsub")
        assert alone.ask("qhold", job).returncode == 0
        for form in ("qstat_f", "qstat_f_json"):
            held = [line[:32] for line in alone.answers("later", f"qhold_later.{form}")]
            assert held == ["- comment = Job held by research", "+ comment = Job held by research"]
        assert alone.ask("qrls", job).returncode == 0
        for form in ("qstat_f", "qstat_f_json"):
            assert not alone.answers("later", f"qhold_later.released.{form}")


def test_an_element_that_never_ran_looks_as_recorded(alone: Day) -> None:
    (alone.pbs.folder / "sequence").write_text("147")  # as wide as the recorded number
    script = "#!/bin/bash\nwhile [ ! -e go.$PBS_ARRAY_INDEX ]; do sleep 0.05; done\n"
    with alone.pbs.switched("scheduling-off"):
        array = alone.submit("part", script + "exit $PBS_ARRAY_INDEX\n", "array_part.qsub")
        assert alone.ask("qdel", array.replace("[]", "[3]")).returncode == 0
        for form in ("qstat_tf", "qstat_tf_json"):
            assert not alone.answers("part", f"array_part.waiting.{form}")
    running = [array.replace("[]", f"[{index}]") for index in range(3)]
    for index, stage in enumerate(("begun", "one_over", "one_failed")):
        alone.pbs.wait_for(running[index], "R")
        for form in ("qstat_tf", "qstat_tf_json"):
            differences = set(alone.answers("part", f"array_part.{stage}.{form}"))
            # recorded a moment earlier in the element's start
            assert differences <= {"- substate = 41", "+ substate = 42"}
        (alone.pbs.home / f"go.{index}").touch()
    alone.pbs.wait_for(array, "F")
    for form in ("qstat_xtf", "qstat_xtf_json"):
        assert not alone.answers("part", f"array_part.finished.{form}")
    same(alone.ask("qstat", "-x", "-t", array), RECORDED["array_part.finished.qstat_t"])


def test_what_is_ending_or_an_element_that_has_ended_is_not_deleted(alone: Day) -> None:
    element, running, job = (f"{name}.pbshost" for name in ("10[0]", "10[1]", "15"))
    (alone.pbs.folder / "sequence").write_text("10")
    script = '#!/bin/bash\n[ "$PBS_ARRAY_INDEX" = 0 ] || sleep 60\n'
    alone.pbs.qsub(script, "-J", "0-1")
    alone.pbs.wait_for(running, "R")
    alone.pbs.wait_for(element, "X")
    same(alone.pbs.run("qdel", element), RECORDED["array.qdel_finished_element"])
    (alone.pbs.folder / "sequence").write_text("15")
    with alone.pbs.switched("stay-exiting", "5"):
        alone.pbs.qsub("true\n")
        alone.pbs.wait_for(job, "E")
        for name in ("ending.qdel", "ending.qdel_and_unknown"):
            same(alone.pbs.run(*RECORDED[name]["command"]), RECORDED[name])
    assert alone.pbs.job(running)["job_state"] == "R"


def test_a_deleted_array_looks_as_recorded(alone: Day) -> None:
    array = alone.submit("gone", STUBBORN, "array_qdel.qsub")
    number = array.split("[")[0]
    for index in (1, 3, 5, 7):
        alone.pbs.wait_for(f"{number}[{index}].pbshost", "R")
    assert alone.ask("qdel", f"{number}[1]").returncode == 0
    assert not alone.answers("gone", "array_qdel.after_sub.qstat_xtf_json")
    assert alone.ask("qdel", array).returncode == 0
    alone.pbs.wait_for(array, "F")
    for form in ("qstat_xf", "qstat_xf_json", "qstat_xtf_json"):
        assert not alone.answers("gone", f"array_qdel.finished.{form}")


@pytest.mark.parametrize(
    ("name", "config", "switch"),
    [
        ("queue_stopped", {"queues": {"workq": {"started": False}}}, None),
        ("max_run.second", {"limits": {"max_run": 0}}, None),
        ("scheduling_off", {}, "scheduling-off"),
    ],
)
def test_a_job_that_may_not_start_says_why_as_recorded(
    name: str, config: dict[str, Any], switch: str | None, tmp_path: Path
) -> None:
    with FakePBS(tmp_path, **config) as pbs:
        if switch is not None:
            pbs.switch(switch)
        done = pbs.run("qsub", stdin="true\n", variables=RESEARCHER)
        mine = pbs.run("qstat", "-f", "-F", "json", done.stdout.decode().strip()).stdout.decode()
        assert shape(mine) == shape(RECORDED[f"limits.{name}.qstat_f_json"]["stdout"])


def test_orders_about_finished_and_foreign_jobs_are_refused_as_recorded(quiet: Day) -> None:
    job = quiet.submit("done", "true\n", "qsub.exit3")
    quiet.pbs.wait_for(job, "F")
    for name in ("qdel_finished", "qstat_finished_no_x"):
        command = [word.replace("32.pbshost", job) for word in RECORDED[name]["command"]]
        done = quiet.ask(*command)
        assert done.returncode == RECORDED[name]["exit_code"]
        assert done.stderr.decode().replace(job, "32.pbshost") == RECORDED[name]["stderr"]
    other = quiet.pbs.run("qsub", "-h", stdin="true\n", variables={"FAKE_PBS_AS": "other"})
    theirs = other.stdout.decode().strip()
    for name in ("qdel_other_users_job", "qrerun_user"):
        recorded = RECORDED[name]
        done = quiet.ask(recorded["command"][0], theirs)
        assert done.returncode == recorded["exit_code"]
        id_there = recorded["command"][1]
        assert done.stderr.decode().replace(theirs, id_there) == recorded["stderr"]
    several = quiet.ask("qstat", "-x", "-f", "-F", "json", theirs, "9999", job)
    assert several.returncode == RECORDED["qstat_several_ids_some_unknown"]["exit_code"]
    assert several.stderr.decode() == RECORDED["qstat_several_ids_some_unknown"]["stderr"]
    assert list(json.loads(several.stdout)["Jobs"]) == [theirs, job]


# Nodes


def test_nodes_look_as_recorded(alone: Day) -> None:
    job = alone.submit("on_node", SLEEP, "qsub.running")
    alone.pbs.wait_for(job, "R")
    for options, name in ((["-a", "-v"], "pbsnodes_av_json"), (["-a"], "pbsnodes_a_json")):
        mine = json.loads(alone.ask("pbsnodes", *options, "-F", "json").stdout)
        theirs = json.loads(RECORDED[name]["stdout"])
        assert list(mine) == list(theirs)
        assert list(mine["nodes"]) == list(theirs["nodes"])
        for node, entry in theirs["nodes"].items():
            assert list(mine["nodes"][node]) == list(entry)
            assert mine["nodes"][node]["resources_available"] == entry["resources_available"]
    assert alone.ask("qdel", "-W", "force", job).returncode == 0
    alone.pbs.wait_for(job, "F")
    assert alone.pbs.job(job)["Exit_status"] == 265


def test_a_dead_node_looks_as_recorded(tmp_path: Path) -> None:
    with FakePBS(tmp_path) as pbs:
        pbs.wait_for(pbs.qsub(SLEEP), "R")
        pbs.crash_node()
        mine = json.loads(pbs.run("pbsnodes", "-a", "-v", "-F", "json").stdout)["nodes"]
        theirs = json.loads(RECORDED["mom_down.pbsnodes_json"]["stdout"])["nodes"]
        assert {n: list(e) for n, e in mine.items()} == {n: list(e) for n, e in theirs.items()}
        assert {e["state"] for e in mine.values()} == {"down"}
        same(pbs.run("pbsnodes", "-l"), RECORDED["mom_down.pbsnodes_l"])
        waiting = pbs.qsub(SLEEP)
        expected = records(RECORDED["mom_down.queued.qstat_f"]["stdout"])[0][1]
        assert pbs.job(waiting)["comment"] == {n: v for n, _, v in expected}["comment"]
