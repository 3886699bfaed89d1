"""``python -m hpc_bridge.node RUN_DIR ELEMENT ATTEMPT [SIGNAL ...]``: what the job script starts.

The signals are those that came before there was anybody to take them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from signal import Signals

from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.supervisor import Supervisor

if __name__ == "__main__":
    run_dir, element, number, *early = sys.argv[1:]
    attempt = Attempt(Path(run_dir), int(element), int(number))
    sys.exit(Supervisor(attempt, early=[Signals[f"SIG{name}"] for name in early]).run())
