"""``hpc-bridge clean``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from hpc_bridge.cli.server_access import flow_runs
from hpc_bridge.errors import ServerUnreachable
from hpc_bridge.journal import RunDirectory
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.tracking.lookup import journals
from hpc_bridge.tracking.retention import Swept, sweep


def clean(shared: Path, older_than: timedelta, files: ClusterFiles = HERE, *, dry_run: bool) -> int:
    """Sweep once and say what was done; the exit code. Raises SharedDirectoryError."""
    # Submissions of format 1 have no notes of their own; the server knows how their runs are.
    swept = sweep(shared, older_than, files, dry_run=dry_run, told=_told)
    sys.stdout.write(report(swept, shared, dry_run=dry_run))
    for error in swept.errors:
        sys.stderr.write(f"hpc-bridge: cannot be removed: {error}\n")
    return 1 if swept.errors else 0


def report(swept: Swept, shared: Path, *, dry_run: bool) -> str:
    """What a sweep did, in sentences."""
    verb = "would remove" if dry_run else "removed"
    lines = [
        f"{verb} {_count(swept.count, 'run directory', 'run directories')} and"
        f" {_count(swept.bundles, 'bundle')} of {shared}: {_size(swept.bytes)}"
    ]
    if swept.kept_live:
        lines.append(f"kept {_count(swept.kept_live, 'old run')} that may be queued or running")
    if swept.untold:
        kept = _count(len(swept.untold), "old run")
        lines.append(f"kept {kept} with no told end; run: hpc-bridge reconcile")
    return "".join(f"{line}\n" for line in lines)


def _told(runs: Sequence[RunDirectory]) -> list[str]:
    """The submissions all of whose flow runs have ended on the server, or are gone from it."""
    ids = {run: [UUID(of) for of in known["flow_runs"].values()] for run, known in journals(runs)}
    if not ids:
        return []
    try:
        known = flow_runs({of for some in ids.values() for of in some})
    except ServerUnreachable:
        return []
    live = {
        of for of, flow_run in known.items() if not (flow_run.state and flow_run.state.is_final())
    }
    return [run.submission_id for run, some in ids.items() if live.isdisjoint(some)]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
