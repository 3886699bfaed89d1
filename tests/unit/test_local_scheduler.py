"""The embedded scheduler: what it reads in scripts and how its answers are parsed."""

from __future__ import annotations

import calendar
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_bridge.errors import CommandError, CommandNotFound, SubmissionRefused, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.jobs.reasons import Clears
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.local import LocalScheduler
from hpc_bridge.schedulers.local_directives import (
    Refused,
    Request,
    read_begin,
    read_memory,
    read_request,
    read_signal,
    read_walltime,
    signal_number,
    split_directive,
)
from hpc_bridge.schedulers.local_records import COLUMNS, LIVE, Record, Store
from hpc_bridge.schedulers.local_script import base_environment, expand, job_environment

NOW = 1_750_000_000.0
SCHEDULER = LocalScheduler("/state", python="python", cpus=4)


def read(*lines: str) -> Request:
    return read_request("\n".join(["#!/bin/bash", *lines, "true", ""]), NOW)


def asked(*lines: str) -> dict[str, object]:
    """What the lines change in a request."""
    plain = vars(Request())
    return {name: value for name, value in vars(read(*lines)).items() if value != plain[name]}


# directive lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" --time=5", ["--time=5"]),
        ("\t-J  name\t-c 2 ", ["-J", "name", "-c", "2"]),
        (" --comment='a b' -c2", ["--comment=a b", "-c2"]),
        (' --comment="it\'s"', ["--comment=it's"]),
        (r' --comment="a \"b\" \\ \$c"', [r'--comment=a "b" \ $c']),
        (r" --comment='a \' b'", ["--comment=a ' b"]),
        (r" --comment=a\"b\#c", ['--comment=a"b#c']),
        (r" --comment=a\ b", ["--comment=a", "b"]),
        (" -c2 # and why", ["-c2"]),
        (" -c2#and why", ["-c2"]),
        (" --comment='#1' -c2", ["--comment=#1", "-c2"]),
        (' "" -c2', []),
        (" --comment=tr'i'\"c\"ky", ["--comment=tricky"]),
    ],
)
def test_words_are_cut_as_sbatch_does(text: str, words: list[str]) -> None:
    assert split_directive(text) == words


def test_an_unmatched_quote_is_refused() -> None:
    with pytest.raises(Refused, match=re.escape("line 3: Unmatched `'` in [#SBATCH -J 'a b]")):
        read("# why", "#SBATCH -J 'a b")


