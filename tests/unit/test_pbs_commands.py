"""The commands that PBS is asked with; the programs of shell run for real on stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpc_bridge.errors import (
    CommandNotFound,
    InvalidJobSpec,
    SchedulerUnavailable,
    SettingsError,
)
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.schedulers.base import Answer, Commands
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.pbs_programs import FEW, MANY
from tests.unit.pbs_answers import PBS, SINCE, answer

COMMANDS = {
    "status": PBS.status_command("me"),
    "find": PBS.find_command("hbabc", "me"),
    "find history": PBS.find_history_command("hbabc", "me", SINCE),
    "history": PBS.history_command([JobId("1.server")], "me", SINCE),
    "usage": PBS.usage_command([JobId("1.server")], "me", SINCE),
    "queues": PBS.queue_command(),
    "demand": PBS.demand_command(),
    "limits": PBS.array_limit_command(),
    "cancel": PBS.cancel_command([JobId("1.server")]),
}
IDS = [JobId("4[0].server"), JobId("4[1].server"), JobId("5.server"), JobId("66.server")]


def record(job: str, owner: str = "me", state: str = "R") -> str:
    fields = f"    Job_Name = hb\n    Job_Owner = {owner}@host\n    job_state = {state}\n"
    return f"Job Id: {job}\n{fields}    queue = workq\n    Resource_List.ncpus = 2\n\n"


class Stand:
    """Programs named as PBS's that note their arguments and say what they were told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()

    def says(self, name: str, stdout: str = "", *, exit_code: int = 0, stderr: str = "") -> None:
        for kind, text in (("out", stdout), ("err", stderr)):
            (self.folder / f"{name}.{kind}").write_text(text, encoding="utf-8")
        program = self.folder / "bin" / name
        base = self.folder / name
        program.write_text(
            f'#!/bin/sh\necho "$*" >> {base}.calls\ncat {base}.out\ncat {base}.err >&2\n'
            f"exit {exit_code}\n"
        )
        program.chmod(0o700)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def answer(self, argv: list[str]) -> Answer:
        # In a folder with files that an id with brackets would stand for as a pattern.
        where = self.folder / "cwd"
        where.mkdir(exist_ok=True)
        for name in ("40.server", "41.server"):
            (where / name).touch()
        environment = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            argv, cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        return Answer(tuple(argv), done.returncode, done.stdout, done.stderr)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_shapes_an_output_is_pinned_by_the_command_itself(command: list[str]) -> None:
    whole = " ".join(command)
    programs = sum(whole.count(f" {name} ") for name in ("qstat", "qselect", "qdel", "pbsnodes"))
    assert programs >= 1
    assert whole.count("env --unset=PBS_DPREFIX LC_ALL=C TZ=UTC ") == programs


def test_the_name_is_said_on_the_command_line_and_nothing_is_left_behind() -> None:
    command = PBS.submit_command("hbabc")
    assert command[-5:] == ["-f", "-C", "#PBS", "-N", "hbabc"]
    # Times of -a are those of the zone of qsub itself.
    assert not [word for word in command if word.startswith("TZ=")]


# status


def test_a_few_jobs_are_asked_for_by_id(stand: Stand) -> None:
    stand.says("qselect", "4[].server\n5.server\n")
    stand.says("qstat", record("4[0].server") + record("5.server"))
    found = PBS.parse_status(stand.answer(PBS.status_command("me")))
    assert set(found) == {JobId("4[0].server"), JobId("5.server")}
    assert stand.calls("qselect") == ["-u me"]
    assert stand.calls("qstat") == ["-f -w -t 4[].server 5.server"]


def test_many_are_picked_out_of_one_answer_about_all(stand: Stand) -> None:
    ids = [f"{number}.server" for number in range(FEW + 1)]
    others = record("90.server", owner="other") + record("91.server", owner="me2")
    stand.says("qselect", "\n".join(ids))
    stand.says("qstat", "".join(map(record, ids)) + others)
    given = stand.answer(PBS.status_command("me"))
    assert {job.value for job in PBS.parse_status(given)} == set(ids)
    assert "other" not in given.stdout
    assert stand.calls("qstat") == ["-f -w -t"]


def test_without_a_job_one_small_question_is_enough(stand: Stand) -> None:
    stand.says("qselect")
    stand.says("qstat", record("1.server"))
    assert PBS.parse_status(stand.answer(PBS.status_command("me"))) == {}
    assert stand.calls("qstat") == []


