"""Many things asked of a cluster's files at once, where one that is wrong hinders no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

_REFUSALS = 32


def each(call: Callable[[Sequence[K]], Sequence[V]], wanted: Sequence[K]) -> list[V | OSError]:
    """``call`` with all of ``wanted``: for each the answer, or what is wrong with it.

    Where something is wrong, halves are asked for, then their halves. When very much is wrong, the
    last error stands for what has not been asked for alone. The CommandErrors are raised.
    """
    answers: dict[int, V | OSError] = {}
    refusals = 0
    waiting = [range(len(wanted))] if wanted else []
    while waiting:
        some = waiting.pop()
        try:
            found = call([wanted[index] for index in some])
            answers.update(zip(some, found, strict=True))
        except OSError as error:
            refusals += 1
            if len(some) == 1 or refusals >= _REFUSALS:
                answers.update(dict.fromkeys(some, error))
            else:
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
    return [answers[index] for index in range(len(wanted))]
