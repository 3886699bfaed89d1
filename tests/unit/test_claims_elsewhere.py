"""Claims from a machine that reaches the shared directory over a connection, beside those there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import Unreachable, WorkerNameTaken
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.tracking import claims as module
from hpc_bridge.tracking.claims import DEAD_AFTER_SECONDS, Claims
from hpc_bridge.transports.base import Completed
from tests.unit.claiming import silent
from tests.unit.counted_files import CountedFiles


@pytest.fixture
def files() -> CountedFiles:
    return CountedFiles()


@pytest.fixture
def remote(shared: Path, files: CountedFiles) -> Iterator[Claims]:
    """Of a process elsewhere."""
    claims = Claims(shared, files)
    yield claims
    files.transport.is_away = False
    claims.end()


@pytest.fixture
def there(run: RunDirectory, files: CountedFiles) -> RunDirectory:
    """The run directory as the process elsewhere knows it."""
    return RunDirectory(run.path, files)


def test_what_is_claimed_from_elsewhere_is_nobodys_there(
    claims: Claims, remote: Claims, run: RunDirectory, there: RunDirectory
) -> None:
    assert [remote.take(there) for _ in range(2)] == [True, True]
    assert not claims.take(run)
    assert remote.held([there]) == {there}
    assert claims.held([run]) == set()


def test_what_is_claimed_there_is_not_taken_from_elsewhere(
    claims: Claims, remote: Claims, run: RunDirectory, there: RunDirectory
) -> None:
    assert claims.take(run)
    assert not remote.take(there)
    assert remote.held([there]) == set()
    claims.release(run)
    assert remote.take(there)
    assert not claims.take(run)


def test_both_see_each_other_live(claims: Claims, remote: Claims) -> None:
    remote.living()
    assert {holder.id for holder in claims.living()} == {claims.id, remote.id}
    assert {holder.id for holder in remote.living()} == {claims.id, remote.id}


def test_who_ends_leaves_all_to_others_at_once(
    claims: Claims, remote: Claims, run: RunDirectory, there: RunDirectory
) -> None:
    remote.take(there)
    remote.end()
    assert claims.take(run)
    assert not remote.take(there)
    claims.end()
    assert remote.take(there)


def test_who_ends_is_not_held_up_by_a_connection_that_hangs(
    remote: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.05)
    remote.living()
    with remote._lock:  # as while the claims are renewed
        ending = threading.Thread(target=remote.end)
        ending.start()
        ending.join(5)
        assert not ending.is_alive()


def test_who_ends_does_not_log_in_for_it(
    remote: Claims, files: CountedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def run(_: Sequence[str], **options: Any) -> Completed:
        asked.append(options)
        raise Unreachable("there is no connection to alpha any more")

    remote.living()
    with monkeypatch.context() as patched:
        patched.setattr(files.transport, "run", run)
        remote.end()
    assert asked == [{"timeout": module.END_SECONDS, "may_log_in": False}]


def test_a_connection_that_is_away_for_long_loses_its_claims(
    shared: Path,
    files: CountedFiles,
    claims: Claims,
    remote: Claims,
    run: RunDirectory,
    there: RunDirectory,
) -> None:
    remote.take(there)
    files.transport.is_away = True
    with pytest.raises(Unreachable):
        remote.held([there])
    remote.release(there)  # in vain, and no error
    silent(shared, remote.id, DEAD_AFTER_SECONDS + 1)
    # Here the process itself is seen to live; its silence is what counts.
    assert claims.take(run)
    files.transport.is_away = False
    assert remote.held([there]) == set()


def test_a_claim_that_came_with_its_submission_is_no_command(
    shared: Path, files: CountedFiles, remote: Claims, claims: Claims
) -> None:
    run = RunDirectory.create(shared, new_submission_id())
    there = RunDirectory(run.path, files)
    name, content = remote.first(there)
    run.write(name, content)
    before = files.commands
    assert remote.take(there)
    assert files.commands == before
    assert remote.held([there]) == {there}
    assert not claims.take(run)


def test_who_was_first_asks_from_the_second_time_on(
    remote: Claims, claims: Claims, run: RunDirectory, there: RunDirectory
) -> None:
    name, content = remote.first(there)
    run.write(name, content)
    remote.take(there)
    (run.path / "tracker.1").write_text(f"{claims.id}\n")
    claims.living()
    assert not remote.take(there)


def test_any_number_of_claims_is_checked_by_two_commands(
    shared: Path, files: CountedFiles, remote: Claims
) -> None:
    runs = [
        RunDirectory(RunDirectory.create(shared, new_submission_id()).path, files)
        for _ in range(50)
    ]
    for run in runs[:40]:
        assert remote.take(run)
    before = files.commands
    assert remote.held(runs) == set(runs[:40])
    assert files.commands <= before + 2


def test_a_worker_elsewhere_has_its_name_alone(claims: Claims, remote: Claims) -> None:
    remote.serve_as("pool", "first")
    with pytest.raises(WorkerNameTaken, match="worker 'pool/first'"):
        claims.serve_as("pool", "first")
    remote.end()
    claims.serve_as("pool", "first")


def test_a_pool_is_cleared_up_by_one_alone(claims: Claims, remote: Claims) -> None:
    assert remote.lead("pool")
    assert not claims.lead("pool")
    remote.end()
    assert claims.lead("pool")
