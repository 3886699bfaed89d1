"""Like runs that are ready together are one job array, and each of them is a run of its own."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.actions import WorkPoolUpdate

from tests.server import server_client
from tests.site.conftest import Site
from tests.waiting import until

FLOWS = """
import os, time
from prefect import flow
from hpc_bridge import slurm

@slurm(walltime="5m", memory="300M")
@flow
def element(n: int) -> list:
    began = time.time()
    print(f"this is run {n}")
    time.sleep(1)
    return [n, os.environ["PREFECT__FLOW_RUN_ID"], began, time.time()]
"""
DEPLOY = """
import os
from prefect import flow
source = flow.from_source(source=os.path.abspath("bursts"), entrypoint="flows.py:element")
print(source.deploy("burst", print_next_steps=False))
"""
READ = """
import json, sys
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(json.dumps([client.read_flow_run(run).state.result() for run in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def deployment(site: Site, site_worker: str) -> UUID:
    site.put("bursts/flows.py", FLOWS)
    site.put("deploy_burst.py", DEPLOY)
    site.put("read_results.py", READ)
    done = site.python("deploy_burst.py")
    assert done.returncode == 0, done.stderr
    return UUID(done.stdout.split()[-1])


def burst(deployment: UUID, pool: str, count: int, **job_variables: Any) -> list[UUID]:
    """Runs that become ready at the same moment."""
    with server_client() as client:
        client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
        try:
            return [
                client.create_flow_run_from_deployment(
                    deployment, parameters={"n": n}, job_variables=job_variables
                ).id
                for n in range(count)
            ]
        finally:
            client.update_work_pool(pool, WorkPoolUpdate(is_paused=False))


def states(runs: list[UUID]) -> list[str]:
    with server_client() as client:
        return [client.read_flow_run(run).state.name for run in runs]


def results_of(site: Site, runs: list[UUID]) -> list[Any]:
    done = site.python("read_results.py", *map(str, runs))
    assert done.returncode == 0, done.stderr
    results: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def jobs_of(site: Site, runs: list[UUID]) -> list[tuple[str, str, str]]:
    """(array, element, submission) of each run, once all are submitted."""

    def noted() -> list[str]:
        with server_client() as client:
            found = [client.read_flow_run(run).infrastructure_pid for run in runs]
        return [text for text in found if text] if all(found) else []

    references = [text.split(":") for text in until(noted, 60, "all runs are submitted")]
    return [(*site.batch.split(job), name) for _, job, name in references]


def test_each_element_has_its_own_run_output_and_end(
    site: Site, site_worker: str, deployment: UUID
) -> None:
    runs = burst(deployment, site_worker, 5)
    jobs = jobs_of(site, runs)
    assert len({array for array, _, _ in jobs}) == 1
    assert sorted(element for _, element, _ in jobs) == list("01234")
    until(lambda: set(states(runs)) == {"Completed"}, 120, "all runs are completed")
    results = results_of(site, runs)
    assert [result[:2] for result in results] == [[n, str(run)] for n, run in enumerate(runs)]
    for n, (_, element, name) in enumerate(jobs):
        folder = f"~/.hpc-bridge/runs/{name}/{element}"
        assert f"this is run {n}" in site.shell(f"cat {folder}/job.out")
        assert '"exit_code": 0' in site.shell(f"cat {folder}/0/exit.json")
    assert site.batch.jobs_named([jobs[0][2]]) == [1]


def test_a_cancelled_element_leaves_the_others_alone_and_the_throttle_holds(
    site: Site, site_worker: str, deployment: UUID
) -> None:
    runs = burst(deployment, site_worker, 3, array_throttle=1)
    by_element = sorted(
        (element, run) for (_, element, _), run in zip(jobs_of(site, runs), runs, strict=True)
    )
    array = jobs_of(site, runs)[0][0]
    cancelled = by_element[2][1]
    others = [run for _, run in by_element[:2]]
    site.batch.cancel(site.batch.element(array, 2))
    until(lambda: states([cancelled]) == ["Cancelled"], 60, "the element's run is cancelled")
    until(lambda: set(states(others)) == {"Completed"}, 120, "the others are completed")
    first, second = results_of(site, others)
    assert first[3] <= second[2]
