"""``python -m hpc_bridge.node RUN_DIR ELEMENT ATTEMPT``: what the job script starts."""

from __future__ import annotations

import sys
from pathlib import Path

from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.supervisor import Supervisor

if __name__ == "__main__":
    run_dir, element, number = sys.argv[1:]
    sys.exit(Supervisor(Attempt(Path(run_dir), int(element), int(number))).run())
