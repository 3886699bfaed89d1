"""The connection that a process shares: when it is made, and when it is not."""

from __future__ import annotations

import pytest

from hpc_bridge.errors import Unreachable
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.link import Connection, Link, NothingRun
from hpc_bridge.transports.remote_shell import Exchange


class Breaking(Connection):
    """Runs what it is asked for, until it is lost, which only the next command notices."""

    def __init__(self) -> None:
        self.is_lost = False

    def carry(self, exchange: Exchange, deadline: Deadline) -> None:
        if self.is_lost:
            raise NothingRun("it is lost")

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        pass


def test_what_may_not_log_in_uses_a_connection_and_makes_none() -> None:
    made: list[Breaking] = []

    def connect(_: Deadline) -> Connection:
        made.append(Breaking())
        return made[-1]

    def ask(*, may_log_in: bool) -> None:
        link.carry(Exchange(":", "mark"), Deadline(total=5), may_log_in=may_log_in)

    link = Link("alpha", connect)
    with pytest.raises(Unreachable):
        ask(may_log_in=False)
    assert made == []
    ask(may_log_in=True)
    ask(may_log_in=False)
    made[0].is_lost = True
    with pytest.raises(Unreachable):
        ask(may_log_in=False)
    assert len(made) == 1
    ask(may_log_in=True)
    assert len(made) == 2
