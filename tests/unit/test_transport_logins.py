"""Logins: how often, after which pauses, and by all processes together."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hpc_bridge.errors import LoginRefused, Unreachable
from hpc_bridge.transports.channels import Channels, NoTimeLeft
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.logins import Logins


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def logins(folder: Path, clock: Clock) -> Logins:
    """Those of one process."""
    return Logins("login.site-22", folder=folder, clock=clock, sleep=clock.sleep)


def turns(asking: Logins, clock: Clock, count: int, patience: float = 1e6) -> list[float]:
    """Seconds after the first at which each login may be tried."""
    began, taken = clock.now, []
    for _ in range(count):
        asking.wait_for_turn(Deadline(total=patience))
        taken.append(clock.now - began)
    return taken


def test_six_a_minute_and_sixty_an_hour(tmp_path: Path, clock: Clock) -> None:
    taken = turns(logins(tmp_path, clock), clock, 70)
    for count, span in ((6, 60), (60, 3600)):
        late = zip(taken, taken[count:], strict=False)
        assert all(second - first >= span for first, second in late)
    assert taken[5:7] == [0, 60]
    assert taken[59:61] == [540, 3600]


def test_all_processes_share_the_budget(tmp_path: Path, clock: Clock) -> None:
    for _ in range(6):
        assert turns(logins(tmp_path, clock), clock, 1) == [0]
    with pytest.raises(Unreachable, match=r"sites ban .* possible in 60 s"):
        turns(logins(tmp_path, clock), clock, 1, patience=10)
    other = Logins("other-22", folder=tmp_path, clock=clock, sleep=clock.sleep)
    assert turns(other, clock, 1) == [0]


def test_the_pause_after_a_failure_doubles_up_to_ten_minutes(tmp_path: Path, clock: Clock) -> None:
    asking, pauses = logins(tmp_path, clock), []
    for _ in range(9):
        asking.wait_for_turn(Deadline(total=1e6))
        asking.failed(LoginRefused("no login to login.site: refused"))
        before = clock.now
        with pytest.raises(LoginRefused, match="refused\nThe next login is tried in"):
            asking.wait_for_turn(Deadline(total=1))
        asking._sleep(asking._ask())
        pauses.append(clock.now - before)
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    asking.succeeded()
    clock.now += 3600
    assert turns(asking, clock, 1) == [0]


@pytest.mark.parametrize("content", ["", "{", '{"logins": 3}', '{"logins": [9e99, "x"]}'])
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, clock: Clock, content: str) -> None:
    (tmp_path / "logins-login.site-22.json").write_text(content)
    assert turns(logins(tmp_path, clock), clock, 6) == [0] * 6


def test_a_clock_that_was_set_back_locks_nobody_out(tmp_path: Path, clock: Clock) -> None:
    turns(logins(tmp_path, clock), clock, 6)
    clock.now -= 86400
    assert turns(logins(tmp_path, clock), clock, 1) == [0]


# channels


def test_at_most_four_at_a_time_and_fewer_after_a_refusal() -> None:
    channels = Channels()
    most = running = 0
    counting = threading.Lock()
    together = threading.Event()

    def work() -> None:
        nonlocal most, running
        with channels.place(Deadline(total=20)):
            with counting:
                running += 1
                most = max(most, running)
                if running == 4:
                    together.set()
            assert together.wait(20)
            with counting:
                running -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 4
    limits = []
    for attempt in range(1, 4):
        channels.refused(attempt, Deadline(total=20))
        limits.append(channels.limit)
    assert limits == [2, 1, 1]


def test_nobody_waits_for_a_place_for_ever() -> None:
    channels = Channels(most=1)
    with (
        channels.place(Deadline(total=20)),
        pytest.raises(NoTimeLeft),
        channels.place(Deadline(total=0.05)),
    ):
        pass
    with pytest.raises(NoTimeLeft):
        channels.refused(20, Deadline(total=0.1))
    with channels.place(Deadline(total=1)):
        pass
