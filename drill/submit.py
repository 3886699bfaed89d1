"""Inside the site: submits planned runs to the pool. Lines of JSON come, ids of flow runs go."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client

from benchmarks.places import CHECKOUT
from drill.flows import work
from drill.kinds import KINDS, Kind, Planned

JOB: dict[str, Any] = {"memory": "400M", "cpus_per_task": 2, "walltime": "10m"}


def main() -> None:
    """Print the flow run's id for each run as soon as it is there."""
    deployment = deploy()
    for line in sys.stdin:
        planned = Planned(**json.loads(line))
        time.sleep(planned.pause)
        print(submit(KINDS[planned.kind], planned.seconds, deployment), flush=True)


def deploy() -> UUID:
    """Make the deployment that some of the runs are of."""
    source: Any = flow.from_source(source=str(CHECKOUT), entrypoint="drill/flows.py:work")
    with redirect_stdout(sys.stderr):  # it prints a table
        return UUID(str(source.deploy("drill", print_next_steps=False)))


def submit(kind: Kind, seconds: float, deployment: UUID) -> UUID:
    """Leave one run for the workers of the pool."""
    environment = {"DRILL_EFFECTS": os.environ["DRILL_EFFECTS"]}
    variables = JOB | {"env": environment} | dict(kind.variables)
    if not kind.deployed:
        bound = work.with_options(job_variables=variables)
        return bound.submit_to_work_pool(kind.how, seconds).flow_run_id
    with get_client(sync_client=True) as client:
        parameters = {"how": kind.how, "seconds": seconds}
        return client.create_flow_run_from_deployment(
            deployment, parameters=parameters, job_variables=variables
        ).id


if __name__ == "__main__":
    main()
