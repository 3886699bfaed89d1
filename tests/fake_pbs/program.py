"""``python -S -E program.py NAME ARGUMENTS...``: the program NAME of the fake PBS.

The state folder is ``FAKE_PBS_HOME``. Every call is written to ``calls.log`` there.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time

PROGRAMS = {
    "qsub": ("server.qsub", "main"),
    "qstat": ("server.qstat", "main"),
    "pbsnodes": ("server.pbsnodes", "main"),
    **{
        name: ("server.actions", name)
        for name in ("qdel", "qrerun", "qhold", "qrls", "qselect", "tick", "revive")
    },
}


def main() -> int:
    program, words = sys.argv[1], sys.argv[2:]
    folder = os.environ.get("FAKE_PBS_HOME")
    if not folder:
        print("fake PBS: FAKE_PBS_HOME is not set", file=sys.stderr)
        return 255
    from server.store import Store  # type: ignore[import-not-found]

    store = Store(folder)
    with open(f"{folder}/calls.log", "a") as file:
        file.write(json.dumps([round(time.time(), 3), program, *words]) + "\n")
    _wait(store, program)
    if words == ["--version"]:
        print(f"pbs_version = {store.config['version']}")
        return 0
    module, function = PROGRAMS[program]
    return getattr(importlib.import_module(module), function)(store, words)


def _wait(store: object, program: str) -> None:
    """The switches ``hang`` (programs, or nothing for all) and ``slow`` (seconds)."""
    hang = store.switch("hang")
    while hang is not None and (not hang or program in hang.split()):
        time.sleep(0.1)
        hang = store.switch("hang")
    slow = store.switch("slow")
    if slow is not None and program not in ("tick", "revive"):
        time.sleep(float(slow or 1))


if __name__ == "__main__":
    sys.exit(main())
