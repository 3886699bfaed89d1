"""Prefect workers; importing this registers them (the ``prefect.collections`` entry point)."""

from hpc_bridge.storage.blocks import ClusterStorage
from hpc_bridge.workers.pbs import PBSWorker
from hpc_bridge.workers.slurm import SlurmWorker

__all__ = ["ClusterStorage", "PBSWorker", "SlurmWorker"]
