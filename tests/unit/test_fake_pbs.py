"""The fake PBS runs jobs for real, and fails on demand."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_pbs import FakePBS
from tests.fake_pbs.server.processes import of_session
from tests.waiting import until

SLEEP = "#!/bin/bash\nsleep 60\n"


@pytest.fixture
def pbs(tmp_path: Path) -> Iterator[FakePBS]:
    with FakePBS(tmp_path / "pbs", kill_delay=1.0, check_interval=0.1) as fake:
        yield fake
        assert not fake.errors()


def listed(pbs: FakePBS, *words: str) -> dict[str, Any]:
    """Jobs of the JSON answer."""
    answer = pbs.run("qstat", *words, "-f", "-F", "json").stdout
    return dict(json.loads(answer).get("Jobs", {}))


def test_a_job_runs_and_its_output_appears_at_its_end(pbs: FakePBS) -> None:
    script = "#!/bin/bash\necho out $PWD; echo err >&2\nwhile [ ! -e go ]; do sleep 0.05; done\n"
    job = pbs.qsub(script, "-N", "hello")
    pbs.wait_for(job, "R")
    spool = pbs.folder / "spool" / f"{job}.OU"
    until(lambda: spool.exists() and spool.read_text(), 5, "output in the spool")
    assert not (pbs.home / "hello.o1").exists()
    (pbs.home / "go").touch()
    ended = pbs.wait_for(job, "F")
    assert (ended["Exit_status"], ended["substate"], ended["run_count"]) == (0, 92, 1)
    assert (pbs.home / "hello.o1").read_text() == f"out {pbs.home}\n"
    assert (pbs.home / "hello.e1").read_text() == "err\n"
    assert (pbs.home / "hello.o1").stat().st_mode & 0o777 == 0o600


def test_kept_output_is_written_in_place_while_the_job_runs(pbs: FakePBS, tmp_path: Path) -> None:
    output = tmp_path / "run" / "job.out"
    output.parent.mkdir()
    job = pbs.qsub(f"echo one; echo two >&2\n{SLEEP}", "-k", "oed", "-j", "oe", "-o", str(output))
    until(lambda: output.exists() and output.read_text() == "one\ntwo\n", 5, "output in place")
    assert pbs.run("qdel", job).returncode == 0


def test_kept_output_without_d_goes_to_the_home_folder_in_spite_of_its_path(pbs: FakePBS) -> None:
    job = pbs.qsub("echo hi\n", "-N", "koe", "-k", "oe", "-o", str(pbs.home / "elsewhere"))
    assert "elsewhere" in pbs.wait_for(job, "F")["Output_Path"]
    assert (pbs.home / "koe.o1").read_text() == "hi\n"
    assert not (pbs.home / "elsewhere").exists()


def test_output_that_cannot_be_delivered_stays_with_the_node(pbs: FakePBS) -> None:
    job = pbs.qsub("echo hi\n", "-o", "/no/such/dir/out", "-j", "oe")
    ended = pbs.wait_for(job, "F")
    assert (ended["Exit_status"], ended["Stageout_status"]) == (0, 0)
    assert (pbs.folder / "undelivered" / f"{job}.OU").read_text() == "hi\n"


def test_a_job_has_the_variables_of_pbs_and_none_of_its_submitter(pbs: FakePBS) -> None:
    script = "#!/bin/bash\nenv > seen; cat $PBS_NODEFILE > nodes; umask >> nodes\n"
    asked = ["-l", "select=2:ncpus=2:mpiprocs=2", "-v", "FOO=bar"]
    pbs.run("qsub", *asked, stdin=script, variables={"SECRET": "yes"}, folder=Path("/tmp"))
    pbs.wait_for("1.pbshost", "F")
    seen = dict(line.split("=", 1) for line in (pbs.home / "seen").read_text().splitlines())
    assert seen["PBS_JOBID"] == "1.pbshost"
    assert (seen["PBS_O_WORKDIR"], seen["PWD"]) == ("/tmp", str(pbs.home))
    assert (seen["NCPUS"], seen["PBS_ENVIRONMENT"], seen["FOO"]) == ("2", "PBS_BATCH", "bar")
    assert "SECRET" not in seen
    assert "PBS_ARRAY_INDEX" not in seen
    assert (pbs.home / "nodes").read_text() == "pbshost\n" * 4 + "0077\n"


def test_a_job_over_its_walltime_is_told_and_then_killed(pbs: FakePBS) -> None:
    script = "#!/bin/bash\ntrap 'echo told' TERM\nfor i in $(seq 600); do sleep 0.1; done\n"
    job = pbs.qsub(script, "-l", "walltime=00:00:01", "-N", "late")
    ended = pbs.wait_for(job, "F")
    assert (ended["Exit_status"], ended["substate"]) == (-29, 93)
    assert ended["comment"].endswith("and exceeded resource walltime")
    assert (pbs.home / "late.o1").read_text() == "told\n"


def test_a_job_over_its_memory_is_ended(pbs: FakePBS) -> None:
    fill = "#!/bin/bash\nx=$(head -c 80000000 /dev/zero | tr '\\0' x)\nsleep 60\n"
    job = pbs.qsub(fill, "-l", "select=1:ncpus=1:mem=40mb")
    ended = pbs.wait_for(job, "F", 30)
    assert ended["Exit_status"] == -27
    assert ended["comment"].endswith("and exceeded resource mem")


def test_a_queued_job_that_is_deleted_never_ran(pbs: FakePBS) -> None:
    job = pbs.qsub(SLEEP, "-l", "select=1:ncpus=999")
    assert pbs.run("qdel", job).returncode == 0
    ended = pbs.job(job)
    assert (ended["job_state"], ended["substate"]) == ("F", 91)
    assert "Exit_status" not in ended


def test_a_running_job_that_is_deleted_ends_with_all_its_processes(pbs: FakePBS) -> None:
    job = pbs.qsub("#!/bin/bash\ntrap '' TERM\nsleep 61 &\nsleep 61\nsleep 61\n")
    session = pbs.wait_for(job, "R")["session_id"]
    until(lambda: len(of_session(session)) >= 4, 5, "the job's processes")
    assert pbs.run("qdel", job).returncode == 0
    assert pbs.job(job)["job_state"] == "R"
    ended = pbs.wait_for(job, "F")
    assert (ended["Exit_status"], ended["substate"]) == (271, 91)
    assert " and terminated by " in ended["comment"]
    assert not of_session(session)


def test_each_deletion_of_a_job_puts_off_its_kill(tmp_path: Path) -> None:
    """Seen in OpenPBS: MoM's terminate_job() counts kill_delay anew."""
    with FakePBS(tmp_path, kill_delay=2.0) as pbs:
        job = pbs.qsub("#!/bin/bash\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
        pbs.wait_for(job, "R")
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            assert pbs.run("qdel", job).returncode == 0
            assert pbs.job(job)["job_state"] == "R"
        assert pbs.wait_for(job, "F")["substate"] == 91


def test_a_rerun_job_has_a_second_run_with_the_status_of_the_first(pbs: FakePBS) -> None:
    script = "#!/bin/bash\necho run\nwhile [ ! -e go ]; do sleep 0.05; done\n"
    job = pbs.qsub(script, "-N", "again", "-j", "oe")
    pbs.wait_for(job, "R")
    assert pbs.run("qrerun", job, variables={"FAKE_PBS_AS": "other"}).returncode == 159
    pbs.rerun(job)
    until(lambda: pbs.job(job).get("run_count") == 2, 10, "second run")
    assert pbs.wait_for(job, "R")["Exit_status"] == -11
    (pbs.home / "go").touch()
    ended = pbs.wait_for(job, "F")
    assert (ended["Exit_status"], ended["run_count"]) == (0, 2)
    assert (pbs.home / "again.o1").read_text() == "run\nrun\n"
    fixed = pbs.qsub(SLEEP, "-r", "n")
    assert pbs.as_manager("qrerun", fixed).returncode == 190


def test_the_jobs_of_a_node_that_crashed_run_again_when_it_is_back(pbs: FakePBS) -> None:
    job = pbs.qsub(SLEEP)
    session = pbs.wait_for(job, "R")["session_id"]
    pbs.crash_node()
    until(lambda: not of_session(session), 5, "no process left")
    assert pbs.job(job)["job_state"] == "R"
    assert listed(pbs)[job]["job_state"] == "R"
    pbs.start_node()
    until(lambda: pbs.job(job)["run_count"] == 2, 10, "second run")
    assert pbs.wait_for(job, "R")["Exit_status"] == -4


def test_an_array_runs_each_element_with_its_index(pbs: FakePBS) -> None:
    array = pbs.qsub("#!/bin/bash\necho $PBS_ARRAY_INDEX $PBS_ARRAY_ID\n", "-J", "0-2", "-N", "a")
    assert array == "1[].pbshost"
    assert pbs.wait_for(array, "F")["Exit_status"] == 0
    assert [(pbs.home / f"a.o1.{i}").read_text() for i in range(3)] == [
        f"{i} {array}\n" for i in range(3)
    ]
    assert list(listed(pbs, "-x")) == [array]
    jobs = listed(pbs, "-x", "-t", array)
    assert list(jobs) == [array, *(f"1[{i}].pbshost" for i in range(3))]
    assert {job["job_state"] for job in jobs.values()} == {"F"}


def test_an_element_is_deleted_alone_and_an_array_with_what_is_left(pbs: FakePBS) -> None:
    array = pbs.qsub(SLEEP, "-J", "0-2", "-l", "select=1:ncpus=4")
    pbs.wait_for("1[1].pbshost", "R")
    assert pbs.job("1[2].pbshost")["job_state"] == "Q"
    assert pbs.run("qdel", "1[0]").returncode == 0
    pbs.wait_for("1[0].pbshost", "X")
    assert pbs.wait_for(array, "B")["array_state_count"].endswith("Expired:1")
    pbs.wait_for("1[2].pbshost", "R")
    assert pbs.run("qdel", array).returncode == 0
    assert pbs.wait_for(array, "F")["substate"] == 91


def test_jobs_wait_for_room_in_order(pbs: FakePBS) -> None:
    first = pbs.qsub(SLEEP, "-l", "select=2:ncpus=4:ngpus=2", "-q", "gpuq")
    second = pbs.qsub("true\n", "-l", "select=1:ncpus=1:ngpus=1")
    assert pbs.wait_for(first, "R")["queue"] == "gpuq"
    assert pbs.job(second)["job_state"] == "Q"
    assert pbs.job(second)["comment"].startswith("Not Running: Insufficient amount of resource")
    assert pbs.run("qdel", first).returncode == 0
    pbs.wait_for(second, "F")


def test_a_job_may_be_held_and_released_or_wait_for_its_time(pbs: FakePBS) -> None:
    job = pbs.qsub("true\n", "-h")
    assert (pbs.job(job)["job_state"], pbs.job(job)["Hold_Types"]) == ("H", "u")
    assert pbs.run("qrls", job).returncode == 0
    pbs.wait_for(job, "F")
    when = time.time() + 2
    later = pbs.qsub("true\n", "-a", time.strftime("%Y%m%d%H%M.%S", time.localtime(when)))
    assert pbs.job(later)["job_state"] == "W"
    assert pbs.wait_for(later, "F")["stime"] >= int(when)


def test_nothing_comes_from_a_server_that_is_down_while_jobs_go_on(pbs: FakePBS) -> None:
    job = pbs.qsub("echo hi\n", "-N", "on")
    with pbs.switched("down"):
        assert pbs.run("qstat", "-f", "-F", "json").returncode == 255
        assert pbs.run("qsub", stdin="true\n").returncode == 162
        until((pbs.home / "on.o1").exists, 10, "the job's output")
    assert pbs.wait_for(job, "F")["Exit_status"] == 0


def test_without_history_a_finished_job_is_unknown(pbs: FakePBS) -> None:
    pbs.switch("no-history")
    job = pbs.qsub("true\n")
    until(lambda: not pbs.job(job), 10, "the job is gone")
    done = pbs.run("qstat", "-f", job)
    assert (done.returncode, done.stderr) == (153, b"qstat: Unknown Job Id 1.pbshost\n")


def test_a_lost_answer_leaves_a_job_that_is_found_by_its_name(pbs: FakePBS) -> None:
    pbs.switch("lose-answer")
    done = pbs.run("qsub", "-N", "uniq-7f3a", "-h", stdin="true\n")
    assert (done.returncode, done.stdout) == (-9, b"")
    assert pbs.run("qselect", "-N", "uniq-7f3a").stdout == b"1.pbshost\n"
    assert pbs.run("qsub", "-h", stdin="true\n").stdout == b"2.pbshost\n"


def test_a_neighbours_attributes_break_the_json_and_not_the_wide_text(pbs: FakePBS) -> None:
    job = pbs.qsub(SLEEP)
    for damage in ("name", "project", "bytes", "escape"):
        with pbs.switched("damage", damage):
            answer = pbs.run("qstat", "-f", "-F", "json").stdout
            with pytest.raises(ValueError, match=r"^.+"):
                json.loads(answer.decode(), parse_constant=_no_constant)
            text = pbs.run("qstat", "-f", "-w").stdout.decode(errors="replace")
            assert f"\nJob Id: {job}\n" in text
    assert list(listed(pbs)) == [job]


def _no_constant(word: str) -> float:
    raise ValueError(word)


def test_a_hanging_program_goes_on_when_it_may(pbs: FakePBS) -> None:
    pbs.switch("hang", "qstat")
    assert pbs.run("qselect").returncode == 0
    waiting = subprocess.Popen([pbs.bin / "qstat"], env={"PATH": os.environ["PATH"]})
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    pbs.off("hang")
    assert waiting.wait(10) == 0


def test_a_program_needs_no_variables_and_leaves_no_open_files_behind(pbs: FakePBS) -> None:
    """Whoever waits for the end of qsub's output does not wait for the job."""
    begun = time.monotonic()
    done = subprocess.run(
        [pbs.bin / "qsub"], input=SLEEP.encode(), env={}, capture_output=True, check=True
    )
    assert done.stdout == b"1.pbshost\n"
    assert time.monotonic() - begun < 30
    assert [call[1] for call in pbs.calls()] == ["qsub"]


def test_nodes_may_be_on_hosts_of_their_own(tmp_path: Path) -> None:
    nodes = {f"n{i}": {"host": f"n{i}", "ncpus": 2, "mem": "4gb", "ngpus": 0} for i in (1, 2)}
    with FakePBS(tmp_path, nodes=nodes) as pbs:
        asked = ["-l", "select=2:ncpus=1", "-l", "place=scatter"]
        job = pbs.qsub("cat $PBS_NODEFILE\n", *asked, "-N", "two")
        assert pbs.wait_for(job, "F")["exec_host"] == "n1/0+n2/1"
        assert (pbs.home / "two.o1").read_text() == "n1\nn2\n"


def test_the_end_of_the_server_ends_its_jobs(tmp_path: Path) -> None:
    with FakePBS(tmp_path) as pbs:
        job = pbs.qsub(SLEEP)
        session = pbs.wait_for(job, "R")["session_id"]
        assert of_session(session)
    until(lambda: not of_session(session), 5, "no process left")
