"""A job's output file in bounded pieces, and its lines as text that any server takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hpc_bridge.node.console import is_run_log

CHUNK_BYTES = 256 * 1024
CHUNK_LINES = 10_000
NEWEST_BYTES = 64 * 1024
"""What is kept of output that outran the relay."""
LINES_PER_ENTRY = 50
ENTRY_CHARACTERS = 20_000
_COUNTED_BYTES = 64 * 1024 * 1024  # counting lines means reading them all

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;:<=>?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of the output; it goes on at byte ``until``."""

    until: int
    lines: list[str]
    left_out: int = 0
    """Lines before ``until`` that are left out."""


def read_chunk(content: bytes, offset: int, *, unfinished_too: bool = False) -> Chunk | None:
    """The whole lines of what was read from ``offset`` on, at most CHUNK_LINES; None without any.

    A line that fills CHUNK_BYTES counts as whole; so does the last one with ``unfinished_too``.
    """
    end = content.rfind(b"\n") + 1
    full = len(content) == CHUNK_BYTES
    if (full and end == 0) or (unfinished_too and not full):
        end = len(content)
    if end == 0:
        return None
    lines = content[:end].split(b"\n", CHUNK_LINES)
    rest = lines.pop()  # nothing after the last line break, unless there are more lines
    if rest and len(lines) < CHUNK_LINES:
        lines.append(rest)
        rest = b""
    return Chunk(offset + end - len(rest), [line_text(line) for line in lines])


def newest_part(size: int) -> tuple[int, int]:
    """Where the newest part of an output begins that is kept, and how much of it to read for
    ``skip_to_newest``."""
    return size - NEWEST_BYTES, NEWEST_BYTES // 2


def skip_to_newest(
    newest: bytes, offset: int, size: int, where_all_is: str, count: Callable[[int, int], int]
) -> Chunk:
    """A note on what is left out between ``offset`` and the newest part of the output.

    ``newest`` is what ``newest_part`` says; ``count`` counts line breaks between two bytes, or
    gives 0 when that is too much.
    """
    until = newest_part(size)[0] + newest.find(b"\n") + 1
    lines = count(offset, until)
    number = f"{lines:,} lines, " if lines else ""
    size_left_out = f"{(until - offset) / 1e6:,.1f} MB"
    note = f"... {number}{size_left_out} left out here; all of it: {where_all_is}"
    return Chunk(until, [note], lines)


def line_text(line: bytes) -> str:
    """One line as a terminal would leave it: the last state of a progress bar, without colours.

    What is not UTF-8, and control characters, become U+FFFD; PostgreSQL takes no NUL.
    """
    if is_run_log(text := line.decode("utf-8", errors="replace")):
        return text
    states = [state for state in _ESCAPES.sub("", text).split("\r") if state.strip()]
    return _CONTROLS.sub("\ufffd", states[-1]).rstrip() if states else ""


def entries(lines: Iterable[str]) -> list[str]:
    """Log messages: neighbouring lines together, without those that the flow sends by itself."""
    found: list[list[str]] = [[]]
    length = 0
    for line in lines:
        if is_run_log(line):
            continue
        if len(line) > ENTRY_CHARACTERS:
            more = len(line) - ENTRY_CHARACTERS
            line = f"{line[:ENTRY_CHARACTERS]} ... ({more:,} more characters)"
        if len(found[-1]) == LINES_PER_ENTRY or length + len(line) > ENTRY_CHARACTERS:
            found.append([])
            length = 0
        found[-1].append(line)
        length += len(line)
    return [message for part in found if (message := "\n".join(part).strip("\n")).strip()]


def line_breaks(path: Path, start: int, end: int) -> int:
    """How many there are between two bytes of a file of this machine; 0 for very many bytes."""
    count, left = 0, end - start
    if left > _COUNTED_BYTES:
        return 0
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (piece := file.read(min(left, 1024 * 1024))):
            count += piece.count(b"\n")
            left -= len(piece)
    return count
