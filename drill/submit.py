"""Inside the site: submits planned runs, lines of JSON on stdin, to the pool; answers line by line."""

from __future__ import annotations

import json
import os
import sys
import time

from drill.flows import work
from drill.kinds import KINDS, Planned

JOB = {"memory": "400M", "cpus_per_task": 2, "walltime": "10m"}


def main() -> None:
    """Print the flow run's id for each run as soon as it is there."""
    environment = {"env": {"DRILL_EFFECTS": os.environ["DRILL_EFFECTS"]}}
    for line in sys.stdin:
        planned = Planned(**json.loads(line))
        kind = KINDS[planned.kind]
        time.sleep(planned.pause)
        bound = work.with_options(job_variables=JOB | environment | dict(kind.variables))
        future = bound.submit_to_work_pool(kind.how, planned.seconds)
        print(future.flow_run_id, flush=True)


if __name__ == "__main__":
    main()
