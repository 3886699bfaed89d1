"""``python -m hpc_bridge.storage.upload --key KEY FILE``: the pool's bundle upload step.

Decorated flows pack and keep their bundles in their own process; this step serves whatever uses the
pool's storage through Prefect's own bundle commands.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Refuse in words: a bundle of Prefect's own making holds the submitter's settings and key."""
    parser = argparse.ArgumentParser(prog="python -m hpc_bridge.storage.upload")
    parser.add_argument("--key", required=True)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    bundle = json.loads(arguments.file.read_bytes())
    if "hpc_bridge" not in bundle:
        raise SystemExit(
            "this pool takes flows that are decorated with hpc_bridge.slurm, or deployments; a"
            " bundle made by Prefect alone would carry the submitter's API key to the cluster"
        )


if __name__ == "__main__":
    main()
