"""Removes folders of a cluster, many by one command, and counts what becomes free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hpc_bridge.storage.asking import each
from hpc_bridge.storage.cluster_files import ClusterFiles, Entry

REMOVING = ".removing-"
"""Begins the name of what is being removed; what a dead process left so is finished later."""
_ALL_LEVELS = 1000
_AT_ONCE = 500


class Remover:
    """Removes trees and counts what becomes free, or counts only."""

    def __init__(self, files: ClusterFiles, *, dry_run: bool) -> None:
        self.bytes = 0
        """Space that became free."""
        self.errors: list[str] = []
        self._files = files
        self._dry_run = dry_run
        # Names that would be gone by now: a bundle is one file under two names.
        self._gone: Counter[int] = Counter()

    def remove(self, folders: Sequence[Path], mark: str) -> int:
        """How many are gone now, which nobody is to find half of.

        Without the file ``mark`` a folder is none: over a connection only that goes first.
        """
        if self._dry_run:
            self._count(folders)
            return len(folders)
        if self._files.is_here:
            return self.finish([aside for folder in folders if (aside := self._set_aside(folder))])
        self._count(folders)
        marks = each(self._without_mark, [folder / mark for folder in folders])
        return self._clear(
            [folder for folder, wrong in zip(folders, marks, strict=True) if not self._told(wrong)]
        )

    def finish(self, folders: Sequence[Path]) -> int:
        """Remove what nobody takes for whole any more; how many are gone."""
        self._count(folders)
        return len(folders) if self._dry_run else self._clear(folders)

    def links(self, entry: Entry) -> int:
        """How many names a file has left."""
        return entry.links - self._gone[entry.inode]

    def _clear(self, folders: Sequence[Path]) -> int:
        return sum(not self._told(wrong) for wrong in each(self._without_trees, folders))

    def _set_aside(self, folder: Path) -> Path | None:
        aside = folder.with_name(f"{REMOVING}{folder.name}")
        try:
            self._files.rename(folder, aside)
        except FileNotFoundError:
            return None  # somebody else was first
        except OSError as error:
            self.errors.append(f"{folder}: {error.strerror}")
            return None
        return aside

    def _without_mark(self, marks: Sequence[Path]) -> list[None]:
        self._files.remove(*marks)
        return [None] * len(marks)

    def _without_trees(self, folders: Sequence[Path]) -> list[None]:
        self._files.remove_trees(*folders)
        return [None] * len(folders)

    def _told(self, wrong: OSError | None) -> bool:
        if wrong is None:
            return False
        self.errors.append(f"{wrong.filename}: {wrong.strerror}")
        return True

    def _count(self, folders: Sequence[Path]) -> None:
        listed = partial(self._files.listings, depth=_ALL_LEVELS)
        for start in range(0, len(folders), _AT_ONCE):
            for listing in each(listed, folders[start : start + _AT_ONCE]):
                if listing is None or isinstance(listing, OSError):
                    continue  # what cannot be seen is not counted
                for entry in listing.values():
                    if entry.kind != "folder":
                        self._count_file(entry)

    def _count_file(self, entry: Entry) -> None:
        if self.links(entry) == 1:
            self.bytes += entry.size
        if self._dry_run:
            self._gone[entry.inode] += 1
