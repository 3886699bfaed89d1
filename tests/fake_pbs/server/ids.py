"""Job ids as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .store import Store

FINISHED, UNKNOWN, UNAUTHORIZED, BAD_STATE, NOT_RERUNNABLE = 35, 153, 159, 168, 190
FINISHED_ELEMENT = 55


@dataclass
class JobName:
    """An id in full, and the subjobs when it names a range of them."""

    full: str
    jobs: list[str]


def is_job(word: str) -> bool:
    """Whether it is meant as a job: anything that begins with a digit."""
    return word[:1].isdigit()


def named(store: Store, word: str) -> JobName | None:
    """None for what is no id on this server."""
    found = re.fullmatch(r"(\d+)(\[[\d,:-]*\])?(?:\.(.+))?", word)
    if found is None or found[3] not in (None, store.server):
        return None
    full = f"{found[1]}{found[2] or ''}.{store.server}"
    span = re.fullmatch(r"\[(\d+)-(\d+)(?::(\d+))?\]", found[2] or "")
    if span is None:
        return JobName(full, [full])
    numbers = range(int(span[1]), int(span[2]) + 1, int(span[3] or 1))
    return JobName(full, [f"{found[1]}[{n}].{store.server}" for n in numbers])
