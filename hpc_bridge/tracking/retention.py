"""Removes run directories, bundles and profiles that nobody needs any more; blocks.

Results are the users' own and are never removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hpc_bridge.journal import (
    SETTLED,
    SUBMISSION,
    RunDirectory,
    is_submission_id,
    shared_directory_errors,
)
from hpc_bridge.settings import Settings
from hpc_bridge.sites.travelling import SITES
from hpc_bridge.storage.asking import each
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles, Entry, Part
from hpc_bridge.tracking.lookup import read_journals
from hpc_bridge.tracking.removing import REMOVING, Remover

if TYPE_CHECKING:
    from hpc_bridge.sites.site import Site

_AT_ONCE = 200
"""Run directories that are looked at by one remote command."""
_TRANSFER = re.compile(r"\.hpc-bridge-[0-9a-f]+")
_TRANSFER_OVER = timedelta(days=1)

Told = Callable[[Sequence[RunDirectory]], Collection[str]]
"""Of these submissions those all of whose flow runs are known to have ended, by their ids."""
_Listing = Mapping[str, Entry]
T = TypeVar("T")


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
    files: ClusterFiles = HERE,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    told: Told = lambda _: (),
) -> Swept:
    """Remove what ended longer than ``older_than`` ago, and what no run needs of bundles and sites.

    1. A submission with a live marker, or with a flow run whose end is not told, stays. ``told`` is
       asked about those that have ended without either (format 1).
    2. Nobody finds half of a directory, and any process may finish what another has begun.
    3. What cannot be removed is told in ``errors`` and hinders nothing else.
    4. What a transfer to the cluster left behind goes too, a day later, as does what was being
       removed.
    """
    now = now or datetime.now(UTC)
    with shared_directory_errors(shared):
        return _Sweep(shared, files, now, older_than, told, dry_run=dry_run).run()


class _Sweep:
    """One sweep."""

    def __init__(
        self,
        shared: Path,
        files: ClusterFiles,
        now: datetime,
        older_than: timedelta,
        told: Told,
        *,
        dry_run: bool,
    ) -> None:
        self._shared = shared
        self._files = files
        self._before = now - older_than
        self._transfers_before = now - _TRANSFER_OVER
        self._told = told
        self._swept = Swept()
        self._remover = Remover(files, dry_run=dry_run)
        self._live: Collection[str] = ()
        self._left: list[Path] = []
        self._unsettled: dict[RunDirectory, list[int]] = {}

    def run(self) -> Swept:
        """All of it."""
        runs, bundles = self._shared / "runs", self._shared / "bundles"
        folders = [self._shared, runs, bundles, self._shared / "live"]
        top, in_runs, in_bundles, live = (
            found or {} for found in self._files.listings(folders, depth=1)
        )
        self._live = live
        self._left = [runs / name for name in in_runs if name.startswith(REMOVING)]
        self._left += [bundles / name for name in in_bundles if name.startswith(REMOVING)]
        self._left += [self._shared / name for name in self._transfers(top)]
        names = [name for name in in_runs if is_submission_id(name)]
        for some in _groups(names):
            self._sweep_runs(
                {RunDirectory(runs / name, self._files): in_runs[name] for name in some}
            )
        for unsettled in _groups(list(self._unsettled)):
            self._sort(unsettled)
        self._ask_about_untold()
        self._remover.finish(self._left)
        self._sweep_bundles(bundles)
        if SITES in top:
            self._sweep_sites(self._shared / SITES)
        self._swept.bytes = self._remover.bytes
        self._swept.errors += self._remover.errors
        return self._swept

    def _sweep_runs(self, runs: Mapping[RunDirectory, Entry]) -> None:
        """Remove those that are over; keep the old ones that are not for a closer look."""
        listings = self._listed(list(runs), depth=2)
        old = [run for run, found in listings.items() if self._is_old(runs[run], found)]
        over = []
        for run, elements in self._elements(old).items():
            settled = all(f"{element}/{SETTLED}" in listings[run] for element in elements)
            if settled and run.submission_id not in self._live:
                over.append(run)
            else:
                self._unsettled[run] = elements
        for run in listings.keys() - set(over):
            self._left += [run.path / name for name in self._transfers(listings[run])]
        self._remove(over)

    def _sort(self, runs: Sequence[RunDirectory]) -> None:
        for run, found in self._listed(runs, depth=3).items():
            elements = self._unsettled[run]
            if elements and all(_has_ended(run, element, found) for element in elements):
                self._swept.untold.append(run.submission_id)
            else:
                self._swept.kept_live += 1

    def _ask_about_untold(self) -> None:
        runs = {
            name: RunDirectory(self._shared / "runs" / name, self._files)
            for name in self._swept.untold
            if name not in self._live
        }
        told = self._told(list(runs.values())) if runs else ()
        self._swept.untold = [name for name in self._swept.untold if name not in told]
        self._remove([runs[name] for name in told])

    def _remove(self, runs: Sequence[RunDirectory]) -> None:
        for some in _groups(runs):
            self._swept.count += self._remover.remove([run.path for run in some], SUBMISSION)

    def _listed(self, runs: Sequence[RunDirectory], depth: int) -> dict[RunDirectory, _Listing]:
        """Of those that are there; what is wrong with one is told."""

        def ask(some: Sequence[RunDirectory]) -> list[_Listing | None]:
            return [*self._files.listings([run.path for run in some], depth=depth)]

        found: dict[RunDirectory, _Listing] = {}
        for run, listing in zip(runs, each(ask, runs), strict=True):
            if isinstance(listing, OSError):
                self._swept.errors.append(f"{run.path}: {listing}")
            elif listing is not None:
                found[run] = listing
        return found

    def _elements(self, runs: Sequence[RunDirectory]) -> dict[RunDirectory, list[int]]:
        """By the journals; none without one, since then nothing was submitted."""
        found: dict[RunDirectory, list[int]] = {}
        for run, content in read_journals(runs):
            try:
                if isinstance(content, OSError):
                    raise content
                flow_runs = {} if content is None else json.loads(content)["flow_runs"]
                found[run] = [int(element) for element in flow_runs]
            except json.JSONDecodeError as error:
                self._swept.errors.append(f"{run.path}: submission.json cannot be read: {error}")
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._swept.errors.append(f"{run.path}: {error}")
        return found

    def _is_old(self, entry: Entry, listing: _Listing) -> bool:
        """By the newest time in the folder, one level of folders deep: its journal, output, and
        ends."""
        times = [
            below.modified
            for name, below in listing.items()
            if "/" not in name or name.partition("/")[0].isdecimal()
        ]
        return _is_before(max([entry.modified, *times]), self._before)

    def _sweep_bundles(self, folder: Path) -> None:
        """After the runs, whose files have other names here."""
        old = [
            bundle
            for bundle, known in self._old_in(folder)
            if not any(self._remover.links(entry) > 1 for entry in _files(known))
        ]
        self._swept.bundles += self._remover.remove(old, "bundle.json")

    def _sweep_sites(self, folder: Path) -> None:
        """Profiles that came with submissions from elsewhere, and no live run's environment names.

        Each submission renews its own.
        """
        old = [site for site, _ in self._old_in(folder)]
        runs = [self._shared / "runs" / name for name in self._live if is_submission_id(name)]
        for some in _groups(runs if old else []):
            for environment in each(self._files.parts, [Part(run / "env") for run in some]):
                if isinstance(environment, OSError):  # which may name any
                    return
                named = environment or b""
                old = [site for site in old if f"/{folder.name}/{site.name}".encode() not in named]
        self._remover.finish(old)

    def _old_in(self, folder: Path) -> list[tuple[Path, dict[str, Entry]]]:
        """Folders in which nothing is younger, with what is in them."""
        listing = self._files.listings([folder], depth=2)[0] or {}
        found: dict[str, dict[str, Entry]] = {}
        for name, entry in listing.items():
            top, _, below = name.partition("/")
            if not top.startswith("."):
                found.setdefault(top, {})[below] = entry
        return [
            (folder / name, known)
            for name, known in found.items()
            if known[""].kind == "folder"
            and _is_before(max(entry.modified for entry in known.values()), self._before)
        ]

    def _transfers(self, listing: _Listing) -> list[str]:
        """What killed transfers have left, directly in the folder."""
        return [
            name
            for name, entry in listing.items()
            if _TRANSFER.fullmatch(name)
            and entry.kind == "folder"
            and _is_before(entry.modified, self._transfers_before)
        ]


def _has_ended(run: RunDirectory, element: int, listing: _Listing) -> bool:
    start = f"{element}/"
    below = {
        name.removeprefix(start): entry for name, entry in listing.items() if name.startswith(start)
    }
    return SETTLED in below or run.traces_in(element, below).is_over


def _files(known: _Listing) -> Iterator[Entry]:
    return (entry for entry in known.values() if entry.kind != "folder")


def _is_before(modified: float, then: datetime) -> bool:
    return datetime.fromtimestamp(modified, UTC) < then


def _groups(all_: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(all_), _AT_ONCE):
        yield all_[start : start + _AT_ONCE]
