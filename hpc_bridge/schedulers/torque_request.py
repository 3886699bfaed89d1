"""From a job request to what ``qsub -l`` of Torque-style wrappers of Slurm takes.

Read in the wrappers of Slurm 22.05 and 24.11, which hand it on to sbatch. ``ppn`` are tasks there;
cores of each and tasks without a number of nodes only have the names that Cray gave them.
"""

from __future__ import annotations

from typing import Any

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import units

_DIALECT = "this site is asked through Torque-style wrappers (scheduler.dialect)"
_NO_WORD = {
    "reservation": "which name none",
    "constraint": "which do not choose nodes by what they have",
    "nodelist": "which do not take nodes by name here",
    "licenses": "which do not ask for them",
    "memory_per_cpu": "which ask for memory per node; give memory",
}
"""Fields for which PBS has a word and its dialect has none."""


def torque_nodes(spec: Any) -> str | None:
    """``nodes=2:ppn=4:gpus=1``; None when nothing of it is asked for.

    Raises InvalidJobSpec for what cannot be asked for through the wrappers.
    """
    _check(spec)
    nodes, each = spec.nodes, spec.tasks_per_node
    if each is not None and spec.tasks is not None:
        nodes = nodes or -(-spec.tasks // each)
        if nodes * each != spec.tasks:
            raise InvalidJobSpec(
                f"tasks: {spec.tasks} are not {each} on each of {nodes} nodes; leave tasks or"
                " tasks_per_node out"
            )
    gpus = _gpus_per_node(spec, nodes)
    if nodes is None and each is None and gpus is None:
        return None
    ppn, gpus_each = f":ppn={each}" if each else "", f":gpus={gpus}" if gpus else ""
    return f"nodes={nodes or 1}{ppn}{gpus_each}"


def torque_tasks(spec: Any) -> int | None:
    """Those of the whole job where it does not say how many are on each node."""
    return spec.tasks if spec.tasks_per_node is None else None


def torque_memory(mebibytes: int | None) -> str | None:
    """Of each node: ``600mb``."""
    return None if mebibytes is None else f"{units.format_memory(mebibytes).lower()}b"


def torque_begin(text: str | None) -> str | None:
    """``2027-01-31 08:00`` -> ``2027-01-31T08:00``."""
    return None if text is None else text.strip().replace(" ", "T")


def _check(spec: Any) -> None:
    for name, words in _NO_WORD.items():
        if getattr(spec, name) is not None:
            raise InvalidJobSpec(f"{name}: {_DIALECT}, {words}")
    if spec.exclusive:
        raise InvalidJobSpec(f"exclusive: {_DIALECT}, which do not ask for whole nodes")


def _gpus_per_node(spec: Any, nodes: int | None) -> int | None:
    if spec.gpus_per_node is not None:
        return int(spec.gpus_per_node)
    if spec.gpus is None:
        return None
    if int(spec.gpus) % (nodes or 1):
        raise InvalidJobSpec(
            f"gpus: {spec.gpus} cannot be shared out among {nodes} nodes; give gpus_per_node"
        )
    if nodes is None and spec.tasks is not None:
        raise InvalidJobSpec(f"gpus: {_DIALECT}, which take GPUs of each node; give nodes too")
    return int(spec.gpus) // (nodes or 1)
