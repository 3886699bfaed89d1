"""``python -m benchmarks.inside NAME SCHEDULER SHARED_DIR [--quick]``: one benchmark, as JSON.

What runs where jobs are submitted: on the login host of the test site, or here.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.rows import Run, as_dict

if __name__ == "__main__":
    name, scheduler, shared, *options = sys.argv[1:]
    benchmark = importlib.import_module(f"benchmarks.{name}")
    rows = benchmark.measure(Run(scheduler, Path(shared), "--quick" in options))
    print(json.dumps({"title": benchmark.TITLE, "rows": [as_dict(row) for row in rows]}))
