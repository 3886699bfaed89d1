"""The embedded scheduler's command with real jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from hpc_bridge.errors import CommandError, SubmissionRefused
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.local import LocalScheduler

T = TypeVar("T")

DEADLINE = 20.0
GATED = "until [ -e gate ]; do sleep 0.02; done\n"
"""A script that runs until the test opens its gate."""

LONG = f"120.{os.getpid()}"
"""Seconds that a script sleeps; they tell its processes from those of other test runs."""


class Site:
    """A state directory, a folder to work in, and the scheduler as the cluster uses it."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.state = folder / "state"
        self.work = folder / "work"
        self.work.mkdir()
        self.scheduler = LocalScheduler(self.state, cpus=cpus)

    def run(self, argv: list[str], stdin: str = "", **environment: str) -> Answer:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            cwd=self.work,
            env={**os.environ, **environment},
        )
        return Answer(tuple(argv), done.returncode, done.stdout, done.stderr)

    def command(self, *words: str) -> Answer:
        return self.run([*self.scheduler.submit_command("hbname")[:-1], *words])

    def submit(self, body: str, *directives: str, shebang: str = "#!/bin/bash") -> JobId:
        lines = [shebang, *(f"#SBATCH {directive}" for directive in directives), body]
        answer = self.run(self.scheduler.submit_command("hbname"), "\n".join(lines) + "\n")
        return self.scheduler.parse_submit(answer)

    def statuses(self) -> dict[JobId, JobStatus]:
        return self.scheduler.parse_status(self.run(self.scheduler.status_command("me")))

    def status(self, job: JobId) -> JobStatus:
        return self.statuses()[job]

    def wait(self, job: JobId, *states: JobState) -> JobStatus:
        def reached() -> JobStatus | None:
            status = self.status(job)
            return status if status.state in states else None

        return until(reached, f"job {job} to be {states}")

    def end(self, job: JobId) -> JobStatus:
        def ended() -> JobStatus | None:
            status = self.status(job)
            return status if status.state.is_terminal else None

        return until(ended, f"the end of job {job}")

    def cancel(self, *jobs: JobId) -> None:
        self.scheduler.parse_cancel(self.run(self.scheduler.cancel_command(jobs)))

    def open_gate(self) -> None:
        (self.work / "gate").touch()

    def output(self, job: JobId) -> str:
        return (self.work / f"slurm-{job}.out").read_text()

    def keeper(self, job: JobId) -> int:
        words = [f"--state={self.state}", "keep", job.value]
        found = processes(lambda argv: any(argv[at : at + 3] == words for at in range(len(argv))))
        # Beside the keeper there may be its child that waits for a lock.
        (keeper,) = [pid for pid in found if parent(pid) not in {None, *found}]
        return keeper

    def members(self, job: JobId) -> list[int]:
        mark = f"HPC_BRIDGE_LOCAL_JOB={self.state}/jobs/{job}"
        return processes(lambda entries: mark in entries, "environ")


def until(condition: Callable[[], T | None], what: str) -> T:
    """What ``condition`` gives as soon as it is true; fails after the deadline."""
    give_up = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def processes(wanted: Callable[[list[str]], bool], file: str = "cmdline") -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / file).read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            if wanted(words):
                found.append(int(folder.name))
    return found


def sleepers() -> list[int]:
    return processes(lambda argv: argv[:2] == ["sleep", LONG])


