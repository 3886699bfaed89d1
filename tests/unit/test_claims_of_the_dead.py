"""Who is taken for dead, and whose claims are free."""

from __future__ import annotations

import os
import signal

from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.claims import DEAD_AFTER_SECONDS, Claims
from tests.unit.claiming import Start, another, held_by, silent
from tests.waiting import until

# processes that end


def test_the_claim_of_a_process_that_was_killed_is_free_at_once(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    assert other.takes(run)
    assert not claims.take(run)
    other.kill()
    assert claims.take(run)
    assert claims.held([run])


def test_a_zombie_holds_nothing(claims: Claims, run: RunDirectory, start: Start) -> None:
    """Its parent has not asked for its end yet."""
    other = start()
    other.takes(run)
    os.kill(other.process.pid, signal.SIGKILL)
    until(lambda: claims.take(run), 10, "the claim of a zombie to be free")


def test_the_claim_of_a_process_that_ended_well_is_free_at_once(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    assert other.takes(run)
    other.end()
    assert [holder.pid for holder in claims.living()] == [os.getpid()]
    assert claims.take(run)


def test_a_process_that_was_stopped_keeps_its_claim_until_it_is_silent_too_long(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    os.kill(other.process.pid, signal.SIGSTOP)
    assert not claims.take(run)
    (identity,) = [holder.id for holder in claims.living() if holder.pid == other.process.pid]
    silent(run.shared, identity, DEAD_AFTER_SECONDS - 30)
    assert not claims.take(run)
    silent(run.shared, identity, 60)
    assert claims.take(run)
    os.kill(other.process.pid, signal.SIGCONT)
    assert not other.takes(run), "it came back, and its claim was gone"


def test_a_process_that_lives_renews_its_claim(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    (identity,) = [holder.id for holder in claims.living() if holder.pid == other.process.pid]
    silent(run.shared, identity, DEAD_AFTER_SECONDS * 2)
    path = run.shared / "trackers" / f"{identity}.json"
    before = path.stat().st_mtime
    until(lambda: path.stat().st_mtime > before, 10, "the renewal")
    assert not claims.take(run)


def test_a_file_that_somebody_removed_comes_back(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    (identity,) = [holder.id for holder in claims.living() if holder.pid == other.process.pid]
    path = run.shared / "trackers" / f"{identity}.json"
    path.unlink()
    until(path.exists, 10, "the file")
    assert not claims.take(run)


def test_that_ones_own_file_was_removed_is_nobody_elses_death(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    claims.living()
    (run.shared / "trackers" / f"{claims._id}.json").unlink()
    assert not claims.take(run)
    assert claims.id in {holder.id for holder in Claims(run.shared).living()}


# processes that cannot be seen from here


def test_a_process_of_another_machine_is_judged_by_its_silence(
    claims: Claims, run: RunDirectory
) -> None:
    identity = another(run.shared, place="another boot/pid:[1]", pid=2**22 + 1)
    held_by(run, identity)
    assert not claims.take(run)
    silent(run.shared, identity, DEAD_AFTER_SECONDS - 10)
    assert not claims.take(run)
    silent(run.shared, identity, 20)
    assert claims.take(run)


def test_a_pid_that_came_again_is_another_process(claims: Claims, run: RunDirectory) -> None:
    held_by(run, another(run.shared, pid_started="1"))
    assert claims.take(run)


def test_a_process_of_a_newer_version_is_judged_by_its_silence(
    claims: Claims, run: RunDirectory
) -> None:
    """Its file may say other things than ours."""
    identity = "elsewhere-1-abc"
    claims.living()
    path = run.shared / "trackers" / f"{identity}.json"
    path.write_text('{"format": 2, "node": "login2"}')
    held_by(run, identity)
    assert not claims.take(run)
    silent(run.shared, identity, DEAD_AFTER_SECONDS + 1)
    assert claims.take(run)
