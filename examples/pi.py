"""Estimate pi by throwing darts, in tasks, as one batch job.

On a cluster, with PREFECT_API_URL set to the shared server:  python pi.py
On this machine alone:  HPC_BRIDGE_SCHEDULER=local python pi.py
"""

import math
import random

from prefect import flow, task
from prefect.logging import get_run_logger

from hpc_bridge import slurm


@task
def hits(seed: int, darts: int) -> int:
    """How many of ``darts`` random points of the unit square lie in the quarter circle."""
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 <= 1.0 for _ in range(darts))


@slurm(cpus_per_task=2, memory="1G", walltime="10m")
@flow(log_prints=True)
def estimate_pi(batches: int = 8, darts: int = 200_000) -> dict[str, float]:
    """Pi with its standard error."""
    futures = hits.map(range(batches), darts)
    inside = sum(future.result() for future in futures)
    share = inside / (batches * darts)
    error = 4 * math.sqrt(share * (1 - share) / (batches * darts))
    get_run_logger().info("pi = %.5f +- %.5f", 4 * share, error)
    return {"pi": 4 * share, "standard_error": error}


if __name__ == "__main__":
    print(estimate_pi())
