"""kill -9 at any point, on a real scheduler: every run ends right, by one job, with one effect."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from prefect.states import Cancelling

from hpc_bridge.journal import new_submission_id
from tests.server import server_client
from tests.site.conftest import (
    Caller,
    Site,
    Worker,
    burst,
    counted_deployment,
    create_run,
    ends,
    in_place_of_submit,
    job_of,
    read,
    side_by_side,
)
from tests.waiting import HUNG, until

COMMAND = str(Path(sys.executable).with_name("hpc-bridge"))
ADOPTED = 20
"""Seconds for a worker's start-up and one poll, on a machine that has much else to do."""


@pytest.fixture(scope="module", autouse=True)
def folder(site: Site) -> str:
    site.shell("mkdir -p restarts")
    return site.path("restarts")


def starts(site: Site, run: UUID) -> list[str]:
    """Jobs that have begun the flow, one a start."""
    path = site.home() / "restarts" / f"{run}.starts"
    return path.read_text().split() if path.exists() else []


def jobs_named(site: Site, *runs: UUID) -> list[int]:
    """How many jobs, an array being one, the scheduler knows of each run's submission."""
    return site.batch.jobs_named([read(run).infrastructure_pid.split(":")[2] for run in runs])


def until_all(runs: list[UUID], name: str, seconds: float = 120) -> None:
    until(lambda: all(read(run).state.name == name for run in runs), seconds, f"all are {name}")


def is_looked_after(site: Site, run: UUID, worker: Worker) -> bool:
    """Whether the worker holds the newest claim on the run's submission."""
    reference = read(run).infrastructure_pid
    if reference is None:
        return False
    folder = site.home() / ".hpc-bridge/runs" / reference.split(":")[2]
    newest = max(folder.glob("tracker.*"), key=lambda path: int(path.name.split(".")[1]))
    return f"-{worker.pid}-" in newest.read_text()


def killing_submit(site: Site, name: str, before: str, after: str) -> str:
    """A PATH to a command that kills who submits by it, once, before or after the real one."""
    site.shell(f"rm -f {name}/done")
    return in_place_of_submit(
        site,
        name,
        f'[ -e HERE/done ] && exec SUBMIT "$@"\ntouch HERE/done\n{before}\nSUBMIT "$@"\n{after}\n',
    )


def killed_around_a_submission(site: Site) -> None:
    pool = "killed-around"
    after = killing_submit(site, "after", "", "kill -9 $PPID")
    before = killing_submit(site, "before", "kill -9 $PPID; exit 1", "")
    with Worker(site, pool, "around", PATH=after) as worker:
        deployment = counted_deployment(pool, site.path("restarts"))
        taken = create_run(deployment)
        until(lambda: worker.is_over, 60, "the worker is killed after the real command")
    assert read(taken).infrastructure_pid is None
    with Worker(site, pool, "around", PATH=before) as worker:
        until(lambda: is_looked_after(site, taken, worker), ADOPTED, "the job is adopted")
        lost = create_run(deployment)
        until(lambda: worker.is_over, 60, "the worker is killed before the real command")
    assert read(lost).infrastructure_pid is None
    with Worker(site, pool, "around"):
        until_all([taken, lost], "Completed")
    assert [ends(run) for run in (taken, lost)] == [["Completed"]] * 2
    assert jobs_named(site, taken, lost) == [1, 1]
    assert [len(starts(site, run)) for run in (taken, lost)] == [1, 1]


def killed_while_jobs_run_and_wait_and_end(site: Site) -> None:
    pool = "killed"
    with Worker(site, pool, "killed") as worker:
        deployment = counted_deployment(pool, site.path("restarts"))
        waits = create_run(deployment, **site.batch.held)
        runs = create_run(deployment, 25)
        completes = create_run(deployment, 6)
        vanishes = create_run(deployment, 300)
        leaves = create_run(deployment, **site.batch.later())
        cancelled = create_run(deployment, **site.batch.later(2))
        everything = [waits, runs, completes, vanishes, leaves, cancelled]
        jobs = {run: job_of(run) for run in everything}
        running = [runs, completes, vanishes]
        until(lambda: all(starts(site, run) for run in running), 90, "the flows run")
        worker.kill()
    for run in (vanishes, leaves):
        site.batch.cancel(jobs[run])
    with server_client() as client:
        client.set_flow_run_state(cancelled, Cancelling())
    ended = [jobs[run] for run in (completes, vanishes, leaves)]
    until(lambda: not site.batch.queued(*ended), 60, "three jobs end while nobody looks")
    assert not read(leaves).state.is_final()
    assert not read(vanishes).state.is_cancelled()
    with Worker(site, pool, "killed") as worker:
        until(lambda: is_looked_after(site, waits, worker), ADOPTED, "the jobs are adopted")
        until_all([leaves, vanishes, cancelled], "Cancelled", ADOPTED)
        for run, by in ((leaves, site.batch.by_owner), (vanishes, f" by {site.account}")):
            assert f"cancelled at the scheduler{by}" in read(run).state.message
        until_all([runs, completes], "Completed")
        assert worker.memory() < 300
        worker.kill("TERM")
    site.batch.release(jobs[waits])
    until_all([waits], "Completed")
    told = [ends(run) for run in everything]
    if told[3][0] == "Crashed":  # as the node said, unless it was killed before
        told[3].pop(0)
    assert told == [["Completed"]] * 3 + [["Cancelled"]] * 3
    assert jobs_named(site, *everything[:4]) == [1] * 4
    assert [len(starts(site, run)) for run in everything] == [1, 1, 1, 1, 0, 0]


