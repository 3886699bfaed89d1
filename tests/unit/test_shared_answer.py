"""The status answer that all processes of one user share."""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import CommandTimeout, SchedulerUnavailable, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.shared_answer import SharedAnswer

START = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)
FULL = JobStatus(
    job_id=JobId("1_2"),
    name="hb 'ü'\n",
    state=JobState.HELD,
    scheduler_state="PENDING",
    reason="ReqNodeNotAvail, UnavailableNodes:c2",
    exit_code=3,
    signal=9,
    nodes="c[1-2]",
    submitted=START,
    started=START + timedelta(seconds=1),
    ended=START + timedelta(seconds=2),
    estimated_start=START + timedelta(seconds=3),
    cancelled_by="1500",
)
BARE = JobStatus(JobId("2"), "hb2", JobState.RUNNING, "RUNNING")


class Process:
    """One process of the user, with a scheduler that counts and a clock."""

    def __init__(self, path: Path, *jobs: JobStatus) -> None:
        self.path = path
        self.jobs: list[JobStatus] = list(jobs)
        self.error: Exception | None = None
        self.queries = 0
        self.takes = timedelta()
        self.now = START
        self.slept: list[float] = []
        self.shared = SharedAnswer(
            path, self._query, max_age=27.0, now=lambda: self.now, sleep=self._sleep
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    def _query(self) -> Mapping[JobId, JobStatus]:
        self.queries += 1
        self.now += self.takes
        if self.error is not None:
            raise self.error
        return {job.job_id: job for job in self.jobs}

    def ask(self, after: float = 0.0) -> dict[str, JobStatus]:
        self.now = START + timedelta(seconds=after)
        return {job_id.value: job for job_id, job in self.shared.ask().jobs.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "status.json"


def test_the_second_process_uses_the_answer_of_the_first(path: Path) -> None:
    first, second = Process(path, FULL, BARE), Process(path)
    assert first.ask() == {"1_2": FULL, "2": BARE}
    assert second.ask(after=26.9) == {"1_2": FULL, "2": BARE}
    assert (first.queries, second.queries) == (1, 0)


def test_the_moment_of_the_answer_is_kept(path: Path) -> None:
    Process(path).ask()
    second = Process(path)
    second.now = START + timedelta(seconds=20)
    assert second.shared.ask().taken_at == START


def test_a_process_uses_its_own_answer_too(path: Path) -> None:
    process = Process(path, BARE)
    process.ask()
    process.ask(after=10)
    assert process.queries == 1


def test_an_old_answer_is_asked_anew(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask()
    assert second.ask(after=27.0) == {"1_2": FULL}
    assert first.ask(after=30.0) == {"1_2": FULL}
    assert (first.queries, second.queries) == (1, 1)


def test_an_answer_from_the_future_is_asked_anew(path: Path) -> None:
    """The clock was set back."""
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask(after=3600)
    assert second.ask() == {"1_2": FULL}


def test_an_empty_queue_is_an_answer(path: Path) -> None:
    first, second = Process(path), Process(path, BARE)
    assert (first.ask(), second.ask()) == ({}, {})
    assert second.queries == 0


def test_a_shorter_answer_leaves_nothing_of_a_longer_one(path: Path) -> None:
    first = Process(path, *[FULL] * 50, BARE)
    first.ask()
    first.jobs = []
    assert first.ask(after=60) == {}
    assert Process(path, BARE).ask(after=61) == {}


# damage


MOMENT = START.isoformat()
STORED: dict[str, Any] = {
    "format": 2,
    "stored_at": MOMENT,
    "taken_at": MOMENT,
    "complete": True,
    "jobs": [],
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe\x00",
        json.dumps(STORED | {"format": 1}).encode(),
        json.dumps(STORED | {"format": 3}).encode(),
        json.dumps(STORED | {"format": "2"}).encode(),
        json.dumps({"taken_at": MOMENT, "jobs": []}).encode(),
        json.dumps(STORED | {"stored_at": "yesterday"}).encode(),
        json.dumps({name: STORED[name] for name in STORED if name != "complete"}).encode(),
        json.dumps({"format": 2, "failure": "down"}).encode(),
        json.dumps(STORED | {"taken_at": "yesterday"}).encode(),
        json.dumps(STORED | {"taken_at": None}).encode(),
        json.dumps(STORED | {"jobs": None}).encode(),
        json.dumps(STORED | {"jobs": ["text"]}).encode(),
        json.dumps(STORED | {"jobs": [{}]}).encode(),
        json.dumps(STORED)[:-3].encode(),
    ],
)
def test_a_damaged_or_newer_file_is_written_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    first, second = Process(path, BARE), Process(path)
    assert first.ask() == {"2": BARE}
    assert second.ask() == {"2": BARE}
    assert (first.queries, second.queries) == (1, 0)


@pytest.mark.parametrize("change", [{"state": "BANANA"}, {"another": 1}, {"ended": "now"}])
def test_a_status_of_another_version_is_not_used(path: Path, change: dict[str, object]) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask()
    stored = json.loads(path.read_text())
    stored["jobs"][0] |= change
    path.write_text(json.dumps(stored))
    assert second.ask() == {"1_2": FULL}


def test_an_undamaged_file_is_used(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(STORED))
    process = Process(path, BARE)
    assert (process.ask(), process.queries) == ({}, 0)


# age


def test_age_counts_from_the_end_of_a_slow_query(path: Path) -> None:
    first, second = Process(path, BARE), Process(path)
    first.takes = timedelta(seconds=40)
    first.ask()
    second.now = START + timedelta(seconds=40 + 26)
    answer = second.shared.ask()
    assert (answer.taken_at, second.queries) == (START, 0)
    assert second.ask(after=40 + 27) == {}
    assert second.queries == 1


# failures


def test_a_failure_is_shared_like_an_answer(path: Path) -> None:
    """A scheduler that hangs is asked by one process, not by one after another."""
    first, second = Process(path), Process(path, FULL)
    first.error = CommandTimeout("no answer within 60 s from: squeue")
    with pytest.raises(CommandTimeout):
        first.ask()
    with pytest.raises(SchedulerUnavailable, match="no answer within 60 s") as caught:
        second.ask(after=26)
    assert caught.value.retryable
    assert second.queries == 0
    assert second.ask(after=27) == {"1_2": FULL}


def test_an_error_that_nobody_thought_of_is_nobodys_answer(path: Path) -> None:
    first, second = Process(path), Process(path, BARE)
    first.error = RuntimeError("odd")
    with pytest.raises(RuntimeError):
        first.ask()
    assert second.ask() == {"2": BARE}


def test_the_readable_part_of_an_odd_answer_is_shared(path: Path) -> None:
    first, second = Process(path), Process(path)
    first.error = UnexpectedOutput("job 1 is in state 'BANANA'", readable={BARE.job_id: BARE})
    for process in (first, second):
        answer = process.shared.ask()
        assert (answer.jobs, answer.complete) == ({BARE.job_id: BARE}, False)
    assert second.queries == 0


def test_a_whole_answer_is_complete(path: Path) -> None:
    assert [Process(path, BARE).shared.ask().complete for _ in range(2)] == [True, True]


@pytest.mark.parametrize("room", [0, 50])
def test_a_full_disk_loses_no_answer(path: Path, room: int) -> None:
    process = Process(path, FULL, BARE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        assert process.ask() == {"1_2": FULL, "2": BARE}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert process.ask(after=1) == {"1_2": FULL, "2": BARE}
    assert process.queries == 2


# locks and modes


def test_the_file_belongs_to_the_account_alone(path: Path) -> None:
    Process(path, BARE).ask()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_one_who_comes_during_a_query_waits_for_its_answer(path: Path) -> None:
    asking, answer = threading.Event(), threading.Event()

    def slow() -> Mapping[JobId, JobStatus]:
        asking.set()
        assert answer.wait(10)
        return {BARE.job_id: BARE}

    def never() -> Mapping[JobId, JobStatus]:
        raise AssertionError("asked a second time")

    heard: list[Mapping[JobId, JobStatus]] = []

    def ask(query: Any) -> threading.Thread:
        shared = SharedAnswer(path, query, max_age=60)
        thread = threading.Thread(target=lambda: heard.append(shared.ask().jobs))
        thread.start()
        return thread

    first = ask(slow)
    assert asking.wait(10)
    others = [ask(never) for _ in range(5)]
    answer.set()
    for thread in (first, *others):
        thread.join(10)
    assert heard == [{BARE.job_id: BARE}] * 6


ASK_ONCE = """
import sys
from pathlib import Path
from hpc_bridge.shared_answer import SharedAnswer

folder = Path(sys.argv[1])

def query():
    with (folder / "queries").open("a") as file:
        file.write("asked\\n")
    return {}

SharedAnswer(folder / "status.json", query, max_age=600).ask()
"""


def test_processes_that_start_together_ask_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK_ONCE, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert (tmp_path / "queries").read_text() == "asked\n"


FORK_AND_ASK = """
import fcntl, os, sys
from pathlib import Path
from hpc_bridge.shared_answer import SharedAnswer

path = Path(sys.argv[1]) / "status.json"
reading, writing = os.pipe()

def query():
    if os.fork() == 0:  # as a process pool does while another thread asks
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    return {}

SharedAnswer(path, query, max_age=600).ask()
with path.open() as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.close(writing)
os.wait()
"""


def test_a_child_of_the_asking_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK_AND_ASK, str(tmp_path)]
    assert subprocess.run(command, timeout=30).returncode == 0


# answers that are newer than a moment


def moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def newer(process: Process, than: float, at: float) -> dict[str, JobStatus]:
    process.now = moment(at)
    answer = process.shared.ask(moment(than))
    assert answer.taken_at >= moment(than)
    return {job_id.value: job for job_id, job in answer.jobs.items()}


def test_a_young_answer_that_is_too_old_for_one_is_asked_anew_and_shared(path: Path) -> None:
    first, second, third = Process(path, BARE), Process(path, FULL), Process(path)
    first.ask()
    assert newer(second, than=5, at=6) == {"1_2": FULL}
    assert newer(third, than=5.5, at=7) == {"1_2": FULL}
    assert first.ask(after=8) == {"1_2": FULL}
    assert (first.queries, second.queries, third.queries) == (1, 1, 0)


def test_an_answer_of_that_very_moment_is_new_enough(path: Path) -> None:
    first, second = Process(path, BARE), Process(path)
    first.ask(after=5)
    assert newer(second, than=5, at=5) == {"2": BARE}
    assert second.queries == 0


def test_a_new_enough_answer_that_is_too_old_all_the_same_is_asked_anew(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask(after=5)
    assert newer(second, than=1, at=40) == {"1_2": FULL}


def test_what_was_asked_before_and_answered_after_is_not_new_enough(path: Path) -> None:
    """The scheduler may have looked before it happened."""
    first, second = Process(path, BARE), Process(path, FULL)
    first.takes = timedelta(seconds=10)
    first.ask()
    assert newer(second, than=5, at=11) == {"1_2": FULL}
    assert second.queries == 1


def test_a_scheduler_that_does_not_answer_is_not_hurried(path: Path) -> None:
    first, second = Process(path), Process(path, FULL)
    first.error = CommandTimeout("no answer")
    with pytest.raises(CommandTimeout):
        first.ask()
    second.now = moment(6)
    with pytest.raises(SchedulerUnavailable):
        second.shared.ask(moment(5))
    assert second.queries == 0


TENTH = 2.7


def test_one_who_wants_a_newer_answer_waits_for_a_tenth_of_its_age(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.takes = timedelta(seconds=10)
    first.ask()
    assert newer(second, than=10.5, at=11) == {"1_2": FULL}
    assert second.slept == [pytest.approx(TENTH - 1)]


def test_who_comes_later_than_that_does_not_wait(path: Path) -> None:
    first, second = Process(path, BARE), Process(path, FULL)
    first.ask()
    assert newer(second, than=2.9, at=3) == {"1_2": FULL}
    assert sum(second.slept) == 0


def test_who_can_use_the_known_answer_does_not_wait(path: Path) -> None:
    first, second = Process(path, BARE), Process(path)
    first.ask()
    second.ask(after=1)
    newer(second, than=0, at=1)
    assert (second.slept, second.queries) == ([], 0)


def test_however_many_want_a_newer_answer_a_tenth_of_its_age_lies_between_questions(
    path: Path,
) -> None:
    asked_at: list[datetime] = []
    now = START
    queries = 0
    for number in range(40):
        process = Process(path, BARE)
        newer(process, than=(now - START).total_seconds(), at=(now - START).total_seconds() + 0.01)
        if process.queries:
            asked_at.append(process.now)
        queries += process.queries
        now = process.now + timedelta(seconds=0.1 * (number % 3))
    assert queries == len(asked_at) > 10
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(asked_at)]
    assert min(gaps) == pytest.approx(TENTH)


def test_those_who_want_an_answer_of_the_same_moment_share_the_next_one(path: Path) -> None:
    first = Process(path)
    first.ask()
    others = [Process(path, BARE) for _ in range(20)]
    assert newer(others[0], than=1, at=1) == {"2": BARE}
    for other in others[1:]:  # they waited for the lock meanwhile
        assert newer(other, than=1, at=TENTH) == {"2": BARE}
    assert sum(other.queries for other in others) == 1
    assert [other.slept for other in others[1:]] == [[]] * 19
