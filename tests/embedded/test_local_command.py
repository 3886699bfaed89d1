"""The embedded scheduler's command with real jobs: their life, requeues, records, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_bridge.errors import SubmissionRefused
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.schedulers.local import LocalScheduler
from tests.embedded.local_site import DEADLINE, GATED, Site, until

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
    (machine,) = queues["local"].nodes
    assert machine.is_idle
    assert machine.free_cpus == machine.cpus > 0


def test_forty_quick_jobs_all_run(site: Site) -> None:
    jobs = [site.submit("true") for _ in range(40)]
    site.end(jobs[-1])
    for job in jobs:
        site.end(job)
    assert {status.state for status in site.statuses().values()} == {JobState.COMPLETED}
    assert len(site.statuses()) == 40
    assert list((site.state / "queue").iterdir()) == []


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
