"""The embedded scheduler: its commands, and how its answers are parsed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_bridge.errors import CommandError, CommandNotFound, SubmissionRefused, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.jobs.reasons import Clears
from hpc_bridge.schedulers.base import Answer, Demand, QueueNode
from hpc_bridge.schedulers.local import LocalScheduler
from hpc_bridge.schedulers.local_directives import Request
from hpc_bridge.schedulers.local_records import COLUMNS, LIVE
from tests.unit.local_jobs import NOW, record

SCHEDULER = LocalScheduler("/state", python="python", cpus=4)


def answer(stdout: str = "", exit_code: int = 0, stderr: str = "") -> Answer:
    return Answer(("local",), exit_code, stdout, stderr)


def test_commands() -> None:
    submit = SCHEDULER.submit_command("hbname")
    start = submit[:-1]
    jobs = [JobId("3"), JobId("4")]
    assert start[:2] == ["python", "-I"]
    assert start[-2:] == ["--state=/state", "--cpus=4"]
    assert Path(start[-3]).name == "local_command.py"
    assert Path(start[-3]).is_file()
    assert submit[-1] == "submit"
    assert SCHEDULER.status_command("me") == [*start, "status"]
    assert SCHEDULER.history_command(jobs, "me", datetime.now(UTC)) == [*start, "history", "3", "4"]
    assert SCHEDULER.cancel_command(jobs) == [*start, "cancel", "3", "4"]
    assert SCHEDULER.find_command("hb-1", "me") == [*start, "find", "hb-1"]
    assert SCHEDULER.queue_command() == [*start, "queues"]
    assert (SCHEDULER.name, SCHEDULER.template) == ("local", "slurm.sh.j2")
    assert LocalScheduler("/state").submit_command("hbname")[-2:] == ["--state=/state", "submit"]


def test_the_job_id_is_the_last_word() -> None:
    assert SCHEDULER.parse_submit(answer("12\n")) == JobId("12")
    with pytest.raises(UnexpectedOutput, match="printed no job id"):
        SCHEDULER.parse_submit(answer(""))


def test_a_refusal_keeps_the_words() -> None:
    refused = answer("", 1, "local: error: unrecognized option '--foo'\n")
    with pytest.raises(SubmissionRefused) as caught:
        SCHEDULER.parse_submit(refused)
    assert (
        str(caught.value) == "The embedded scheduler refused the job: unrecognized option '--foo'"
    )
    with pytest.raises(CommandNotFound):
        SCHEDULER.parse_submit(answer("", 127, "python: command not found"))


def test_a_line_of_a_record_is_parsed_back() -> None:
    lines = [
        record().line(),
        record(
            id=13,
            name="sp ace\x1f\n",
            state="CANCELLED",
            cancelled_by="1000",
            exit_code=0,
            signal=15,
            started="2026-01-01T00:00:01.250+00:00",
            ended="2026-01-01T00:00:02.000+00:00",
        ).line(),
        record(id=14, request=vars(Request(begin=NOW)), reason="BeginTime").line(),
        record(id=15, state="HELD", reason="JobHeldUser").line(),
    ]
    statuses = SCHEDULER.parse_status(answer("\n".join(lines) + "\n"))
    waiting, cancelled, later, held = statuses.values()
    assert list(statuses) == [JobId("12"), JobId("13"), JobId("14"), JobId("15")]
    assert waiting.state is JobState.PENDING
    assert waiting.submitted == datetime(2026, 1, 1, tzinfo=UTC)
    assert waiting.nodes is waiting.reason is waiting.estimated_start is None
    assert cancelled.name == "sp ace??"
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.scheduler_state == "CANCELLED by 1000"
    assert cancelled.cancelled_by == "1000"
    assert (cancelled.exit_code, cancelled.signal, cancelled.nodes) == (0, 15, "laptop")
    assert cancelled.started is not None
    assert cancelled.ended is not None
    assert cancelled.ended - cancelled.started == timedelta(seconds=0.75)
    assert later.estimated_start == datetime.fromtimestamp(NOW, UTC)
    assert held.state is JobState.HELD


def test_every_live_state_is_live_in_neutral_words() -> None:
    assert not any(JobState(state).is_terminal for state in LIVE)


def test_an_unknown_word_is_an_error_that_hides_no_other_job() -> None:
    strange = record(id=13, state="DREAMING").line()
    with pytest.raises(UnexpectedOutput, match="job 13: 'DREAMING'") as caught:
        SCHEDULER.parse_status(answer("\n".join([strange, record().line(), "half a line"])))
    assert list(caught.value.readable) == [JobId("12")]


def test_a_failed_query_is_an_error() -> None:
    failed = answer("", 1, "local: error: Permission denied: '/state'")
    for parse in (SCHEDULER.parse_status, SCHEDULER.parse_history, SCHEDULER.parse_queues):
        with pytest.raises(CommandError, match="Permission denied"):
            parse(failed)


def test_cancelling_unknown_jobs_is_no_error() -> None:
    SCHEDULER.parse_cancel(answer())
    SCHEDULER.parse_cancel(answer("", 1, "local: error: Invalid job id specified: 7\n"))
    for stderr in ("", "local: error: Invalid job id specified: 7\nlocal: error: disk full"):
        with pytest.raises(CommandError):
            SCHEDULER.parse_cancel(answer("", 1, stderr))


def test_queues() -> None:
    (queue,) = SCHEDULER.parse_queues(answer("local\x1fup\x1f\x1fhere\x1f8\x1f6\n")).values()
    assert (queue.name, queue.is_default, queue.is_up) == ("local", True, True)
    assert queue.walltime_seconds is None
    assert queue.nodes == (QueueNode("here", "up", is_idle=False, cpus=8, free_cpus=6),)


def test_what_waits_and_runs() -> None:
    jobs = [
        record(id=1, state="RUNNING", cpus=2),
        record(id=2, state="PENDING", cpus=3),
        record(id=3, state="HELD", cpus=1),
        record(id=4, state="COMPLETED", cpus=7),
    ]
    demand = SCHEDULER.parse_demand(answer("".join(f"{job.line()}\n" for job in jobs)))
    assert demand == {"local": Demand(waiting=2, waiting_cpus=4, running=1, running_cpus=2)}


def test_the_columns_are_fields_of_a_record_or_derived() -> None:
    assert set(COLUMNS) - set(vars(record())) == {"estimated_start", "memory"}


@pytest.mark.parametrize(
    ("word", "clears"),
    [
        ("Priority", Clears.BY_ITSELF),
        ("Resources", Clears.BY_ITSELF),
        ("BeginTime", Clears.BY_ITSELF),
        ("Requeued", Clears.BY_ITSELF),
        ("JobHeldUser", Clears.BY_SOMEBODY),
        ("Other", Clears.UNKNOWN),
    ],
)
def test_why_a_job_waits_is_explained(word: str, clears: Clears) -> None:
    (status,) = SCHEDULER.parse_status(answer(record(state="PENDING", reason=word).line())).values()
    reason = SCHEDULER.explain_reason(status)
    assert reason is not None
    assert (reason.word, reason.clears) == (word, clears)
    assert reason.meaning.endswith(".")


def test_a_job_that_does_not_wait_has_no_reason_to() -> None:
    lines = [
        record(state="FAILED", reason="NonZeroExitCode").line(),
        record(id=13, reason="").line(),
    ]
    for status in SCHEDULER.parse_find(answer("\n".join(lines))):
        assert SCHEDULER.explain_reason(status) is None


def test_the_usage_of_a_job_is_what_its_keeper_recorded() -> None:
    job = record(
        state="COMPLETED",
        cpus=2,
        started="2026-11-21T05:00:10.000+00:00",
        ended="2026-11-21T05:00:20.000+00:00",
        cpu_seconds=15.0,
        max_memory=64,
        request={"memory_per_cpu": 100, "cpus_per_task": 2},
    )
    usage = SCHEDULER.parse_usage(answer(job.line()))[JobId("12")]
    assert (usage.cpus, usage.cpu_seconds, usage.cpu_efficiency) == (2, 15.0, 75.0)
    assert (usage.memory, usage.max_memory, usage.memory_efficiency) == (200, 64, 32.0)
    assert (usage.nodes, usage.gpus, usage.wall_seconds) == (1, None, 10.0)


def test_a_job_that_did_not_run_used_nothing_that_is_known() -> None:
    usage = SCHEDULER.parse_usage(answer(record(started=None).line()))[JobId("12")]
    assert (usage.cpu_seconds, usage.max_memory, usage.memory, usage.started) == (None,) * 4


def test_a_search_by_name_also_finds_jobs_that_are_over() -> None:
    since = datetime(2026, 11, 21, tzinfo=UTC)
    assert SCHEDULER.find_history_command("hb", "me", since)[-2:] == ["find", "hb"]
