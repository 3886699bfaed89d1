"""The worker of each type of pool."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_bridge.settings import PoolType, SchedulerName, pool_type
from hpc_bridge.workers.base import BatchWorker
from hpc_bridge.workers.pbs import PBSWorker
from hpc_bridge.workers.slurm import SlurmWorker

WORKERS: Mapping[PoolType, type[BatchWorker]] = {"slurm": SlurmWorker, "pbs": PBSWorker}


def worker_for(scheduler: SchedulerName) -> type[BatchWorker]:
    """That of the pools whose jobs go to the scheduler."""
    return WORKERS[pool_type(scheduler)]
