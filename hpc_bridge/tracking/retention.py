"""Removes run directories and bundles that nobody needs any more. File system only; blocks.

Results are the users' own and are never removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_bridge.journal import RunDirectory, is_submission_id, shared_directory_errors
from hpc_bridge.settings import Settings

if TYPE_CHECKING:
    from hpc_bridge.sites.site import Site

REMOVING = ".removing-"
"""Begins the name of what is being removed; what a dead process left so is finished later."""


@dataclass(slots=True)
class Swept:
    """What one sweep did, or would have done."""

    count: int = 0
    """Run directories removed."""
    bundles: int = 0
    bytes: int = 0
    """Space that became free."""
    kept_live: int = 0
    """Kept although old: their jobs may be queued or running."""
    untold: list[str] = field(default_factory=list)
    """Submissions kept although old: their jobs have ended, which no server has been told."""
    errors: list[str] = field(default_factory=list)


def kept_for(settings: Settings, site: Site | None) -> timedelta | None:
    """How long after their end: as the user has set it, else as the site has; None is for ever."""
    if site is None or "retention" in settings.model_fields_set:
        return settings.retention
    return site.profile.retention


def sweep(
    shared: Path,
    older_than: timedelta,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    told: Collection[str] = (),
) -> Swept:
    """Remove what ended longer than ``older_than`` ago, and bundles that no run links to.

    1. A submission with a live marker, or with a flow run whose end is not told, stays. ``told``
       names submissions without such notes (format 1) whose flow runs are known to have ended.
    2. A directory is renamed first, so that nobody finds half of one; any process may finish.
    3. What cannot be removed is told in ``errors`` and hinders nothing else.
    """
    before = (now or datetime.now(UTC)) - older_than
    swept = Swept()
    remover = _Remover(swept, dry_run=dry_run)
    with shared_directory_errors(shared):
        for folder in ("runs", "bundles"):
            for left in _entries(shared / folder):
                if left.name.startswith(REMOVING):
                    remover.finish(left)
        for path in _entries(shared / "runs"):
            if is_submission_id(path.name) and _last_change(path) < before:
                _sweep_run(RunDirectory(path), told, swept, remover)
        for path in _entries(shared / "bundles"):
            if not path.name.startswith(".") and _last_change(path) < before:
                swept.bundles += not remover.is_linked(path) and remover.remove(path)
    return swept


def _sweep_run(run: RunDirectory, told: Collection[str], swept: Swept, remover: _Remover) -> None:
    try:
        verdict = _verdict(run, told=run.submission_id in told)
    except (OSError, ValueError, KeyError) as error:
        swept.errors.append(f"{run.path}: {error}")
        return
    if verdict == "live":
        swept.kept_live += 1
    elif verdict == "untold":
        swept.untold.append(run.submission_id)
    else:
        swept.count += remover.remove(run.path)


def _verdict(run: RunDirectory, *, told: bool) -> str:
    """``live``, ``untold`` or ``over``."""
    marked = (run.shared / "live" / run.submission_id).exists()
    elements = _elements(run)
    if not marked and (told or all(run.settled(element) is not None for element in elements)):
        return "over"
    ended = all(
        run.settled(element) is not None or run.exit_record(element) is not None
        for element in elements
    )
    return "untold" if ended and elements else "live"


def _elements(run: RunDirectory) -> list[int]:
    """Of the journal; empty when there is none, and so nothing was submitted."""
    try:
        journal: dict[str, Any] = run.read_submission()
    except FileNotFoundError:
        return []
    except json.JSONDecodeError as error:
        raise ValueError(f"submission.json cannot be read: {error}") from error
    return [int(element) for element in journal["flow_runs"]]


def _last_change(path: Path) -> datetime:
    """The newest time in the folder, one level of folders deep: its journal, output, and ends.

    A folder that is gone has just changed.
    """
    newest = 0.0
    try:
        for entry in (path, *path.iterdir()):
            status = entry.lstat()
            newest = max(newest, status.st_mtime)
            if entry.name.isdecimal() and entry.is_dir():
                newest = max([newest, *(below.lstat().st_mtime for below in entry.iterdir())])
    except OSError:
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp(newest, UTC)


class _Remover:
    """Removes trees and counts what becomes free, or counts only."""

    def __init__(self, swept: Swept, *, dry_run: bool) -> None:
        self._swept = swept
        self._dry_run = dry_run
        # Names that would be gone by now: a bundle is one file under two names.
        self._gone: Counter[tuple[int, int]] = Counter()

    def remove(self, path: Path) -> bool:
        """Whether it is gone now."""
        if self._dry_run:
            self._count(path)
            return True
        aside = path.with_name(f"{REMOVING}{path.name}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return False  # somebody else was first
        except OSError as error:
            self._swept.errors.append(f"{path}: {error.strerror}")
            return False
        return self.finish(aside)

    def finish(self, path: Path) -> bool:
        """Remove what has been renamed already."""
        self._count(path)
        if self._dry_run:
            return True
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return not path.exists()
        except OSError:
            return self._remove_protected(path)
        return True

    def is_linked(self, bundle: Path) -> bool:
        """Whether a run directory still has the bundle's files."""
        return any(self._links(status) > 1 for status in _files(bundle))

    def _remove_protected(self, path: Path) -> bool:
        """Again, after opening folders that a flow has made read-only."""
        try:
            for folder, _, _ in os.walk(path):
                Path(folder).chmod(0o700)
                for below in _entries(Path(folder)):
                    if below.is_dir() and not below.is_symlink():
                        below.chmod(0o700)
            shutil.rmtree(path)
        except OSError as error:
            self._swept.errors.append(f"{error.filename or path}: {error.strerror}")
            return False
        return True

    def _count(self, path: Path) -> None:
        for status in _files(path):
            if self._links(status) == 1:
                self._swept.bytes += status.st_size
            if self._dry_run:
                self._gone[status.st_dev, status.st_ino] += 1

    def _links(self, status: os.stat_result) -> int:
        return status.st_nlink - self._gone[status.st_dev, status.st_ino]


def _files(path: Path) -> Iterator[os.stat_result]:
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                yield (Path(folder) / name).lstat()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
