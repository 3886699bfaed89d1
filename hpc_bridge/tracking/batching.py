"""What many ask for at the same time, asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Batch(Generic[K, V]):
    """Gathers keys for ``window`` seconds, then asks for all of them with one blocking call.

    While a call lasts the keys for the next one gather.

    Everybody gets the value of their own key, None when the answer has none, or the call's error.
    """

    def __init__(self, call: Callable[[Sequence[K]], Mapping[K, V]], *, window: float) -> None:
        self._call = call
        self._window = window
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
            waiting, self._waiting = self._waiting, {}
            await self._answer(waiting)

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
