"""How often the same trouble is said."""

from __future__ import annotations

from logging import DEBUG, INFO, WARNING

from hpc_bridge.errors import LoginRefused, Unreachable
from hpc_bridge.tracking.complaint import AGAIN_SECONDS, Complaint


def test_the_same_trouble_is_said_once_and_then_now_and_then() -> None:
    now = [0.0]
    complaint = Complaint(clock=lambda: now[0])
    levels = []
    for seconds in (0.0, 2.0, 4.0, AGAIN_SECONDS + 1, AGAIN_SECONDS + 2):
        now[0] = seconds
        levels.append(complaint.level(Unreachable(f"again in {100 - seconds} s")))
    assert levels == [WARNING, DEBUG, DEBUG, WARNING, DEBUG]


def test_another_trouble_and_one_after_better_times_are_said() -> None:
    complaint = Complaint(clock=lambda: 0.0)
    assert complaint.level(Unreachable("away"), INFO) == INFO
    assert complaint.level(LoginRefused("who?"), INFO) == INFO
    complaint.over()
    assert complaint.level(LoginRefused("who?"), INFO) == INFO
