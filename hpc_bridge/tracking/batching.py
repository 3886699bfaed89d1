"""What many ask for at the same time, asked once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")


class Batch(Generic[K, V]):
    """Gathers keys for ``window`` seconds, then asks for all of them with one blocking call.

    While a call lasts the keys for the next one gather. Between the beginnings of two calls there
    are at least ``pause`` seconds; what weighs more than ``most`` in all is asked by several.

    Everybody gets the value of their own key, None when the answer has none, or the call's error.
    """

    def __init__(
        self,
        call: Callable[[Sequence[K]], Mapping[K, V]],
        *,
        window: float,
        pause: float = 0.0,
        weigh: Callable[[K], float] = lambda _: 0.0,
        most: float = float("inf"),
    ) -> None:
        self._call = call
        self._window = window
        self._pause = pause
        self._weigh = weigh
        self._most = most
        self._called = float("-inf")
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._calling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, key: K) -> V | None:
        """The value of ``key``; raises what the call raises."""
        if not self._waiting:
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    async def _run(self) -> None:
        await asyncio.sleep(self._window)
        # One call at a time: what hangs must not fill all threads, nor the scheduler.
        async with self._calling:
            await asyncio.sleep(self._called + self._pause - time.monotonic())
            self._called = time.monotonic()
            waiting, self._waiting = self._waiting, {}
            for group in self._groups(waiting):
                await self._answer(group)

    def _groups(self, waiting: Mapping[K, W]) -> Iterator[dict[K, W]]:
        group: dict[K, W] = {}
        weight = 0.0
        for key, value in waiting.items():
            weight += self._weigh(key)
            if group and weight > self._most:
                yield group
                group, weight = {}, self._weigh(key)
            group[key] = value
        yield group

    async def _answer(self, waiting: dict[K, asyncio.Future[V | None]]) -> None:
        try:
            answer = await asyncio.to_thread(self._call, list(waiting))
        except Exception as error:  # noqa: BLE001  whoever waits is told
            for future in waiting.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # a waiter may have gone
        else:
            for key, future in waiting.items():
                if not future.done():
                    future.set_result(answer.get(key))
