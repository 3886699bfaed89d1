"""Those who ask at the same time share one question."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.shared_answer import SharedAnswer
from tests.unit.answering import BARE, Process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "status.json"


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