def test_a_worker_may_be_killed_at_any_point(site: Site) -> None:
    side_by_side(
        partial(killed_around_a_submission, site),
        partial(killed_while_jobs_run_and_wait_and_end, site),
    )


def test_two_workers_of_a_pool_share_its_runs_and_one_takes_over_the_others(site: Site) -> None:
    pool = "shared-by-two"
    with Worker(site, pool, "left") as left, Worker(site, pool, "right") as right:
        workers = [left, right]
        deployment = counted_deployment(pool, site.path("restarts"))
        runs = burst(pool, deployment, 6, arrays=False)
        held = burst(pool, deployment, 4, arrays=False, **site.batch.held)

        def keepers(run: UUID) -> list[Worker]:
            return [worker for worker in workers if is_looked_after(site, run, worker)]

        jobs = [job_of(run) for run in held]
        until_all(runs, "Completed")
        assert [len(keepers(run)) for run in held] == [1] * 4
        killed = keepers(held[0])[0]
        survivor = right if killed is left else left
        killed.kill()
        until(
            lambda: all(is_looked_after(site, run, survivor) for run in held),
            ADOPTED,
            "the other takes over",
        )
        site.batch.release(*jobs)
        until_all(held, "Completed")
        assert survivor.memory() < 300
    everything = [*runs, *held]
    assert jobs_named(site, *everything) == [1] * 10
    assert [len(starts(site, run)) for run in everything] == [1] * 10
    assert [ends(run) for run in everything] == [["Completed"]] * 10


def test_a_second_worker_of_the_same_name_is_refused(site: Site) -> None:
    with Worker(site, "named", "twin"):
        second = Worker(site, "named", "twin", log="second")
        until(lambda: second.is_over, 60, "the second ends")
    assert "serves pool 'named' under the name 'twin' already" in second.text
    assert "Traceback" not in second.text


def left_job_is_told(site: Site, place: Site, shared: str) -> None:
    """By ``reconcile``, where the script was killed that had submitted it."""
    tag = shared.rpartition("/")[2]
    folder = site.path("restarts")
    caller = Caller(place, "submit", tag, folder=folder, shared_dir=shared, **site.batch.held)
    until(caller.is_ready, 90, "the run is submitted")
    caller.signal("KILL")
    caller.process.communicate(timeout=HUNG)
    run = caller.flow_run_id
    site.batch.cancel(job_of(run))
    assert not read(run).state.is_final()
    done = place.run(COMMAND, "reconcile", HPC_BRIDGE_SHARED_DIR=shared)
    assert done.returncode == 0, done.stderr
    assert "its flow run is Cancelled" in done.stdout
    assert ends(run) == ["Cancelled"]
    again = place.run(COMMAND, "reconcile", HPC_BRIDGE_SHARED_DIR=shared)
    assert "Nothing to do" in again.stdout


def test_reconcile_tells_what_became_of_a_job_that_nobody_looked_after(site: Site) -> None:
    left_job_is_told(site, site, site.path("left-alone"))


def as_format_1(folder: Path) -> None:
    """What the first version would have left: no pool, no index, the bundle beside the script."""
    journal = json.loads((folder / "submission.json").read_text())
    journal = {name: value for name, value in journal.items() if not name.startswith("work_pool")}
    (folder / "submission.json").write_text(json.dumps({**journal, "format": 1}))
    (folder / "0" / "bundle.json").rename(folder / "bundle.json")
    (folder / "0").rmdir()
    for claim in folder.glob("tracker.*"):
        claim.unlink()
    (folder.parents[1] / "live" / folder.name).unlink()


def test_runs_of_the_version_before_are_adopted_and_newer_ones_left_alone(
    site: Site, folder: str
) -> None:
    shared = site.path("older")
    held = site.batch.held
    caller = Caller(site, "submit", "older", 0, folder=folder, shared_dir=shared, **held)
    until(caller.is_ready, 90, "the run is submitted")
    caller.signal("KILL")
    caller.process.communicate(timeout=HUNG)
    run = caller.flow_run_id
    submission = read(run).infrastructure_pid.split(":")[2]
    runs = site.home() / "older" / "runs"
    as_format_1(runs / submission)
    newer = new_submission_id()
    site.shell(f"cd {shared} && cp -r runs/{submission} runs/{newer} && touch live/{newer}")
    path = runs / newer / "submission.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with Worker(site, "newest", "newest", HPC_BRIDGE_SHARED_DIR=shared) as worker:
        words = f"{newer} was written by a newer version of hpc-bridge and is left alone"
        until(lambda: words in worker.text, ADOPTED, "the newer one is named")
        until(lambda: list((runs / submission).glob("tracker.*")), ADOPTED, "the older is adopted")
        site.batch.release(job_of(run))
        until_all([run], "Completed")
        assert worker.text.count(words) == 1
    assert not list((runs / newer).glob("tracker.*"))
    assert len(starts(site, run)) == 1
