"""How fast, and how many jobs at a time, the processes of one user may submit."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_bridge import admission
from hpc_bridge.admission import Admission
from hpc_bridge.errors import CommandTimeout, SubmissionRefused, TooManyJobs
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.watcher import Snapshot
from tests.unit.restrictions import no_file_longer_than

NOW = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)


class Machine:
    """One clock, one file, and a queue; any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 1000.0
        self.queue: list[JobStatus] = []
        self.asked: list[datetime | None] = []
        self.answer: Snapshot | None = None

    def process(self, per_minute: int | None = None, live_jobs: int | None = None) -> Admission:
        return Admission(
            self.path,
            self.ask,
            per_minute=per_minute,
            live_jobs=live_jobs,
            sleep=self.sleep,
            monotonic=lambda: self.seconds,
            now=self.now,
        )

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds

    def ask(self, newer_than: datetime | None) -> Snapshot:
        """The shared answer, which is as old as it is unless a newer one is asked for."""
        self.asked.append(newer_than)
        if self.answer is None or (newer_than and self.answer.taken_at < newer_than):
            self.answer = Snapshot(self.now(), {job.job_id: job for job in self.queue})
        return self.answer

    def submit(self, process: Admission, name: str, jobs: int = 1) -> float:
        with process.admitted(name, jobs):
            went_out = self.seconds
            start = len(self.queue)
            self.queue += [
                JobStatus(JobId(f"{start + n}"), name, JobState.PENDING, "PENDING")
                for n in range(jobs)
            ]
        self.seconds += 0.125  # exact in binary
        return went_out


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "folder" / "submissions.json")


# rate


def test_no_minute_sees_more_submissions_than_allowed(machine: Machine) -> None:
    process = machine.process(per_minute=3)
    went = [machine.submit(process, f"hb{n}") for n in range(11)]
    assert went[2] - went[0] < 1  # the first ones need not wait
    assert all(late - early >= 60 for early, late in zip(went, went[3:], strict=False))
    assert went[10] - went[0] < 181


def test_processes_share_one_rate(machine: Machine) -> None:
    processes = [machine.process(per_minute=2) for _ in range(3)]
    went = [machine.submit(processes[n % 3], f"hb{n}") for n in range(6)]
    assert all(late - early >= 60 for early, late in zip(went, went[2:], strict=False))


def test_after_a_quiet_minute_nothing_waits(machine: Machine) -> None:
    process = machine.process(per_minute=1)
    machine.submit(process, "hb1")
    machine.seconds += 60
    before = machine.seconds
    assert machine.submit(process, "hb2") == before


def test_that_it_paces_is_said_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    process = machine.process(per_minute=1)
    with caplog.at_level(logging.WARNING):
        for n in range(4):
            machine.submit(process, f"hb{n}")
    (record,) = caplog.records
    assert "takes 1 submissions a minute" in record.getMessage()


def test_a_refused_submission_gives_its_turn_back(machine: Machine) -> None:
    process = machine.process(per_minute=1)
    with pytest.raises(SubmissionRefused), process.admitted("hb1", 1):
        raise SubmissionRefused("no")
    before = machine.seconds
    assert machine.submit(process, "hb2") == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"format": 1}'])
def test_a_damaged_file_is_begun_anew(machine: Machine, content: bytes) -> None:
    machine.path.parent.mkdir()
    machine.path.write_bytes(content)
    process = machine.process(per_minute=1)
    went = [machine.submit(process, f"hb{n}") for n in range(2)]
    assert went[1] - went[0] >= 60


def test_turns_of_an_earlier_start_of_the_machine_mean_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.submit(machine.process(per_minute=1), "hb1")
    monkeypatch.setattr(admission, "_boot", lambda: "another")
    machine.seconds = 5.0
    assert machine.submit(machine.process(per_minute=1), "hb2") == 5.0


def test_a_full_disk_stops_no_submission(machine: Machine) -> None:
    with no_file_longer_than(0):
        machine.submit(machine.process(per_minute=1), "hb1")


def test_what_means_nothing_any_more_is_not_kept(machine: Machine) -> None:
    process = machine.process(per_minute=100)
    for n in range(5):
        machine.submit(process, f"hb{n}")
    machine.seconds += 60
    machine.submit(process, "hb9")
    assert [e["name"] for e in json.loads(machine.path.read_text())["entries"]] == ["hb9"]


