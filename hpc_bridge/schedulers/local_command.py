"""The command of the embedded scheduler, as sbatch and its like are Slurm's.

    python -I -S local_command.py --state DIR [--cpus N] submit [--test-only] < script
    ...                                                  status | history [ID ...] | find NAME
    ...                                                  cancel [--waiting] ID ...
    ...                                                  signal SIGNAL ID ... | requeue ID ...
    ...                                                  hold ID ... | queues

Run as a file, it imports nothing of hpc_bridge but its own modules beside it, and of those and
Python the standard library only: a start takes some 30 ms.
"""

# pathlib is not used: importing it takes as long as all else that a start does.
from __future__ import annotations

import os
import sys


def _find_modules() -> None:
    """Make ``hpc_bridge.schedulers.local_*`` importable without running either ``__init__``."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name, folder in (
        ("hpc_bridge", os.path.dirname(here)),
        ("hpc_bridge.schedulers", here),
    ):
        package = type(sys)(name)
        package.__path__ = [folder]
        sys.modules[name] = package


if __name__ == "__main__":
    _find_modules()
    from hpc_bridge.schedulers.local_actions import main

    sys.exit(main(sys.argv[1:]))
