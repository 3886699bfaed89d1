"""The worker of pools of type ``slurm``."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from hpc_bridge.workers.base import BatchWorker


class SlurmWorker(BatchWorker):
    """Runs flow runs as Slurm jobs, or on the embedded scheduler, which reads Slurm scripts."""

    type = "slurm"
    _display_name = "Slurm"
    _description = "Run flows as batch jobs on a Slurm cluster."

    async def setup(self) -> None:
        """As Prefect's, with a word about a package that claims the same worker type."""
        try:
            other = version("prefect-slurm")
        except PackageNotFoundError:
            pass
        else:
            self._logger.warning(
                "prefect-slurm %s is installed too and registers the worker type 'slurm': whichever"
                " is imported last takes all pools of that type. Uninstall one of the two.",
                other,
            )
        await super().setup()