@pytest.mark.parametrize(
    ("lines", "changes"),
    [
        ((), {}),
        (("#SBATCH --job-name=train",), {"name": "train"}),
        (("#SBATCH --job-name train",), {"name": "train"}),
        (("#SBATCH -J train",), {"name": "train"}),
        (("#SBATCH -Jtrain",), {"name": "train"}),
        (("#SBATCH --job-na=train",), {"name": "train"}),
        (("#SBATCH -J", "#SBATCH train"), {"name": "train"}),
        (("#SBATCH -J one", "#SBATCH -J two"), {"name": "two"}),
        (("#SBATCH --job-name=a=b",), {"name": "a=b"}),
        (("#SBATCH -t90 -c 4",), {"walltime": 5400, "cpus_per_task": 4}),
        (("#SBATCH -n2", "", "# words", "  # more", "#SBATCH -c3"),
         {"ntasks": 2, "cpus_per_task": 3}),
        (("#SBATCH -n2", "cd /tmp", "#SBATCH -c3"), {"ntasks": 2}),
        (("##SBATCH -n2", " #SBATCH -n2", "# SBATCH -n2"), {}),
        (("#SBATCH -N1 --ntasks-per-node=2",), {"ntasks_per_node": 2}),
        (("#SBATCH --nodes=1-4 --tasks-per-node=3",), {"ntasks_per_node": 3}),
        (("#SBATCH --mem=2G --mem-per-cpu 1500",),
         {"memory_per_node": 2048, "memory_per_cpu": 1500}),
        (("#SBATCH -D /a -o out -e err -i in --open-mode=append",),
         {"work_dir": "/a", "output": "out", "error": "err", "input": "in", "append": True}),
        (("#SBATCH --open-mode=append --open-mode=truncate",), {}),
        (("#SBATCH --begin=now+60",), {"begin": NOW + 60}),
        (("#SBATCH --export=nil --comment='x y'",), {"export": "NIL", "comment": "x y"}),
        (("#SBATCH -H --no-requeue --signal=B:USR1@30",),
         {"hold": True, "requeue": False, "signal": 10, "signal_shell": True, "signal_lead": 30}),
        (("#SBATCH --no-requeue --requeue",), {}),
        (("#SBATCH -p gpu -A acc -q high -C a&b --gres=gpu:2 -G1 --gpus-per-node=a100:1 -L lic"
          " -w n1 -x n2 --exclusive --exclusive=user --nice --nice=5 -k -k1 --mail-type=END"
          " -M other --reservation=r --deadline=now -Q -v --parsable -s -O",), {}),
    ],
)  # fmt: skip
def test_a_request_is_read_from_the_directives(
    lines: tuple[str, ...], changes: dict[str, object]
) -> None:
    assert asked(*lines) == changes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--frobnicate=1", "unrecognized option '--frobnicate'"),
        ("-Z", "invalid option -- 'Z'"),
        ("--gpus-per=1", "option '--gpus-per' is ambiguous; possibilities: '--gpus-per-node'"),
        ("--time", "option '--time' requires an argument"),
        ("-t", "option requires an argument -- 't'"),
        ("--requeue=yes", "option '--requeue' doesn't allow an argument"),
        ("--nice 5", "Invalid directive found in batch script: 5"),
        ("train", "Invalid directive found in batch script: train"),
        ("--", "Invalid directive found in batch script: --"),
        ("--ntasks=0", 'Invalid numeric value "0" for --ntasks.'),
        ("-c two", 'Invalid numeric value "two" for --cpus-per-task.'),
        ("-N 0", '"0" is not a valid node count'),
        ("-N 2", "the embedded scheduler has one node, and --nodes=2 asks for more"),
        ("-N 2-4", "the embedded scheduler has one node, and --nodes=2-4 asks for more"),
        ("-a 1-3", "the embedded scheduler has no job arrays (--array)"),
        ("-d singleton", "the embedded scheduler has no job dependencies (--dependency)"),
        ("--container=x", "the embedded scheduler has no OCI containers (--container)"),
        ("hetjob", "the embedded scheduler has no heterogeneous jobs (hetjob)"),
        ("--export=PATH,A=1", "the embedded scheduler knows --export=NONE, ALL and NIL"),
        ("--open-mode=x", "Invalid --open-mode specification: x"),
        ("--mem=much", "Invalid --mem specification: 'much'"),
        ("-J 'a\tb'", "Invalid --job-name specification: it holds a control character"),
    ],
)
def test_a_bad_directive_is_refused_in_one_sentence(line: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        read(f"#SBATCH {line}")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", "Batch script is empty!"),
        (" \n\t\n", "Batch script contains only whitespace!"),
        ("#!/bin/sh\r\ntrue\r\n", "Batch script contains DOS line breaks"),
        ("#!/bin/sh\n\0", "Batch script contains a NULL character"),
    ],
)
def test_a_script_that_slurm_refuses_is_refused(script: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_request(script, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("0:30", 30),
        ("1:30", 90),
        ("01:00:00", 3600),
        ("2-0", 172800),
        ("1-12:30", 131400),
        ("1-12:30:05", 131405),
        ("100:00:00", 360000),
        ("0", None),
        ("UNLIMITED", None),
        ("infinite", None),
        ("-1", None),
    ],
)
def test_walltimes(text: str, seconds: int | None) -> None:
    assert read_walltime(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1h", "1:2:3:4", "-2", "1-", "1.5"])
def test_walltimes_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="Invalid --time specification"):
        read_walltime(text)


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("0", 0), ("1500", 1500), ("1500M", 1500), ("4g", 4096), ("1T", 1048576), ("1K", 1),
     ("2048K", 2), ("16GB", 16384)],
)  # fmt: skip
def test_memory(text: str, mebibytes: int) -> None:
    assert read_memory("mem", text) == mebibytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("USR1", (10, False, 60)),
        ("B:SIGTERM@120", (15, True, 120)),
        ("R:12@5", (12, False, 5)),
        ("rb:usr2", (12, True, 60)),
    ],
)
def test_signals(text: str, expected: tuple[int, bool, int]) -> None:
    assert read_signal(text) == expected


