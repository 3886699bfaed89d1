"""Ends of jobs on the embedded scheduler that were not the script's own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from hpc_bridge.errors import CommandError
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.schedulers.base import Answer
from tests.embedded.local_site import GATED, LONG, Site, sleepers, until


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
    assert time.monotonic() - begun > 4
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
