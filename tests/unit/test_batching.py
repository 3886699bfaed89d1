"""What many ask for at the same time is asked once, and everybody is answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import pytest

from hpc_bridge.tracking.batching import Batch

WINDOW = 0.02


class Oracle:
    """Knows the square of every number but 13, and is asked in threads."""

    def __init__(self) -> None:
        self.questions: list[list[int]] = []
        self.threads: set[int] = set()
        self.before: Callable[[], None] = lambda: None

    def __call__(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.questions.append(list(keys))
        self.threads.add(threading.get_ident())
        self.before()
        return {key: key * key for key in keys if key != 13}


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


def test_many_are_answered_by_one_question(oracle: Oracle) -> None:
    async def ask() -> list[int | None]:
        batch = Batch(oracle, window=WINDOW)
        return await asyncio.gather(*(batch.ask(number) for number in range(500)))

    assert asyncio.run(ask()) == [None if n == 13 else n * n for n in range(500)]
    assert oracle.questions == [list(range(500))]
    assert threading.get_ident() not in oracle.threads, "the event loop was blocked"


def test_those_who_ask_the_same_are_one_key(oracle: Oracle) -> None:
    async def ask() -> list[int | None]:
        batch = Batch(oracle, window=WINDOW)
        return await asyncio.gather(*(batch.ask(7) for _ in range(5)))

    assert asyncio.run(ask()) == [49] * 5
    assert oracle.questions == [[7]]


def test_who_asks_within_the_window_is_part_of_it_and_later_ones_are_the_next(
    oracle: Oracle,
) -> None:
    async def ask() -> None:
        batch = Batch(oracle, window=0.2)
        first = asyncio.create_task(batch.ask(1))
        await asyncio.sleep(0.01)
        await batch.ask(2)
        assert first.done() or await first == 1
        await batch.ask(1)

    asyncio.run(ask())
    assert oracle.questions == [[1, 2], [1]]


def test_who_asks_during_a_question_is_asked_for_after_it(oracle: Oracle) -> None:
    """The answer may be older than what they want to know; and one that hangs is no reason to ask
    again and again."""
    asking, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        asking.set()
        assert go_on.wait(10)

    async def ask() -> list[int | None]:
        batch = Batch(oracle, window=WINDOW)
        oracle.before = slow
        first = asyncio.create_task(batch.ask(1))
        assert await asyncio.to_thread(asking.wait, 10)
        oracle.before = lambda: None
        others = [asyncio.create_task(batch.ask(n)) for n in (1, 2)]
        await asyncio.sleep(5 * WINDOW)
        assert not any(other.done() for other in others)
        go_on.set()
        return [await first, *[await other for other in others]]

    assert asyncio.run(ask()) == [1, 1, 4]
    assert oracle.questions == [[1], [1, 2]]


def test_what_weighs_too_much_for_one_question_is_asked_by_several(oracle: Oracle) -> None:
    async def ask() -> list[int | None]:
        batch = Batch(oracle, window=WINDOW, weigh=float, most=10)
        return await asyncio.gather(*(batch.ask(number) for number in (1, 2, 7, 12, 3, 4)))

    assert asyncio.run(ask()) == [1, 4, 49, 144, 9, 16]
    assert oracle.questions == [[1, 2, 7], [12], [3, 4]]


def test_who_asks_during_the_pause_after_a_question_is_part_of_the_next(oracle: Oracle) -> None:
    async def ask() -> float:
        batch = Batch(oracle, window=0.0, pause=0.5)
        await batch.ask(1)
        began = time.monotonic()
        early = asyncio.create_task(batch.ask(2))
        await asyncio.sleep(0.1)
        await asyncio.gather(early, batch.ask(3))
        return time.monotonic() - began

    assert asyncio.run(ask()) > 0.3
    assert oracle.questions == [[1], [2, 3]]


def test_an_error_is_everybodys_and_the_next_question_is_asked_anew(oracle: Oracle) -> None:
    def fail() -> None:
        raise OSError("scancel is broken")

    async def ask() -> list[int | BaseException | None]:
        batch = Batch(oracle, window=WINDOW)
        oracle.before = fail
        heard = await asyncio.gather(*(batch.ask(n) for n in range(3)), return_exceptions=True)
        oracle.before = lambda: None
        assert await batch.ask(3) == 9
        return heard

    heard = asyncio.run(ask())
    assert [str(error) for error in heard] == ["scancel is broken"] * 3
    assert oracle.questions == [[0, 1, 2], [3]]


@pytest.mark.parametrize("fails", [False, True])
def test_one_who_gives_up_takes_nobodys_answer(oracle: Oracle, fails: bool) -> None:
    complaints: list[object] = []

    def fail() -> None:
        if fails:
            raise OSError("broken")

    async def ask() -> int | BaseException | None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        oracle.before = fail
        batch = Batch(oracle, window=0.1)
        impatient = asyncio.create_task(batch.ask(3))
        patient = asyncio.create_task(batch.ask(3))
        alone = asyncio.create_task(batch.ask(4))
        await asyncio.sleep(0)
        impatient.cancel()
        alone.cancel()
        (heard,) = await asyncio.gather(patient, return_exceptions=True)
        return heard

    heard = asyncio.run(ask())
    assert str(heard) == ("broken" if fails else "9")
    assert oracle.questions == [[3, 4]]
    assert complaints == []
