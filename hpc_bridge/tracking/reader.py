"""What the jobs of a process leave in their run directories, asked for together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from hpc_bridge.journal import RunDirectory
from hpc_bridge.storage.asking import each
from hpc_bridge.storage.cluster_files import ClusterFiles, Entry, Part
from hpc_bridge.tracking.batching import Batch
from hpc_bridge.transports.base import Files

OUTPUT_OF_ALL = "../job.out"
"""How a listing names the output of a submission that is one job."""
WINDOW_SECONDS = 0.2
PAUSE_SECONDS = 2.0
"""Between two listings of a cluster elsewhere: they are for all jobs that are looked after."""
MOST_BYTES = 2 * 1024 * 1024
"""In one answer of a cluster elsewhere."""
_UNKNOWN_BYTES = 64 * 1024
_RUNS_REMEMBERED = 10_000

Listing = Mapping[str, Entry]
_Found = Listing | OSError | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Written:
    path: Path
    content: bytes


class Reader:
    """Reads run directories for all trackers of a process; makes no run wait for another's error.

    Files of this machine are read at once, in threads. Of a cluster elsewhere, what is asked for
    within WINDOW_SECONDS is one remote command. Raises OSError, and the CommandErrors of a
    connection. For one event loop.
    """

    def __init__(self) -> None:
        self._listings: dict[ClusterFiles, Batch[tuple[Path, int], _Found]] = {}
        self._parts: dict[ClusterFiles, Batch[Part, bytes | OSError | None]] = {}
        self._writes: dict[tuple[ClusterFiles, Path], Batch[_Written, OSError | None]] = {}
        self._elements: dict[Path, int] = {}

    async def listing(self, run: RunDirectory, element: int) -> Listing | None:
        """A flow run's folder, two levels deep, and OUTPUT_OF_ALL when there is such a file.

        None when the run directory is seen to be gone.
        """
        files = run.files
        if files.is_here:
            return await asyncio.to_thread(_listing_here, run, element)
        if files not in self._listings:
            self._listings[files] = Batch(
                partial(self._list, files), window=WINDOW_SECONDS, pause=PAUSE_SECONDS
            )
        return _value(await self._listings[files].ask((run.path, element)))

    async def part(self, files: ClusterFiles, part: Part) -> bytes | None:
        """A piece of a file; None when there is no such file."""
        if files.is_here:
            return (await asyncio.to_thread(files.parts, [part]))[0]
        if files not in self._parts:
            self._parts[files] = Batch(
                partial(_read, files), window=WINDOW_SECONDS, weigh=_weight, most=MOST_BYTES
            )
        return _value(await self._parts[files].ask(part))

    async def write(self, run: RunDirectory, name: str, content: bytes) -> None:
        """Write a file of a run directory, as ``RunDirectory.write``."""
        files = run.files
        if files.is_here:
            await asyncio.to_thread(run.write, name, content)
            return
        place = files, run.shared
        if place not in self._writes:
            self._writes[place] = Batch(partial(_write, *place), window=WINDOW_SECONDS)
        _value(await self._writes[place].ask(_Written(run.path / name, content)))

    def _list(
        self, files: ClusterFiles, keys: Sequence[tuple[Path, int]]
    ) -> dict[tuple[Path, int], _Found]:
        """Of a job array, its elements one by one, unless most of them are asked for."""
        asked = Counter(path for path, _ in keys)
        whole = [path for path in asked if 2 * asked[path] > self._elements.get(path, 1)]
        single = [key for key in keys if key[0] not in set(whole)]
        answers: dict[tuple[Path, int], _Found] = {}
        of_runs = dict(zip(whole, each(partial(files.listings, depth=3), whole), strict=True))
        for path, element in keys:
            if path in of_runs:
                answers[path, element] = self._of_element(path, element, of_runs[path])
        folders = [path / str(element) for path, element in single]
        found = each(partial(files.listings, depth=2), folders)
        answers |= {
            key: {} if listing is None else listing
            for key, listing in zip(single, found, strict=True)
        }
        return answers

    def _of_element(self, path: Path, element: int, listing: _Found) -> _Found:
        if listing is None or isinstance(listing, OSError):
            return listing
        if len(self._elements) >= _RUNS_REMEMBERED:
            self._elements.clear()
        self._elements[path] = sum(name.isdecimal() for name in listing)
        start = f"{element}/"
        found = {
            name.removeprefix(start): entry
            for name, entry in listing.items()
            if name.startswith(start)
        }
        return found | _output_of_all(listing.get("job.out"))


def output_size(listing: Listing | None) -> int | None:
    """Bytes that the job has printed; None when it has printed nothing."""
    for name in ("job.out", OUTPUT_OF_ALL):
        if listing is not None and name in listing:
            return listing[name].size
    return None


def _value(answer: T | OSError) -> T:
    if isinstance(answer, OSError):
        raise answer
    return answer


def _listing_here(run: RunDirectory, element: int) -> Listing | None:
    (found,) = run.files.listings([run.element(element)], depth=2)
    output = run.files.entry(run.path / "job.out")
    if found is None and output is None and run.files.entry(run.path) is None:
        return None
    return (found or {}) | _output_of_all(output)


def _output_of_all(output: Entry | None) -> dict[str, Entry]:
    return {} if output is None else {OUTPUT_OF_ALL: output}


def _weight(part: Part) -> int:
    return _UNKNOWN_BYTES if part.limit is None else part.limit


def _read(files: ClusterFiles, parts: Sequence[Part]) -> dict[Part, bytes | OSError | None]:
    return dict(zip(parts, each(files.parts, parts), strict=True))


def _write(
    files: ClusterFiles, shared: Path, wanted: Sequence[_Written]
) -> dict[_Written, OSError | None]:
    def write(some: Sequence[_Written]) -> list[None]:
        content = {str(one.path.relative_to(shared)): one.content for one in some}
        files.put(Files(str(shared), content))
        return [None] * len(some)

    return dict(zip(wanted, each(write, wanted), strict=True))
