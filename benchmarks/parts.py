"""Where the time of a call goes: seconds spent in named functions, while it runs."""

from __future__ import annotations

import functools
import inspect
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


class Parts:
    """Seconds and calls by part; a part that runs inside another one counts in both."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @contextmanager
    def timing(self, functions: dict[str, tuple[Any, str]]) -> Iterator[None]:
        """``functions`` is the part's name -> (object, attribute) to time."""
        with ExitStack() as patches:
            for part, (owner, name) in functions.items():
                timed = self._timed(part, getattr(owner, name))
                patches.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, part: str, function: Any) -> Any:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_async(*args: Any, **kwargs: Any) -> Any:
                with self._adding(part):
                    return await function(*args, **kwargs)

            return timed_async

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._adding(part):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def _adding(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began
            self.calls[part] += 1
