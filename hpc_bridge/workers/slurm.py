"""The worker of pools of type ``slurm``."""

from __future__ import annotations

from hpc_bridge.workers.base import BatchWorker


class SlurmWorker(BatchWorker):
    """Runs flow runs as Slurm jobs, or on the embedded scheduler, which reads Slurm scripts."""

    type = "slurm"
    _description = "Run flows as batch jobs on a Slurm cluster."
    _display_name = "Slurm"