@pytest.mark.parametrize("text", ["", "NONSENSE", "USR1@soon", "X:USR1", "0", "99"])
def test_signals_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="Invalid --signal specification"):
        read_signal(text)


def test_signal_numbers_are_those_of_this_machine() -> None:
    import signal

    for number in signal.Signals:
        known = signal_number(number.name)
        assert known is None or known == number


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("now+60", NOW + 60),
        ("now+5minutes", NOW + 300),
        ("now+1hour", NOW + 3600),
        ("now+2days", NOW + 172800),
        ("2030-01-31", calendar.timegm((2030, 1, 31, 0, 0, 0))),
        ("2030-01-31T08:30", calendar.timegm((2030, 1, 31, 8, 30, 0))),
        ("2030-01-31T08:30:15", calendar.timegm((2030, 1, 31, 8, 30, 15))),
        ("16:00", calendar.timegm((2025, 6, 15, 16, 0, 0))),
        ("08:00:01", calendar.timegm((2025, 6, 16, 8, 0, 1))),
    ],
)
def test_begin_times(text: str, expected: float) -> None:
    assert read_begin(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "later", "now+", "now+5fortnights", "2030-13-01", "25:00"])
def test_begin_times_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="Invalid --begin specification"):
        read_begin(text, NOW)


# records


def record(**changes: object) -> Record:
    values: dict[str, object] = {
        "id": 12,
        "name": "train",
        "uid": 1000,
        "cpus": 2,
        "slots": 4,
        "umask": 0o22,
        "machine": "m",
        "node": "laptop",
        "submit_dir": "/home/me",
        "submitted": "2026-01-01T00:00:00.000+00:00",
        "request": vars(Request()),
    }
    return Record(**{**values, **changes})


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "12"), ("state", None), ("restarts", 1.5), ("request", [])],
)
def test_a_record_with_a_wrong_type_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        record(**{field: value})


def test_ids_go_on_when_the_counter_is_lost(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "state"))
    store.prepare()
    assert [store.new_id(), store.new_id()] == [1, 2]
    (tmp_path / "state" / "last_id").write_text("garbage")
    assert store.new_id() == 3
    (tmp_path / "state" / "last_id").unlink()
    assert store.new_id() == 4


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("slurm-%j.out", "slurm-12.out"),
        ("%x-%A_%4j-%u@%N.%t", "train-12_0012-me@laptop.0"),
        ("100%%-%q", "100%-%q"),
        (r"\%j", "%j"),
    ],
)
def test_file_name_patterns(pattern: str, expected: str) -> None:
    assert expand(pattern, record(), "me") == expected


def test_variables_that_were_not_asked_for_are_not_set() -> None:
    plain = job_environment(record(), Request(), "/f", NOW)
    full = job_environment(
        record(restarts=2),
        Request(ntasks_per_node=2, cpus_per_task=1, walltime=60, memory_per_node=512),
        "/f",
        NOW,
    )
    assert {name: full[name] for name in sorted(set(full) - set(plain))} == {
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_END_TIME": str(int(NOW) + 60),
        "SLURM_MEM_PER_NODE": "512",
        "SLURM_NPROCS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_RESTART_COUNT": "2",
    }


def test_what_is_exported() -> None:
    mine = {"A": "1", "SLURM_JOB_ID": "9", "HPC_BRIDGE_LOCAL_JOB": "x", "TMPDIR": "/scratch"}
    assert base_environment("ALL", mine) == {"A": "1", "TMPDIR": "/scratch"}
    assert base_environment("NIL", mine) == {}
    none = base_environment("NONE", mine)
    assert none["TMPDIR"] == "/scratch"
    assert "A" not in none
    assert "SLURM_JOB_ID" not in none


# commands and answers


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
    queues = SCHEDULER.parse_queues(answer("local\x1f1\x1f1\x1f\nshort\x1f0\x1f0\x1f3600\n"))
    assert (queues["local"].is_default, queues["local"].is_up) == (True, True)
    assert queues["local"].walltime_seconds is None
    assert (queues["short"].is_default, queues["short"].walltime_seconds) == (False, 3600)


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