@pytest.mark.parametrize("ids", [1, FEW + 1])
def test_the_exit_code_is_that_of_the_command_that_failed(stand: Stand, ids: int) -> None:
    stand.says("qselect", "".join(f"{number}.server\n" for number in range(ids)))
    stand.says("qstat", record("1.server"), exit_code=255, stderr="no\n")
    given = stand.answer(PBS.status_command("me"))
    assert (given.exit_code, given.stderr) == (255, "no\n")
    stand.says("qselect", exit_code=162, stderr="down\n")
    given = stand.answer(PBS.status_command("me"))
    assert (given.exit_code, given.stdout, given.stderr) == (162, "", "down\n")


def test_a_job_that_ends_between_the_two_questions_is_no_error(stand: Stand) -> None:
    stand.says("qselect", "4.server\n5.server\n")
    gone = "qstat: Unknown Job Id 5.server\n"
    stand.says("qstat", record("4.server"), exit_code=153, stderr=gone)
    found = PBS.parse_status(stand.answer(PBS.status_command("me")))
    assert set(found) == {JobId("4.server")}


def test_a_name_of_a_user_is_no_part_of_a_program(stand: Stand) -> None:
    stand.says("qselect", "".join(f"{number}.server\n" for number in range(9)))
    stand.says("qstat")
    command = PBS.status_command("a'; touch pwned; \"$(touch pwned)\n")
    stand.answer(command)
    assert not list(stand.folder.rglob("pwned"))


def test_missing_commands_say_what_to_do(tmp_path: Path) -> None:
    nowhere = PBSScheduler(Commands.of({"qselect": [str(tmp_path / "qselect")]}))
    given = Stand(tmp_path).answer(nowhere.status_command("me"))
    with pytest.raises(CommandNotFound, match="login node"):
        PBS.parse_status(given)


# the others


def test_records_of_some_jobs_are_asked_for_by_id_and_an_array_once(stand: Stand) -> None:
    stand.says("qstat", record("4[0].server", state="X") + record("5.server"))
    PBS.parse_history(stand.answer(PBS.history_command(IDS, "me", SINCE)))
    assert stand.calls("qstat") == ["-x -f -w -t 4[].server 5.server 66.server"]


def test_records_of_many_jobs_are_picked_out_of_one_answer(stand: Stand) -> None:
    ids = [JobId(f"{number}.server") for number in range(100, 101 + MANY)] + IDS
    listed = ["4[].server", "4[0].server", "5.server", "66.server", "6.server", "100.server"]
    stand.says("qstat", "".join(map(record, listed)))
    found = PBS.parse_history(stand.answer(PBS.history_command(ids, "me", SINCE)))
    assert {job.value for job in found} == set(listed) - {"4[].server", "6.server"}
    assert stand.calls("qstat") == ["-x -f -w -t"]


def test_a_job_is_found_by_its_name(stand: Stand) -> None:
    stand.says("qselect", "5.server\n6.server\n")
    stand.says("qstat", record("5.server") + record("6.server"))
    found = PBS.parse_find(stand.answer(PBS.find_command("hbabc", "me")))
    assert [status.job_id.value for status in found] == ["6.server", "5.server"]
    stand.answer(PBS.find_history_command("hbabc", "me", SINCE))
    assert stand.calls("qselect") == ["-u me -N hbabc", "-x -u me -N hbabc"]
    assert stand.calls("qstat")[1].startswith("-x -f -w -t ")


def test_a_name_that_no_job_has_is_an_empty_answer(stand: Stand) -> None:
    stand.says("qselect", answer("qselect", "find.qselect_N_none").stdout)
    assert PBS.parse_find(stand.answer(PBS.find_command("hbabc", "me"))) == []


def test_only_waiting_jobs_are_deleted_of_an_array_its_waiting_elements(stand: Stand) -> None:
    stand.says("qselect", "4[1].server\n4[2].server\n5.server\n7.server\n")
    stand.says("qdel")
    wanted = [JobId("4[].server"), JobId("5.server"), JobId("66.server")]
    given = stand.answer(PBS.cancel_command(wanted, only_waiting=True))
    PBS.parse_cancel(given)
    (asked,) = stand.calls("qselect")
    assert asked.endswith("-T -s HQTW")
    assert stand.calls("qdel") == ["4[1].server 4[2].server 5.server"]


