"""Run Prefect 3 flows as batch jobs on HPC clusters.

Importing the package is cheap: what needs Prefect is loaded when it is first named, because the
supervisor on a node imports this package and must not.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc_bridge.decorators import BatchFlow, pbs, slurm
    from hpc_bridge.futures import BatchFlowRunFuture

__all__ = ["BatchFlow", "BatchFlowRunFuture", "pbs", "slurm"]
__version__ = "0.1.0"

_HOMES = {
    "BatchFlow": "hpc_bridge.decorators",
    "BatchFlowRunFuture": "hpc_bridge.futures",
    "pbs": "hpc_bridge.decorators",
    "slurm": "hpc_bridge.decorators",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
