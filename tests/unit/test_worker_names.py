"""A worker's name in its pool is one process's, and tells who has died."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_bridge.errors import WorkerNameTaken
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.claims import Claims
from tests.unit.claiming import Process, Start, another, silent


def test_a_worker_is_known_by_its_name(claims: Claims) -> None:
    claims.serve_as("pool", "w1")
    (holder,) = claims.living()
    assert (holder.worker, holder.pid) == ("pool/w1", os.getpid())
    assert str(holder) == f"worker 'pool/w1' (pid {os.getpid()} on {holder.host})"


def test_a_second_worker_of_a_name_is_refused_with_the_first_one_named(
    claims: Claims, start: Start
) -> None:
    other = start()
    assert other.ask("serve", "pool", "w1") == "serves"
    with pytest.raises(
        WorkerNameTaken,
        match=rf"^worker 'pool/w1' \(pid {other.process.pid} on .*\) serves pool 'pool' under the"
        " name 'w1' already; stop it, or give this one another --name$",
    ):
        claims.serve_as("pool", "w1")


def test_workers_of_other_names_and_pools_get_along(claims: Claims, start: Start) -> None:
    assert start().ask("serve", "pool", "w1") == "serves"
    assert start().ask("serve", "pool", "w2") == "serves"
    assert start().ask("serve", "pool/w1", "w") == "serves"
    claims.serve_as("pool2", "w1")


def test_of_workers_of_one_name_that_start_together_one_serves(start: Start) -> None:
    processes = [start() for _ in range(6)]
    for turn in range(5):
        for process in processes:
            process.tell("serve", "pool", f"name{turn}")
        heard = [process.hear() for process in processes]
        assert heard.count("serves") == 1, heard


@pytest.mark.parametrize("end", [Process.end, Process.kill])
def test_the_name_of_a_worker_that_is_gone_is_free_at_once(
    claims: Claims, start: Start, end: Callable[[Process], None]
) -> None:
    other = start()
    other.ask("serve", "pool", "w1")
    end(other)
    claims.serve_as("pool", "w1")


def test_a_process_may_serve_after_it_took_a_claim(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    assert claims.take(run)
    claims.serve_as("pool", "w1")
    assert claims.take(run)
    assert start().ask("serve", "pool", "w1") != "serves"


def test_a_worker_that_was_refused_leaves_the_claims_of_its_process_alone(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.ask("serve", "pool", "w1")
    claims.take(run)
    with pytest.raises(WorkerNameTaken):
        claims.serve_as("pool", "w1")
    assert not other.takes(run)
    claims.serve_as("pool", "w2")


def test_dead_workers_are_those_that_were_killed(claims: Claims, start: Start) -> None:
    killed, ended, alive, plain = start(), start(), start(), start()
    for name, process in (("killed", killed), ("ended", ended), ("alive", alive)):
        process.ask("serve", "pool", name)
    killed.kill()
    ended.end()
    plain.kill()
    assert claims.dead_workers() == {"pool/killed"}
    start().ask("serve", "pool", "killed")
    assert claims.dead_workers() == set()


def test_files_of_dead_processes_are_removed_after_a_day(claims: Claims, shared: Path) -> None:
    claims.living()
    recent, old = (another(shared, pid_started="1", worker="pool/w") for _ in range(2))
    silent(shared, recent, 86000)
    silent(shared, old, 86500)
    assert claims.dead_workers() == {"pool/w"}
    left = {path.stem for path in (shared / "trackers").iterdir()}
    assert left == {claims._id, recent}
