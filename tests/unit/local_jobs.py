"""Records of jobs of the embedded scheduler."""

from __future__ import annotations

from hpc_bridge.schedulers.local_directives import Request
from hpc_bridge.schedulers.local_records import Record

NOW = 1_750_000_000.0


def record(**changes: object) -> Record:
    values: dict[str, object] = {
        "id": 12,
        "name": "train",
        "uid": 1000,
        "cpus": 2,
        "slots": 4,
        "umask": 0o22,
        "machine": "m",
        "node": "laptop",
        "submit_dir": "/home/me",
        "submitted": "2026-01-01T00:00:00.000+00:00",
        "request": vars(Request()),
    }
    return Record(**{**values, **changes})
