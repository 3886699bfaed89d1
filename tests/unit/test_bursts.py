"""Runs that come together leave together, and none waits for another's trouble."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest

from hpc_bridge.errors import BundleError, SchedulerUnavailable, SubmissionRefused
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.local import LocalScheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.transports.base import Completed
from hpc_bridge.workers.bursts import Gatherer
from hpc_bridge.workers.submission import JobRequest
from tests.unit.submitting import FakeSlurm, bundle, connected, request

T = TypeVar("T")

LONG = 60.0
"""A wait that no test reaches."""
REFUSED = Completed(1, "", "sbatch: error: QOSMaxSubmitJobPerUserLimit")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def slurm(shared: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return connected(shared, monkeypatch)


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 30))


def sizes(slurm: FakeSlurm) -> list[int]:
    """How many runs each submission was for."""
    found = [re.search(r"--array=0-(\d+)", script) for script in slurm.scripts]
    return [int(match[1]) + 1 if match else 1 for match in found]


def ids(requests: Iterable[JobRequest]) -> set[UUID]:
    return {one.flow_run_id for one in requests}


def worker(requests: Iterable[JobRequest]) -> Gatherer:
    """Of a worker that has been handed just these runs."""
    taken = ids(requests)
    return Gatherer(LONG, lambda: taken)


async def together(
    gatherer: Gatherer, requests: list[JobRequest]
) -> list[TrackedJob | BaseException]:
    return await asyncio.gather(*(gatherer.submit(one) for one in requests), return_exceptions=True)


def test_like_runs_that_come_together_are_one_submission(shared: Path, slurm: FakeSlurm) -> None:
    asked = [request(shared, command=bundle(shared)) for _ in range(50)]
    gatherer = worker(asked)
    jobs = run(together(gatherer, asked))
    assert sizes(slurm) == [50]
    for one, job in zip(asked, jobs, strict=True):
        assert isinstance(job, TrackedJob)
        assert job.flow_run_id == one.flow_run_id
        assert job.run.read_submission()["flow_runs"][str(job.element)] == str(one.flow_run_id)
        assert str(job.job_id) == f"100_{job.element}"
    assert (gatherer.runs, gatherer.submissions) == (50, 1)
    assert slurm.questions == 1


def test_one_run_is_a_plain_job(shared: Path, slurm: FakeSlurm) -> None:
    job = run(worker([]).submit(request(shared)))
    assert str(job.job_id) == "100"
    assert sizes(slurm) == [1]


def test_runs_that_are_not_alike_do_not_share_an_array(shared: Path, slurm: FakeSlurm) -> None:
    asked = [request(shared, walltime=walltime) for walltime in ("1h", "2h") * 3]
    run(together(worker(asked), asked))
    assert sizes(slurm) == [3, 3]
    times = [set(re.findall("--time=(.*)", script)) for script in slurm.scripts]
    assert sorted(map(sorted, times)) == [["01:00:00"], ["02:00:00"]]


def test_an_array_is_never_larger_than_the_scheduler_takes(shared: Path, slurm: FakeSlurm) -> None:
    slurm.max_array_size = 4
    asked = [request(shared) for _ in range(10)]
    run(together(worker(asked), asked))
    assert sorted(sizes(slurm)) == [2, 4, 4]


def test_a_full_array_does_not_wait_for_the_window(shared: Path, slurm: FakeSlurm) -> None:
    slurm.max_array_size = 3
    run(together(Gatherer(LONG, lambda: [uuid4()]), [request(shared) for _ in range(6)]))
    assert sizes(slurm) == [3, 3]


def test_runs_that_come_one_after_the_other_are_waited_for(shared: Path, slurm: FakeSlurm) -> None:
    async def main() -> None:
        asked = [request(shared) for _ in range(5)]
        gatherer = Gatherer(LONG, lambda: ids(asked))
        coming = []
        for one in asked:
            assert slurm.scripts == []
            coming.append(asyncio.ensure_future(gatherer.submit(one)))
            await asyncio.sleep(0.15)
        await asyncio.gather(*coming)

    run(main())
    assert sizes(slurm) == [5]


def test_but_not_longer_than_it_is_set(shared: Path, slurm: FakeSlurm) -> None:
    late = uuid4()
    begun = time.monotonic()
    run(Gatherer(0.5, lambda: [late]).submit(request(shared)))
    assert 0.5 <= time.monotonic() - begun < 5
    assert sizes(slurm) == [1]


def test_a_run_that_never_comes_is_not_waited_for_when_it_is_given_up(
    shared: Path, slurm: FakeSlurm
) -> None:
    async def main() -> None:
        asked = [request(shared) for _ in range(2)]
        taken = {*ids(asked), uuid4()}
        waiting = asyncio.ensure_future(together(Gatherer(LONG, lambda: taken), asked))
        await asyncio.sleep(0.3)
        assert slurm.scripts == []
        taken.intersection_update(ids(asked))
        await waiting

    run(main())
    assert sizes(slurm) == [2]


def test_a_run_that_was_handed_out_alone_leaves_at_once(shared: Path, slurm: FakeSlurm) -> None:
    asked = request(shared)
    run(Gatherer(LONG, lambda: ids([asked])).submit(asked))
    assert sizes(slurm) == [1]


@pytest.mark.parametrize("why", ["switched off", "no arrays", "not said", "own template"])
def test_without_arrays_every_run_leaves_at_once(
    shared: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    values: dict[str, Any] = {}
    if why == "switched off":
        values = {"arrays": False}
    elif why == "no arrays":
        slurm = connected(shared, monkeypatch, LocalScheduler(shared / "local"))
        values = {"scheduler": "local"}
    elif why == "not said":
        monkeypatch.setattr("tests.unit.submitting.CONFIG", "nothing {}")
    else:
        values = {"template": "#!/bin/bash\ntrue\n"}
    asked = [request(shared, **values) for _ in range(3)]
    run(together(Gatherer(LONG, lambda: [uuid4()]), asked))
    assert sizes(slurm) == [1, 1, 1]
    assert slurm.questions == (0 if why == "no arrays" else 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (REFUSED, SubmissionRefused),
        (Completed(1, "", "Unable to contact slurm controller"), SchedulerUnavailable),
    ],
)
def test_a_refusal_is_every_members_in_the_schedulers_words(
    shared: Path, slurm: FakeSlurm, answer: Completed, kind: type[Exception]
) -> None:
    slurm.refusal = answer
    asked = [request(shared) for _ in range(3)]
    errors = run(together(worker(asked), asked))
    assert [type(error) for error in errors] == [kind] * 3
    assert all(answer.stderr.removeprefix("sbatch: error: ") in str(error) for error in errors)


def test_what_is_wrong_with_one_run_is_not_its_neighbours(shared: Path, slurm: FakeSlurm) -> None:
    (shared / "bundles").mkdir(mode=0o700)
    gone = f"python -m hpc_bridge.node.execute --key {uuid4()}"
    asked = [request(shared, command=one) for one in (bundle(shared), gone, bundle(shared))]
    first, error, last = run(together(worker(asked), asked))
    assert isinstance(error, BundleError)
    assert isinstance(first, TrackedJob)
    assert isinstance(last, TrackedJob)
    assert sizes(slurm) == [2]


def test_a_worker_that_shuts_down_still_submits_what_it_has_taken(
    shared: Path, slurm: FakeSlurm
) -> None:
    async def main() -> list[TrackedJob | BaseException]:
        gatherer = Gatherer(LONG, lambda: [uuid4()])
        waiting = [asyncio.ensure_future(gatherer.submit(request(shared))) for _ in range(3)]
        while sum(len(group.requests) for group in gatherer._gathering.values()) < 3:
            await asyncio.sleep(0.01)
        waiting[0].cancel()
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, *others = run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert all(isinstance(job, TrackedJob) for job in others)
    assert sizes(slurm) == [3]


def test_so_it_does_when_its_event_loop_is_closed(shared: Path, slurm: FakeSlurm) -> None:
    async def main() -> None:
        gatherer = Gatherer(LONG, lambda: [uuid4()])
        waiting = [asyncio.ensure_future(gatherer.submit(request(shared))) for _ in range(3)]
        while sum(len(group.requests) for group in gatherer._gathering.values()) < 3:
            await asyncio.sleep(0.01)
        assert not any(one.done() for one in waiting)

    run(main())
    assert sizes(slurm) == [3]


def test_the_event_loop_goes_on_while_the_scheduler_thinks(shared: Path, slurm: FakeSlurm) -> None:
    async def main() -> int:
        gatherer = worker([])
        slurm.gate.clear()
        submitting = asyncio.ensure_future(gatherer.submit(request(shared)))
        turns = 0
        while not slurm.begun.is_set() or turns < 20:
            await asyncio.sleep(0.005)
            turns += 1
        assert not submitting.done()
        slurm.gate.set()
        await submitting
        return turns

    assert run(main()) >= 20


def test_a_refused_group_leaves_the_next_one_alone(shared: Path, slurm: FakeSlurm) -> None:
    async def main() -> TrackedJob:
        asked = [request(shared) for _ in range(3)]
        gatherer = Gatherer(LONG, lambda: ids(asked[:2]))
        slurm.refusal = REFUSED
        await together(gatherer, asked[:2])
        slurm.refusal = None
        return await gatherer.submit(asked[2])

    assert str(run(main()).job_id) == "100"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("MaxArraySize            = 1001\n", 1001),  # indices end at 1000
        ("MaxArraySize = 1001\nSchedulerParameters = bf_interval=2,max_array_tasks=50\n", 50),
        ("MaxArraySize = 0\n", 1),  # which forbids arrays
    ],
)
def test_how_large_an_array_may_be(text: str, limit: int) -> None:
    answer = Answer(("scontrol",), 0, text, "")
    assert SlurmScheduler().parse_array_limit(answer) == limit
