"""When the warning before the walltime is handed on, by what a job knows of its end."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_bridge.node.records import WARNED
from hpc_bridge.node.walltime import STARTED, Walltime

HOUR = {"warning": "USR1@60", "walltime": "01:00:00"}
START = 1_000_000
TOLD = {"SLURM_JOB_START_TIME": str(START), "SLURM_JOB_END_TIME": str(START + 3600)}
END = START + 3600


def walltime(variables: dict[str, str] | None = None, **spec: Any) -> Walltime:
    return Walltime({"spec": HOUR | spec}, TOLD if variables is None else variables)


@pytest.mark.parametrize(
    ("before_the_end", "kept"),
    [(60, 0), (61, 1), (120, 60), (30, 0), (-5, 0), (136, 0), (1800, 0)],
)
def test_a_warning_is_kept_until_it_is_due(before_the_end: int, kept: float) -> None:
    assert walltime().hold_back(END - before_the_end) == kept


def test_without_a_known_end_it_is_never_kept() -> None:
    assert walltime({STARTED: str(START)}, walltime=None).hold_back(START) == 0


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("00:01:00", 60), ("00:01:30", 120), ("01:00:00", 3600), ("1-12:00:00", 129600)],
)
def test_where_slurm_does_not_tell_the_end_it_follows_from_the_walltime(
    asked: str, seconds: int
) -> None:
    """Before 23.02; it counts whole minutes."""
    assert walltime({STARTED: str(START)}, walltime=asked).end == START + seconds


def test_a_partitions_own_short_limit_shortens_the_warning() -> None:
    told = TOLD | {"SLURM_JOB_END_TIME": str(START + 120)}
    assert walltime(told, walltime=None).seconds == 30
    assert walltime(told, walltime="00:02:00").seconds == 60  # as it was asked for


def test_a_flow_that_catches_it_is_only_guessed_to_end_by_it() -> None:
    assert walltime().notice(END - 60, caught=True).message == WARNED
    assert walltime().notice(END - 60, caught=False).message.startswith("Ended 60 s before the end")


def test_a_termination_at_the_end_is_the_walltimes_and_one_before_is_not() -> None:
    notice = walltime().notice(END - 60, caught=True)
    assert [notice.is_at_end(END + late) for late in (-30, -6, -5, 0, 30)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    unknown = walltime({}, walltime=None).notice(END, caught=True)
    assert not unknown.is_at_end(END)


def test_no_warning_is_known_by_no_signal() -> None:
    assert walltime(warning=None).signal is None
