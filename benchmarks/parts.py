"""Where the time of a call goes: seconds spent in named functions while it runs."""

from __future__ import annotations

import functools
import inspect
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from unittest import mock


@dataclass(slots=True)
class _Span:
    inner: float = 0.0


# Awaited calls and those in a thread of asyncio.to_thread see the span that they run in.
_current: ContextVar[_Span | None] = ContextVar("current", default=None)


class Parts:
    """Seconds and calls by part; time in a part within another one counts for the inner only."""

    def __init__(self, functions: Sequence[tuple[str, Any, str]]) -> None:
        """``functions`` are (name of the part, object, attribute); several may make one part."""
        self._functions = functions
        self.seconds = Counter({part: 0.0 for part, _, _ in functions})
        self.calls: Counter[str] = Counter()

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Time what runs meanwhile. A function that is no longer there has no calls."""
        with ExitStack() as patches:
            for part, owner, name in self._functions:
                if function := getattr(owner, name, None):
                    timed = self._timed(part, function)
                    patches.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, part: str, function: Any) -> Any:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_async(*args: Any, **kwargs: Any) -> Any:
                with self._span(part):
                    return await function(*args, **kwargs)

            return timed_async

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._span(part):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def _span(self, part: str) -> Iterator[None]:
        outer, span = _current.get(), _Span()
        token = _current.set(span)
        began = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - began
            _current.reset(token)
            if outer is not None:
                outer.inner += elapsed
            self.seconds[part] += elapsed - span.inner
            self.calls[part] += 1
