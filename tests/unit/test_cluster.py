"""A scheduler over a transport: at most one job, whatever becomes of the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from hpc_bridge.cluster import Cluster
from hpc_bridge.errors import (
    CommandNotFound,
    CommandTimeout,
    SchedulerUnavailable,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.transports.base import Completed, Files, Progress, Stdin, Transport

DEAD = Completed(1, "", "Unable to contact slurm controller (connect failure)")
TIMEOUT = CommandTimeout("no answer within 60 s")
NONE = Completed(0, "", "")
TAKEN = Completed(0, "12\n", "")
REFUSED = Completed(1, "", "sbatch: error: invalid partition specified: nope")


def found(*jobs: str, name: str = "hbabc", word: str = "RUNNING") -> Completed:
    moment = "2026-11-21T05:25:03"
    rows = [(job, name, word, "None", "c1", moment, moment, "N/A") for job in jobs]
    return Completed(0, "".join("\x1f".join(row) + "\n" for row in rows), "")


class Recorded(Transport):
    """Gives the recorded answers in order and remembers what was run."""

    def __init__(self, *answers: Completed | Exception) -> None:
        self.answers = list(answers)
        self.commands: list[list[str]] = []
        self.inputs: list[bytes] = []
        self.files: list[Files | None] = []
        self.unset: list[tuple[str, ...]] = []
        self.users = 0

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Stdin = b"",
        timeout: float,
        unset: Sequence[str] = (),
        files: Files | None = None,
        progress: Progress | None = None,
        may_log_in: bool = True,
    ) -> Completed:
        assert isinstance(stdin, bytes)
        self.files.append(files)
        self.commands.append(list(argv))
        self.inputs.append(stdin)
        self.unset.append(tuple(unset))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def user(self) -> str:
        self.users += 1
        return "researcher"

    def ran(self, command: str) -> int:
        return sum(command in argv for argv in self.commands)


def cluster(*answers: Completed | Exception) -> tuple[Cluster, Recorded]:
    transport = Recorded(*answers)
    return Cluster(SlurmScheduler(), transport), transport


# submit


def test_a_script_is_submitted_on_standard_input() -> None:
    slurm, transport = cluster(TAKEN)
    assert slurm.submit("#!/bin/bash\necho ü\n", "hbabc") == JobId("12")
    assert transport.inputs == ["#!/bin/bash\necho ü\n".encode()]
    assert transport.commands[0][-3:] == ["sbatch", "--parsable", "--job-name=hbabc"]


LOST = [
    pytest.param(TIMEOUT, id="timeout"),
    pytest.param(DEAD, id="dead"),
    pytest.param(Completed(0, "Welcome!\n", ""), id="no id"),
]


@pytest.mark.parametrize("answer", LOST)
def test_a_job_whose_answer_was_lost_is_found_by_its_name(answer: Completed | Exception) -> None:
    slurm, transport = cluster(answer, found("12"))
    assert slurm.submit("#!/bin/bash\n", "hbabc") == JobId("12")
    assert transport.ran("sbatch") == 1
    assert "--name=hbabc" in transport.commands[1]
    assert "--user=researcher" in transport.commands[1]


def test_a_job_that_is_over_already_is_found_by_its_name() -> None:
    slurm, _ = cluster(TIMEOUT, found("12", word="COMPLETED"))
    assert slurm.submit("#!/bin/bash\n", "hbabc") == JobId("12")


def test_the_newest_of_several_jobs_of_that_name_is_taken() -> None:
    slurm, _ = cluster(TIMEOUT, found("9", "12", "11"))
    assert slurm.submit("#!/bin/bash\n", "hbabc") == JobId("12")


@pytest.mark.parametrize(
    ("answer", "kind"), [(TIMEOUT, CommandTimeout), (DEAD, SchedulerUnavailable)]
)
def test_a_lost_answer_and_no_job_is_an_error_that_may_be_tried_again(
    answer: Completed | Exception, kind: type[SchedulerUnavailable]
) -> None:
    slurm, transport = cluster(answer, NONE)
    with pytest.raises(kind) as caught:
        slurm.submit("#!/bin/bash\n", "hbabc")
    assert caught.value.retryable
    assert transport.ran("sbatch") == 1  # a second try is the caller's to make


def test_an_unexpected_answer_and_no_job_is_an_error() -> None:
    slurm, transport = cluster(Completed(0, "Welcome!\n", ""), NONE)
    with pytest.raises(UnexpectedOutput, match="Welcome!"):
        slurm.submit("#!/bin/bash\n", "hbabc")
    assert transport.ran("sbatch") == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(REFUSED, SubmissionRefused), (Completed(127, "", "env: 'sbatch'"), CommandNotFound)],
)
def test_a_refusal_is_not_looked_up(answer: Completed, kind: type[Exception]) -> None:
    slurm, transport = cluster(answer)
    with pytest.raises(kind):
        slurm.submit("#!/bin/bash\n", "hbabc")
    assert len(transport.commands) == 1


@pytest.mark.parametrize(
    "second", [pytest.param(TIMEOUT, id="timeout"), pytest.param(DEAD, id="dead")]
)
@pytest.mark.parametrize("first", LOST)
def test_a_failed_look_up_says_that_nothing_is_known(
    first: Completed | Exception, second: Completed | Exception
) -> None:
    slurm, transport = cluster(first, second)
    with pytest.raises(
        SchedulerUnavailable, match="Whether job 'hbabc' was submitted is unknown"
    ) as e:
        slurm.submit("#!/bin/bash\n", "hbabc")
    assert e.value.retryable
    assert e.value.__cause__ is not None
    assert str(e.value.__cause__) in str(e.value)
    assert transport.ran("sbatch") == 1


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(Completed(1, "", "squeue: error: Invalid user"), id="refused"),
        pytest.param(found("12", word="BANANA"), id="unknown state"),
    ],
)
def test_a_look_up_that_fails_in_another_way_says_that_nothing_is_known_too(
    second: Completed,
) -> None:
    slurm, _ = cluster(TIMEOUT, second)
    with pytest.raises(SchedulerUnavailable, match="Whether job 'hbabc' was submitted is unknown"):
        slurm.submit("#!/bin/bash\n", "hbabc")


# queries


def test_the_queue_is_read_by_one_command_for_all_jobs() -> None:
    slurm, transport = cluster(found("1", "2", "3"))
    assert {job.state for job in slurm.status().values()} == {JobState.RUNNING}
    assert len(transport.commands) == 1


@pytest.mark.parametrize(
    "answer", [pytest.param(TIMEOUT, id="timeout"), pytest.param(DEAD, id="dead")]
)
def test_a_failed_query_raises(answer: Completed | Exception) -> None:
    for ask in (
        lambda slurm: slurm.status(),
        lambda slurm: slurm.find("hbabc"),
        lambda slurm: slurm.history([JobId("1")], datetime(2026, 1, 1, tzinfo=UTC)),
        lambda slurm: slurm.queues(),
        lambda slurm: slurm.cancel([JobId("1")]),
    ):
        slurm, _ = cluster(answer)
        with pytest.raises((CommandTimeout, SchedulerUnavailable)):
            ask(slurm)


def test_a_cancel_names_its_jobs() -> None:
    slurm, transport = cluster(NONE)
    slurm.cancel([JobId("1"), JobId("2_3")])
    assert transport.commands[0][-3:] == ["scancel", "1", "2_3"]


# around every command


def test_commands_are_counted_by_kind_whether_they_succeed_or_not() -> None:
    slurm, _ = cluster(TIMEOUT, found("12"), TAKEN, NONE, DEAD, NONE)
    slurm.submit("#!/bin/bash\n", "hbabc")
    slurm.submit("#!/bin/bash\n", "hbdef")
    slurm.status()
    with pytest.raises(SchedulerUnavailable):
        slurm.status()
    slurm.cancel([JobId("12")])
    assert slurm.counters == {"submit": 2, "find": 1, "status": 2, "cancel": 1}


def test_counting_survives_many_threads() -> None:
    slurm, _ = cluster(*[NONE] * 400)
    threads = [
        threading.Thread(target=lambda: [slurm.status() for _ in range(50)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert slurm.counters == {"status": 400}


def test_what_an_outer_job_leaves_behind_is_kept_from_every_command() -> None:
    slurm, transport = cluster(TAKEN, NONE)
    slurm.submit("#!/bin/bash\n", "hbabc")
    slurm.status()
    assert all({"SLURM_*", "SBATCH_*", "PMI_*"} <= set(unset) for unset in transport.unset)


def test_the_login_name_is_asked_for_once() -> None:
    slurm, transport = cluster(NONE, NONE)
    slurm.status()
    slurm.status()
    assert transport.users == 1


def records(*jobs: str, word: str = "CANCELLED by 0") -> Completed:
    moment = "2026-11-21T05:25:03"
    rows = [(job, "hbabc", word, "0:0", "None", "c1", moment, moment, moment) for job in jobs]
    return Completed(0, "".join("\x1f".join(row) + "\n" for row in rows), "")


SINCE = datetime(2026, 11, 21, tzinfo=UTC)


def test_records_are_found_by_name_the_newest_first() -> None:
    slurm, transport = cluster(records("9", "12_[2-3]", "12_10", "12_1"))
    found = slurm.find_history("hbabc", SINCE)
    ids = [status.job_id.value for status in found]
    assert ids == ["12_1", "12_2", "12_3", "12_10", "9"]
    assert {"--name=hbabc", "--user=researcher"} <= set(transport.commands[0])


def test_history_knows_of_elements_that_left_no_record() -> None:
    slurm, _ = cluster(records("12_0", "12_[2-3]"), records("13"))
    found = slurm.history([JobId("12_0"), JobId("12_1")], SINCE)
    assert found[JobId("12_0")].cancelled_by == "0"
    missing = found[JobId("12_1")]
    assert (missing.state, missing.name) == (JobState.CANCELLED, "hbabc")
    assert set(slurm.history([JobId("12_1"), JobId("14")], SINCE)) == {JobId("13")}


def test_a_scheduler_that_keeps_no_records_is_not_asked_for_them_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    off = Completed(0, '{"pbs_server":"x"}', "qstat: PBS is not configured to maintain job history")
    transport = Recorded(off, NONE)
    cluster = Cluster(PBSScheduler(), transport)
    jobs, since = [JobId("1.x")], datetime(2026, 11, 21, tzinfo=UTC)
    assert cluster.has_accounting
    assert cluster.history(jobs, since) == {}
    assert not cluster.has_accounting
    assert (cluster.history(jobs, since), cluster.usage(jobs, since)) == ({}, {})
    assert len(transport.commands) == 1
    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert cluster.has_accounting


def test_usage_is_one_command_for_any_number_of_jobs() -> None:
    slurm, transport = cluster(NONE)
    assert slurm.usage([JobId("1"), JobId("2")], SINCE) == {}
    assert "--jobs=1,2" in transport.commands[0]
    assert slurm.counters == {"usage": 1}