# live jobs


def test_one_job_more_than_allowed_is_refused_for_now(machine: Machine) -> None:
    process = machine.process(live_jobs=2)
    machine.submit(process, "hb1")
    machine.submit(process, "hb2")
    with pytest.raises(TooManyJobs, match=r"you have 2 live jobs, and .* one user 2: another") as e:
        machine.submit(process, "hb3")
    assert e.value.retryable
    assert len(machine.queue) == 2


def test_jobs_that_are_not_ours_count_and_ended_ones_do_not(machine: Machine) -> None:
    machine.queue = [
        JobStatus(JobId("90"), "interactive", JobState.RUNNING, "RUNNING"),
        JobStatus(JobId("91"), "hb0", JobState.COMPLETED, "COMPLETED"),
    ]
    process = machine.process(live_jobs=2)
    machine.submit(process, "hb1")
    with pytest.raises(TooManyJobs, match="you have 2 live jobs"):
        machine.submit(process, "hb2")


def test_jobs_submitted_since_the_answer_count_those_of_other_processes_too(
    machine: Machine,
) -> None:
    machine.ask(None)
    processes = [machine.process(live_jobs=3) for _ in range(2)]
    machine.submit(processes[0], "hb1")
    machine.submit(processes[1], "hb2", jobs=2)
    assert machine.answer is not None
    assert not machine.answer.jobs  # no question was asked for them
    with pytest.raises(TooManyJobs, match="you have 3 live jobs"):
        machine.submit(processes[0], "hb3")


def test_the_elements_of_an_array_count(machine: Machine) -> None:
    process = machine.process(live_jobs=4)
    machine.submit(process, "hb1", jobs=3)
    with pytest.raises(TooManyJobs, match="2 more can be submitted"):
        machine.submit(process, "hb2", jobs=2)
    machine.submit(process, "hb3")


def test_before_a_refusal_a_newer_answer_is_asked_for(machine: Machine) -> None:
    process = machine.process(live_jobs=1)
    machine.submit(process, "hb1")
    machine.ask(machine.now())
    machine.queue.clear()  # it has ended
    machine.seconds += 5
    machine.submit(process, "hb2")
    assert machine.asked[-2:] == [None, machine.asked[-1]]
    assert machine.asked[-1] is not None


def test_more_at_once_than_may_ever_be_live_is_not_tried_again(machine: Machine) -> None:
    with pytest.raises(TooManyJobs, match="5 jobs at once are more than the 4") as caught:
        machine.submit(machine.process(live_jobs=4), "hb1", jobs=5)
    assert not caught.value.retryable


def test_a_refused_submission_is_no_job(machine: Machine) -> None:
    process = machine.process(live_jobs=1)
    machine.ask(None)
    with pytest.raises(SubmissionRefused), process.admitted("hb1", 1):
        raise SubmissionRefused("no")
    machine.submit(process, "hb2")


def test_a_submission_without_an_answer_may_be_a_job(machine: Machine) -> None:
    """For five minutes: by then its name has been looked up, or its process is dead."""
    process = machine.process(live_jobs=1)
    with pytest.raises(CommandTimeout), process.admitted("hb1", 1):
        raise CommandTimeout("no answer")
    with pytest.raises(TooManyJobs):
        machine.submit(process, "hb2")
    machine.seconds += 301
    machine.submit(process, "hb3")


def test_one_that_is_tried_again_is_no_second_job(machine: Machine) -> None:
    process = machine.process(live_jobs=2)
    for _ in range(2):
        with pytest.raises(CommandTimeout), process.admitted("hb1", 2):
            raise CommandTimeout("no answer")
    machine.submit(process, "hb1", jobs=2)
    assert len(machine.queue) == 2


def test_a_submission_that_waits_its_turn_counts(machine: Machine) -> None:
    first, second = machine.process(live_jobs=1), machine.process(live_jobs=1)
    with first.admitted("hb1", 1), pytest.raises(TooManyJobs):
        machine.submit(second, "hb2")


def test_both_limits_hold_together(machine: Machine) -> None:
    process = machine.process(per_minute=1, live_jobs=2)
    went = [machine.submit(process, f"hb{n}") for n in range(2)]
    assert went[1] - went[0] >= 60
    before = machine.seconds
    with pytest.raises(TooManyJobs):
        machine.submit(process, "hb3")
    assert machine.seconds == before  # it is told at once
