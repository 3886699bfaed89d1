"""One submission is looked after by one process, however processes come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.tracking import holders
from hpc_bridge.tracking.claims import Claims, claims_on
from tests.unit.claiming import Start, held_by

# one alone


def test_a_claim_is_this_processs_however_often_it_is_taken(
    claims: Claims, run: RunDirectory
) -> None:
    assert not claims.held([run])
    assert [claims.take(run) for _ in range(3)] == [True] * 3
    assert claims.held([run])
    assert [path.name for path in run.path.iterdir()] == ["tracker.0"]


def test_what_is_released_is_anybodys(claims: Claims, run: RunDirectory, start: Start) -> None:
    claims.take(run)
    other = start()
    assert not other.takes(run)
    claims.release(run)
    assert not claims.held([run])
    assert other.takes(run)
    assert not claims.take(run)
    assert other.ask("release", run.submission_id) == "released"
    assert claims.take(run)


def test_what_another_process_holds_is_not_released(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    claims.release(run)
    assert not claims.take(run)


def test_threads_of_one_process_may_take_a_claim_together(
    claims: Claims, run: RunDirectory
) -> None:
    taken: list[bool] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait(30)
        taken.append(claims.take(run))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert taken == [True] * 8
    assert [path.name for path in run.path.iterdir()] == ["tracker.0"]


def test_files_of_claims_belong_to_the_account_alone(claims: Claims, run: RunDirectory) -> None:
    claims.take(run)
    folder = run.shared / "trackers"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (*folder.iterdir(), *run.path.iterdir())} == {
        0o600
    }


# races


def test_of_twenty_processes_one_gets_the_claim(shared: Path, start: Start) -> None:
    processes = [start() for _ in range(20)]
    for _ in range(5):
        run = RunDirectory.create(shared, new_submission_id())
        for process in processes:
            process.tell("take", run.submission_id)
        assert sorted(process.hear() for process in processes) == ["False"] * 19 + ["True"]


def test_of_many_one_inherits_the_claim_of_the_dead(
    shared: Path, run: RunDirectory, start: Start
) -> None:
    dead = start()
    assert dead.takes(run)
    processes = [start() for _ in range(8)]
    dead.kill()
    for process in processes:
        process.tell("take", run.submission_id)
    assert sorted(process.hear() for process in processes) == ["False"] * 7 + ["True"]


def test_who_decided_long_ago_does_not_take_what_has_changed_hands_since(
    claims: Claims, run: RunDirectory, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw a dead holder, then slept while two others came, and one of them left."""
    held_by(run, "dead-1-abc")
    one, two = start(), start()
    link = claims._link

    def slow(run: RunDirectory, number: int) -> bool:
        assert one.takes(run)
        one.ask("release", run.submission_id)
        assert two.takes(run)
        return link(run, number)

    monkeypatch.setattr(claims, "_link", slow)
    assert not claims.take(run)
    assert not claims.held([run])


# forks


FORK = """
import os, sys
from pathlib import Path
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.claims import claims_on

shared = Path(sys.argv[1])
run = RunDirectory(shared / "runs" / sys.argv[2])
assert claims_on(shared).take(run)
if os.fork() == 0:
    sys.exit(1 if claims_on(shared).take(run) else 0)  # runs what atexit was told
_, status = os.wait()
print(os.waitstatus_to_exitcode(status), flush=True)
sys.stdin.read()
"""


def test_a_forked_child_is_another_process_and_ends_nothing_of_its_parents(
    claims: Claims, run: RunDirectory
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(run.shared), run.submission_id]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline().strip() == "0"
        assert not claims.take(run)
        parent.stdin.close()
        assert parent.wait(30) == 0
    assert claims.take(run)


# the process's own


def test_a_process_has_one_set_of_claims_on_a_shared_directory(shared: Path) -> None:
    assert claims_on(shared) is claims_on(shared)
    assert claims_on(shared) is not claims_on(shared / "other")


def test_a_process_that_ended_its_claims_may_begin_again(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    claims.take(run)
    claims.end()
    other = start()
    assert other.takes(run)
    other.end()
    assert claims.take(run)
    assert not start().takes(run)


def test_place_and_start_tell_processes_apart(start: Start) -> None:
    other = start()
    assert holders.pid_started(os.getpid()) not in (None, holders.pid_started(other.process.pid))
    assert holders.pid_started(2**22 + 1) is None