def parent(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(tmp_path, cpus=getattr(request, "param", 2))
    yield site
    live = [job for job, status in site.statuses().items() if not status.state.is_terminal]
    if live:
        site.cancel(*live)
        for job in live:
            for process in site.members(job):
                os.kill(process, signal.SIGKILL)
            site.end(job)


# a job's life


def test_a_job_goes_from_pending_through_running_to_completed(site: Site) -> None:
    blocker = site.submit(GATED, "-c2")
    job = site.submit("echo done", "--job-name=second")
    site.wait(blocker, JobState.RUNNING)
    waiting = site.wait(job, JobState.PENDING)
    site.open_gate()
    ended = site.end(job)
    assert waiting.name == "second"
    assert waiting.started is waiting.nodes is waiting.exit_code is None
    assert ended.state is JobState.COMPLETED
    assert (ended.exit_code, ended.signal, ended.reason) == (0, None, None)
    assert ended.nodes == os.uname().nodename.split(".")[0]
    assert ended.submitted is not None
    assert ended.started is not None
    assert ended.ended is not None
    assert ended.submitted <= ended.started <= ended.ended
    assert datetime.now(UTC) - ended.ended < timedelta(minutes=1)
    assert site.output(job) == "done\n"


def test_a_script_that_fails_keeps_its_exit_code_and_signal(site: Site) -> None:
    failing = site.submit("exit 7")
    killed = site.submit("kill -KILL $$")
    failed = site.end(failing)
    assert (failed.state, failed.exit_code, failed.signal) == (JobState.FAILED, 7, None)
    assert failed.reason == "NonZeroExitCode"
    failed = site.end(killed)
    assert (failed.state, failed.exit_code, failed.signal) == (JobState.FAILED, 0, 9)
    assert failed.reason == "RaisedSignal:9"


def test_ids_increase_and_history_find_and_queues_answer(site: Site) -> None:
    first = site.submit("true", "-J twin")
    second = site.submit("true", "-J twin")
    other = site.submit("true", "-J other")
    for job in (first, second, other):
        site.end(job)
    assert [int(job.value) for job in (first, second, other)] == [1, 2, 3]
    scheduler = site.scheduler
    found = scheduler.parse_find(site.run(scheduler.find_command("twin", "me")))
    assert [status.job_id for status in found] == [second, first]
    since = datetime.now(UTC)
    command = scheduler.history_command([first, other, JobId("99")], "me", since)
    assert set(scheduler.parse_history(site.run(command))) == {first, other}
    queues = scheduler.parse_queues(site.run(scheduler.queue_command()))
    assert queues["local"].is_default
    assert queues["local"].walltime_seconds is None


def test_forty_quick_jobs_all_run(site: Site) -> None:
    jobs = [site.submit("true") for _ in range(40)]
    site.end(jobs[-1])
    for job in jobs:
        site.end(job)
    assert {status.state for status in site.statuses().values()} == {JobState.COMPLETED}
    assert len(site.statuses()) == 40
    assert list((site.state / "queue").iterdir()) == []


# slots and order


def test_never_more_jobs_at_once_than_cpus(site: Site) -> None:
    both = "until [ $(grep -c + log) -ge 2 ]; do sleep 0.01; done"
    body = f"echo + >> log; {both}; sleep 0.05; echo - >> log"
    for job in [site.submit(body) for _ in range(8)]:
        site.end(job)
    running = [0]
    for line in (site.work / "log").read_text().split():
        running.append(running[-1] + (1 if line == "+" else -1))
    assert max(running) == 2
    assert running[-1] == 0
    assert len(running) == 17


@pytest.mark.parametrize("site", [1], indirect=True)
def test_jobs_start_in_the_order_in_which_they_came(site: Site) -> None:
    blocker = site.submit(GATED)
    jobs = [site.submit(f"echo {number} >> log") for number in range(12)]
    site.wait(blocker, JobState.RUNNING)
    site.open_gate()
    for job in jobs:
        site.end(job)
    assert (site.work / "log").read_text().split() == [str(number) for number in range(12)]


def test_a_small_job_does_not_overtake_a_large_one(site: Site) -> None:
    small = site.submit(GATED)
    large = site.submit("echo large >> log", "-c", "2")
    last = site.submit("echo last >> log")
    site.wait(small, JobState.RUNNING)
    until(lambda: site.status(large).reason == "Resources", "the large job to be first")
    until(lambda: site.status(last).reason == "Priority", "the last job to wait behind it")
    site.open_gate()
    site.end(last)
    assert (site.work / "log").read_text().split() == ["large", "last"]


def test_a_waiting_job_that_is_cancelled_lets_the_others_pass(site: Site) -> None:
    blocker = site.submit(GATED, "-c2")
    jobs = [site.submit("true", "-c2") for _ in range(3)]
    site.wait(blocker, JobState.RUNNING)
    site.cancel(jobs[1])
    site.open_gate()
    assert [site.end(job).state for job in jobs] == [
        JobState.COMPLETED,
        JobState.CANCELLED,
        JobState.COMPLETED,
    ]


def test_a_held_job_waits_for_its_release(site: Site) -> None:
    job = site.submit("true", "--hold", "--job-name=held")
    later = site.submit("true")
    assert site.status(job).state is JobState.HELD
    assert site.end(later).state is JobState.COMPLETED
    assert site.command("release", job.value).exit_code == 0
    assert site.end(job).state is JobState.COMPLETED


def test_a_waiting_job_can_be_held(site: Site) -> None:
    blocker = site.submit(GATED, "-c2")
    job = site.submit("true")
    later = site.submit("true")
    site.wait(blocker, JobState.RUNNING)
    assert site.command("hold", job.value).exit_code == 0
    site.wait(job, JobState.HELD)
    site.open_gate()
    assert site.end(later).state is JobState.COMPLETED
    assert site.status(job).state is JobState.HELD
    assert site.command("release", job.value).exit_code == 0
    assert site.end(job).state is JobState.COMPLETED


def test_a_job_begins_when_it_was_asked_to(site: Site) -> None:
    job = site.submit("true", "--begin=now+1", "--time=60-0")
    later = site.submit("true")
    waiting = site.wait(job, JobState.PENDING)
    assert waiting.estimated_start is not None
    assert waiting.estimated_start > datetime.now(UTC)
    assert site.end(later).state is JobState.COMPLETED
    ended = site.end(job)
    assert ended.started is not None
    assert ended.started >= waiting.estimated_start - timedelta(milliseconds=1)


# ends that were not the script's own


def test_the_walltime_ends_a_job(site: Site) -> None:
    job = site.submit(
        "trap 'echo warned' USR1; trap 'echo ended; exit 3' TERM\n" + GATED,
        "--time=0:02",
        "--signal=B:USR1@1",
    )
    ended = site.end(job)
    assert (ended.state, ended.exit_code) == (JobState.TIMEOUT, 3)
    assert ended.reason == "TimeLimit"
    lines = site.output(job).split("\n")
    assert lines.index("warned") < lines.index("ended")
    assert "User defined signal" not in site.output(job), "only the shell was to be warned"
    assert site.members(job) == []


def test_a_job_that_ignores_term_is_killed_with_all_it_started(site: Site) -> None:
    body = (
        "trap '' TERM\n"
        f"setsid --fork bash -c 'trap \"\" TERM; env -u HPC_BRIDGE_LOCAL_JOB sleep {LONG}' \n"
        f"sleep {LONG} & sleep {LONG}"
    )
    job = site.submit(body)
    until(lambda: len(sleepers()) == 3, "what the job starts")
    begun = time.monotonic()
    site.cancel(job)
    site.wait(job, JobState.COMPLETING)
    ended = site.end(job)
    assert (ended.state, ended.signal) == (JobState.CANCELLED, 9)
    assert ended.scheduler_state == f"CANCELLED by {os.getuid()}"
    assert ended.cancelled_by == str(os.getuid())
    assert 4 < time.monotonic() - begun < 10
    assert sleepers() == []


def test_what_a_script_leaves_behind_dies_with_the_job(site: Site) -> None:
    job = site.submit(f"setsid --fork sleep {LONG}; sleep {LONG} & exit 0")
    assert site.end(job).state is JobState.COMPLETED
    assert sleepers() == []


def test_a_pending_job_that_is_cancelled_never_runs(site: Site) -> None:
    blocker = site.submit(GATED, "-c2")
    job = site.submit("touch ran")
    site.wait(blocker, JobState.RUNNING)
    site.cancel(job)
    cancelled = site.status(job)
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.started is None
    site.open_gate()
    site.end(blocker)
    assert not (site.work / "ran").exists()
    site.cancel(job, blocker)
    assert site.status(job).ended == cancelled.ended


def test_a_cancel_of_waiting_jobs_leaves_the_others_alone(site: Site) -> None:
    running = site.submit(GATED, "-c2")
    site.wait(running, JobState.RUNNING)
    waiting, held = site.submit("touch ran"), site.submit("touch ran", "--hold")
    command = site.scheduler.cancel_command([running, waiting, held], only_waiting=True)
    site.scheduler.parse_cancel(site.run(command))
    ended = [site.status(job) for job in (waiting, held)]
    assert [status.state for status in ended] == [JobState.CANCELLED] * 2
    assert [status.cancelled_by for status in ended] == [str(os.getuid())] * 2
    assert site.status(running).state is JobState.RUNNING
    site.open_gate()
    assert site.end(running).state is JobState.COMPLETED
    site.scheduler.parse_cancel(site.run(command))
    assert site.status(running).state is JobState.COMPLETED
    assert not (site.work / "ran").exists()


def test_a_cancel_of_waiting_jobs_reaches_one_that_was_requeued(site: Site) -> None:
    job = site.submit("echo started >> starts; touch ready\n" + GATED, "-c2")
    until((site.work / "ready").exists, "the first start")
    blocker = site.submit(GATED, "-c2")
    assert site.command("requeue", job.value).exit_code == 0
    site.wait(blocker, JobState.RUNNING)
    command = site.scheduler.cancel_command([job], only_waiting=True)
    site.scheduler.parse_cancel(site.run(command))
    assert site.status(job).state is JobState.CANCELLED
    site.open_gate()
    site.end(blocker)
    assert (site.work / "starts").read_text() == "started\n"


def test_a_cancel_of_waiting_jobs_ignores_the_unknown_and_refuses_nonsense(site: Site) -> None:
    site.end(site.submit("true"))
    command = site.scheduler.cancel_command([JobId("77")], only_waiting=True)
    site.scheduler.parse_cancel(site.run(command))
    answer = site.command("cancel", "--waiting", "-x")
    assert answer.exit_code == 1
    assert "Invalid job id specified: -x" in answer.stderr


def test_a_running_job_that_is_cancelled_may_clean_up(site: Site) -> None:
    job = site.submit("trap 'echo cleaned; exit 0' TERM\necho ready > ready\n" + GATED)
    until((site.work / "ready").exists, "the trap")
    site.cancel(job)
    ended = site.end(job)
    assert (ended.state, ended.exit_code) == (JobState.CANCELLED, 0)
    assert "cleaned" in site.output(job).split("\n")


def test_a_stopped_job_can_be_cancelled(site: Site) -> None:
    job = site.submit("touch ready; kill -STOP $$; exec sleep 60")
    until((site.work / "ready").exists, "the script")
    site.cancel(job)
    assert site.end(job).signal == signal.SIGTERM


def test_cancelling_what_is_unknown_is_no_error_but_nonsense_is(site: Site) -> None:
    job = site.submit("true")
    site.cancel(JobId("77"), job)
    with pytest.raises(CommandError, match="Invalid job id specified: -x"):
        site.scheduler.parse_cancel(
            Answer((), 1, "", "local: error: Invalid job id specified: -x\nlocal: error: more")
        )


def test_a_signal_reaches_the_script(site: Site) -> None:
    job = site.submit("trap 'echo got; exit 0' USR1\ntouch ready\n" + GATED)
    until((site.work / "ready").exists, "the trap")
    assert site.command("signal", "USR1", job.value).exit_code == 0
    assert site.end(job).state is JobState.COMPLETED
    assert "got" in site.output(job).split("\n")
    assert "is not running" in site.command("signal", "USR1", job.value).stderr


def test_a_job_whose_keeper_is_killed_is_a_node_failure(site: Site) -> None:
    job = site.submit(f"setsid --fork sleep {LONG}; echo $$ > leader; touch ready\n" + GATED)
    until((site.work / "ready").exists, "the script")
    leader = Path("/proc", (site.work / "leader").read_text().strip())
    os.kill(site.keeper(job), signal.SIGKILL)
    until(lambda: not leader.exists(), "the script to die with its keeper, unasked")
    ended = site.end(job)
    assert ended.state is JobState.NODE_FAIL
    assert ended.reason is not None
    assert "vanished" in ended.reason
    until(lambda: site.members(job) == [], "the death of what the job started")
    assert site.status(job) == ended
    assert site.end(site.submit("true", "-c2")).state is JobState.COMPLETED


def test_a_waiting_job_whose_keeper_is_killed_does_not_stop_the_queue(site: Site) -> None:
    blocker = site.submit(GATED, "-c2")
    site.wait(blocker, JobState.RUNNING)
    jobs = [site.submit("true", "-c2") for _ in range(3)]
    until(lambda: site.status(jobs[0]).reason == "Resources", "the first to wait for slots")
    until(lambda: site.status(jobs[1]).reason == "Priority", "the second to wait for the first")
    os.kill(site.keeper(jobs[0]), signal.SIGKILL)
    os.kill(site.keeper(jobs[1]), signal.SIGKILL)
    site.open_gate()
    assert site.end(jobs[2]).state is JobState.COMPLETED
    assert site.end(jobs[0]).state is JobState.NODE_FAIL
    assert site.end(jobs[1]).state is JobState.NODE_FAIL


# what a job gets


def test_nothing_of_the_submitter_leaks_into_the_job(site: Site) -> None:
    inherited = os.open(site.work, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    argv = site.scheduler.submit_command("hbname")
    script = (
        "#!/bin/bash\n#SBATCH --ntasks=1 -c 2 -t 5 --chdir=.\n"
        "env -0 > environment; umask > umask; ls -l /proc/$$/fd > descriptors;"
        " trap > traps; cat; pwd"
    )
    done = subprocess.run(
        argv,
        input=script,
        text=True,
        capture_output=True,
        cwd=site.work,
        pass_fds=[inherited],
        umask=0o027,
        env={**os.environ, "MARKER": "leak", "SLURM_JOB_ID": "outer", "LANG": "C.UTF-8"},
        check=True,
    )
    os.close(inherited)
    job = JobId(done.stdout.strip())
    assert site.end(job).state is JobState.COMPLETED
    entries = (site.work / "environment").read_text().rstrip("\0").split("\0")
    found = dict(entry.split("=", 1) for entry in entries)
    node = os.uname().nodename.split(".")[0]
    assert found["SLURM_JOB_ID"] == found["SLURM_JOBID"] == job.value
    assert {name: found[name] for name in sorted(found) if name.startswith("SLURM_J")} | {
        "SLURM_JOB_START_TIME": "",
        "SLURM_JOB_END_TIME": "",
    } == {
        "SLURM_JOBID": job.value,
        "SLURM_JOB_CPUS_PER_NODE": "2",
        "SLURM_JOB_END_TIME": "",
        "SLURM_JOB_ID": job.value,
        "SLURM_JOB_NAME": "sbatch",
        "SLURM_JOB_NODELIST": node,
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_PARTITION": "local",
        "SLURM_JOB_START_TIME": "",
        "SLURM_JOB_UID": str(os.getuid()),
    }
    assert int(found["SLURM_JOB_END_TIME"]) - int(found["SLURM_JOB_START_TIME"]) == 300
    assert (found["SLURM_NTASKS"], found["SLURM_CPUS_PER_TASK"]) == ("1", "2")
    assert found["SLURM_CLUSTER_NAME"] == "local"
    assert found["SLURM_SUBMIT_DIR"] == str(site.work)
    assert "SLURM_RESTART_COUNT" not in found
    rest = {name for name in found if not name.startswith("SLURM")}
    assert rest == {
        "ENVIRONMENT", "HOME", "HPC_BRIDGE_LOCAL_JOB", "LANG", "LOGNAME", "PATH", "PWD", "SHELL",
        "SHLVL", "TERM", "TMPDIR", "USER", "_",
    }  # fmt: skip
    assert (site.work / "umask").read_text() == "0027\n"
    assert (site.work / "traps").read_text() == ""
    opened = (site.work / "descriptors").read_text()
    assert "pipe" not in opened
    assert str(site.state) + "/slots" not in opened
    assert f"-> {site.work}\n" not in opened
    assert site.output(job).rstrip("\n") == str(site.work)


def test_the_keeper_holds_nothing_of_the_submitter(site: Site) -> None:
    argv = site.scheduler.submit_command("hbname")
    job = site.scheduler.parse_submit(site.run(argv, "#!/bin/bash\n" + GATED, MARKER="leak"))
    site.wait(job, JobState.RUNNING)
    keeper = Path("/proc", str(site.keeper(job)))
    assert b"MARKER" not in (keeper / "environ").read_bytes()
    assert (keeper / "cwd").readlink() == Path("/")
    site.open_gate()
    site.end(job)


def test_the_whole_environment_travels_when_it_is_asked_for(site: Site) -> None:
    script = "#!/bin/bash\n#SBATCH --export=ALL\necho $MARKER $SLURM_JOB_ID $SLURM_STALE"
    argv = site.scheduler.submit_command("hbname")
    answer = site.run(argv, script, MARKER="a b", SLURM_JOB_ID="7", SLURM_STALE="x")
    job = site.scheduler.parse_submit(answer)
    site.end(job)
    assert site.output(job) == f"a b {job}\n"


def test_output_is_truncated_or_appended_as_asked(site: Site) -> None:
    for directives in (["-o out", "--open-mode=append"], ["-o out", "--open-mode=append"]):
        site.end(site.submit("echo out; echo err >&2", *directives))
    assert (site.work / "out").read_text() == "out\nerr\nout\nerr\n"
    site.end(site.submit("echo new; echo err >&2", "-o out", "-e err-%x-%j", "-J name"))
    assert (site.work / "out").read_text() == "new\n"
    assert (site.work / "err-name-3").read_text() == "err\n"


@pytest.mark.parametrize(
    ("directive", "words"),
    [
        ("--output=missing/out", "the output file missing/out cannot be opened"),
        ("--chdir=missing", "the working directory .*/missing cannot be entered"),
    ],
)
def test_a_missing_directory_fails_the_job(site: Site, directive: str, words: str) -> None:
    ended = site.end(site.submit("touch ran", directive))
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 1)
    assert ended.reason is not None
    assert re.match(words, ended.reason)
    assert not (site.work / "ran").exists()


def test_the_shebang_chooses_the_interpreter(site: Site) -> None:
    python = site.submit("import sys; print(sys.argv)", shebang=f"#!{sys.executable} -I")
    bare = site.submit("echo $BASH", shebang="# no interpreter")
    missing = site.submit("true", shebang="#!/missing/interpreter")
    assert site.end(python).state is JobState.COMPLETED
    assert site.output(python) == f"['{site.state}/jobs/{python}/script']\n"
    assert site.end(bare).state is JobState.COMPLETED
    assert site.output(bare).endswith("/bash\n")
    failed = site.end(missing)
    assert (failed.state, failed.exit_code) == (JobState.FAILED, 2)
    assert "/missing/interpreter: No such file" in site.output(missing)


# refusals


@pytest.mark.parametrize(
    ("directive", "words"),
    [
        ("--array=1-4", "the embedded scheduler has no job arrays"),
        ("--dependency=afterok:1", "the embedded scheduler has no job dependencies"),
        ("hetjob", "the embedded scheduler has no heterogeneous jobs"),
        ("--nodes=2", "has one node"),
        ("--cpus-per-task=3", "asks for 3 CPUs and this machine has 2"),
        ("--frobnicate", "unrecognized option '--frobnicate'"),
        ("--time=soon", "Invalid --time specification"),
        ("stray", "Invalid directive found in batch script: stray"),
    ],
)
def test_a_bad_directive_refuses_the_job(site: Site, directive: str, words: str) -> None:
    with pytest.raises(SubmissionRefused, match=words) as caught:
        site.submit("true", directive)
    assert caught.value.exit_code == 1
    assert not caught.value.retryable
    assert not site.state.exists()


def test_a_test_only_submission_leaves_nothing(site: Site) -> None:
    assert (
        site.run([*site.scheduler.submit_command("hbname"), "--test-only"], "#!/bin/sh\n").exit_code
        == 0
    )
    assert not site.state.exists()


def test_the_number_of_cpus_comes_from_the_environment_too(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.scheduler = LocalScheduler(site.state)
    argv = [*site.scheduler.submit_command("hbname"), "--test-only"]
    script = "#!/bin/sh\n#SBATCH -c 50\n"
    assert site.run(argv, script, HPC_BRIDGE_LOCAL_CPUS="50").exit_code == 0
    assert site.run(argv, script, HPC_BRIDGE_LOCAL_CPUS="49").exit_code == 1


# requeue, records, detachment


def test_a_running_job_is_requeued_and_starts_again(site: Site) -> None:
    body = 'echo "start ${SLURM_RESTART_COUNT-none}"; touch ready\n' + GATED
    job = site.submit(body, "--open-mode=append")
    until((site.work / "ready").exists, "the first start")
    (site.work / "ready").unlink()
    assert site.command("requeue", job.value).exit_code == 0
    until((site.work / "ready").exists, "the second start")
    site.open_gate()
    assert site.end(job).state is JobState.COMPLETED
    assert site.command("requeue", job.value).exit_code == 0
    assert site.end(job).state is JobState.COMPLETED
    assert site.output(job) == "start none\nstart 1\nstart 2\n"
    refused = site.command("requeue", site.submit("true", "--no-requeue").value)
    assert "--no-requeue" in refused.stderr


def test_a_damaged_record_hides_no_other(site: Site) -> None:
    jobs = [site.submit("true") for _ in range(3)]
    for job in jobs:
        site.end(job)
    (site.state / "jobs" / "2" / "job.json").write_text('{"id": 2')
    (site.state / "jobs" / "3" / "job.json").write_text('{"id": "three"}')
    answer = site.run(site.scheduler.status_command("me"))
    assert set(site.scheduler.parse_status(answer)) == {jobs[0]}
    assert "the record of job 2 cannot be read" in answer.stderr
    assert "the record of job 3 cannot be read" in answer.stderr
    assert site.submit("true") == JobId("4")


def test_status_shows_ended_jobs_for_five_minutes_and_a_week_is_kept(site: Site) -> None:
    jobs = [site.submit("true") for _ in range(3)]
    for job, age in zip(jobs, (timedelta(0), timedelta(minutes=6), timedelta(days=8)), strict=True):
        site.end(job)
        record = site.state / "jobs" / job.value / "job.json"
        fields = json.loads(record.read_text())
        fields["ended"] = (datetime.now(UTC) - age).isoformat()
        record.write_text(json.dumps(fields))
    assert set(site.statuses()) == {jobs[0]}
    (site.state / "cleaned").unlink()
    newest = site.submit("true")
    site.end(newest)
    history = site.scheduler.parse_history(site.command("history"))
    assert set(history) == {jobs[0], jobs[1], newest}
    assert newest == JobId("4")


def test_records_are_private(site: Site) -> None:
    site.end(site.submit("true"))
    for path in (site.state, *site.state.rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_job_outlives_the_terminal_and_the_shell_that_submitted_it(site: Site) -> None:
    ours, theirs = os.openpty()
    (site.work / "script").write_text("#!/bin/bash\n" + GATED + "echo alive")
    shell = subprocess.Popen(
        ["setsid", "--ctty", "bash", "-c", '"$@" < script > id; exec sleep 60', "bash",
         *site.scheduler.submit_command("hbname")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=site.work,
    )  # fmt: skip
    os.close(theirs)
    until(lambda: (site.work / "id").exists() and (site.work / "id").read_text(), "the job id")
    job = JobId((site.work / "id").read_text().strip())
    site.wait(job, JobState.RUNNING)
    os.close(ours)
    assert shell.wait(timeout=DEADLINE) == -signal.SIGHUP
    site.open_gate()
    assert site.end(job).state is JobState.COMPLETED
    assert site.output(job) == "alive\n"


def test_a_job_submitted_by_a_job_outlives_it(site: Site) -> None:
    inner = "#!/bin/bash\\nuntil [ -e gate ]; do sleep 0.02; done\\n"
    argv = " ".join(f"'{word}'" for word in site.scheduler.submit_command("hbname"))
    outer = site.submit(f"printf '{inner}' | {argv} > id")
    assert site.end(outer).state is JobState.COMPLETED
    job = JobId((site.work / "id").read_text().strip())
    site.wait(job, JobState.RUNNING)
    site.open_gate()
    assert site.end(job).state is JobState.COMPLETED
