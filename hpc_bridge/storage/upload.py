"""``python -m hpc_bridge.storage.upload``: the pool's bundle upload step, which refuses.

Prefect wants a pool to have one. Decorated flows keep their bundles in their own process; a bundle
of Prefect's own making would carry the submitter's settings, and so its API key, to the cluster.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.exit(
        "this pool takes flows that are decorated with hpc_bridge.slurm or pbs, and deployments; a"
        " bundle made by Prefect alone would carry the submitter's API key to the cluster"
    )