def test_nothing_is_deleted_when_none_of_the_jobs_waits(stand: Stand) -> None:
    stand.says("qselect", "7.server\n")
    stand.says("qdel", exit_code=1, stderr="called")
    PBS.parse_cancel(stand.answer(PBS.cancel_command([JobId("5.server")], only_waiting=True)))
    assert stand.calls("qdel") == []


def test_one_element_of_an_array_is_deleted_alone(stand: Stand) -> None:
    stand.says("qselect", "4[1].server\n4[2].server\n")
    stand.says("qdel")
    stand.answer(PBS.cancel_command([JobId("4[1].server")], only_waiting=True))
    assert stand.calls("qdel") == ["4[1].server"]


def test_the_demand_is_asked_for_without_what_is_nobodys_business(stand: Stand) -> None:
    stand.says("qstat", record("1.server", owner="other", state="Q") + record("2.server"))
    given = stand.answer(PBS.demand_command())
    assert "other" not in given.stdout
    demand = PBS.parse_demand(given)["workq"]
    assert (demand.waiting, demand.waiting_cpus, demand.running, demand.running_cpus) == (
        *(1, 2),
        *(1, 2),
    )


# ids, arrays, directives


def test_ids_of_arrays_and_their_elements() -> None:
    array = JobId("41[].server.example.org")
    element = PBS.element_id(array, 3)
    assert element == JobId("41[3].server.example.org")
    assert PBS.array_id(element) == PBS.array_id(array) == array
    assert PBS.array_id(JobId("7.server")) == JobId("7.server")


@pytest.mark.parametrize(
    ("line", "jobs"),
    [
        ("#PBS -J 0-3", 4),
        ("#PBS -J 0-9%2", 10),
        ("#PBS -J 1-7:2", 4),
        ("#PBS -J0-1", 2),
        ("echo -J 0-3", 1),
        ("", 1),
    ],
)
def test_a_script_says_how_many_jobs_it_makes(line: str, jobs: int) -> None:
    assert PBS.job_count(f"#!/bin/bash\n{line}\n") == jobs


@pytest.mark.parametrize(
    "line",
    [
        *("-N other", "-Nother", "-J 0-3", "-o /tmp/x", "-e x", "-j n", "-k n", "-V", "-v A=1"),
        *("-mn -N x", "-W umask=022", "-W group_list=a,block=true", "-W stageout=a@b:c", "-I"),
        *("-S /bin/csh", "-C '#X'", "-z", "-R oe"),
    ],
)
def test_what_the_package_rests_on_cannot_be_changed(line: str) -> None:
    with pytest.raises(InvalidJobSpec, match="decided by hpc-bridge"):
        PBS.check_directives([line])


@pytest.mark.parametrize("line", ["--mail-type=END", "-Z foo", "-l", "-m n extra", "-N 'x"])
def test_what_qsub_would_not_take_is_refused_before(line: str) -> None:
    with pytest.raises(InvalidJobSpec, match="qsub"):
        PBS.check_directives([line])


def test_other_directives_are_the_users() -> None:
    PBS.check_directives(["-m abe", "-M me@example.org", "-l software=x", "-W group_list=proj"])
    PBS.check_directives(["-l select=1:ncpus=4", "-p -5", "-P project", "-h"])


def test_a_site_calls_the_commands_as_it_likes() -> None:
    site = PBSScheduler(Commands.of({"qstat": ["/opt/site/wrap me", "qstat"]}))
    assert "'/opt/site/wrap me' qstat" in site.status_command("me")[2]
    assert site.array_limit_command()[-6:-4] == ["/opt/site/wrap me", "qstat"]
    with pytest.raises(SettingsError, match="did you mean qstat"):
        PBSScheduler(Commands.of({"qsta": ["x"]}))
    with pytest.raises(SettingsError, match="gpu_resource"):
        PBSScheduler(gpu_resource="n gpus")


def test_states_of_a_waiting_job_are_those_that_are_cancelled_while_waiting() -> None:
    waiting = {"Q", "H", "W", "T"}
    records = "".join(record(f"{n}.server", state=state) for n, state in enumerate(waiting))
    found = PBS.parse_status(Answer(("qstat",), 0, records, ""))
    assert all(status.state in (JobState.PENDING, JobState.HELD) for status in found.values())


def test_a_command_that_was_killed_leaves_open_whether_there_is_a_job() -> None:
    for exit_code in (-9, 137):
        with pytest.raises(SchedulerUnavailable, match="killed before it answered"):
            PBS.parse_submit(Answer(("qsub",), exit_code, "", ""))
