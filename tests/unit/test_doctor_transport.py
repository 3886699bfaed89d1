"""What the doctor says of the connection to the login side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpc_bridge.doctor.findings import Status
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.doctor.transport import (
    Connected,
    check_transport,
    judge_connected,
    judge_logins,
    judge_refusal,
)
from hpc_bridge.errors import (
    CommandError,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    Unreachable,
)
from hpc_bridge.settings import load_settings
from hpc_bridge.transports import logins
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.login import Login

PARAMIKO, MANAGE = Login("paramiko", "mini"), Login("openssh", "mini")
REUSE = Login("openssh", "mini", master="reuse")
FINE = Connected("me@mini:22", "me", [], "", 0.0034, (1, 4))


def test_on_this_machine_it_says_who_we_are() -> None:
    verdict = check_transport(Subject(load_settings()))
    assert verdict.status is Status.GREEN
    assert "commands run on this machine" in verdict.message


@pytest.mark.parametrize(
    ("error", "login", "message", "advice"),
    [
        (
            HostKeyUnknown("the key of mini is not known: RSA SHA256:x\nCompare it", command=[]),
            *(PARAMIKO, "the key of mini is not known: RSA SHA256:x", "Compare it"),
        ),
        (
            Unreachable("no open connection to mini: run `ssh -fNM mini`, log in: id -un"),
            *(REUSE, "no open connection to mini", "run `ssh -fNM mini`, log in"),
        ),
        (
            Unreachable("no connection to mini: refused: id -un"),
            *(MANAGE, "no connection to mini: refused", "try `ssh mini` by hand: host and port"),
        ),
        (
            LoginRefused("mini takes no key: id -un"),
            *(PARAMIKO, "mini takes no key", "`ssh -v mini` shows what is offered"),
        ),
        (
            HostKeyChanged(f"no login to mini: {'@' * 59}\n@   CHANGED!   @\nme@mini\nAsk why."),
            *(MANAGE, "no login to mini: CHANGED!; me@mini", "Ask why."),
        ),
        (CommandError("odd: id -un"), PARAMIKO, "odd", "do as it says"),
    ],
)
def test_a_refusal_is_red_with_what_to_do(
    error: CommandError, login: Login, message: str, advice: str
) -> None:
    if str(error).endswith(": id -un"):
        error.command = ["id", "-un"]
    verdict = judge_refusal(error, login)
    assert (verdict.status, verdict.message) == (Status.RED, message)
    assert verdict.advice.startswith(advice)
    assert "id -un" not in verdict.advice


@pytest.mark.parametrize(
    ("found", "login", "status", "words"),
    [
        (FINE, PARAMIKO, Status.GREEN, "to me@mini:22 as me; its host key is known; 3 ms"),
        (FINE, MANAGE, Status.GREEN, "1 of 6 a minute, 4 of 60 an hour"),
        (FINE, REUSE, Status.GREEN, "never logs in by itself"),
        (replace(FINE, noise="Welcome\nto"), PARAMIKO, Status.YELLOW, "print 'Welcome' before"),
        (replace(FINE, missing=["tar is missing"]), PARAMIKO, Status.RED, "tar is missing"),
    ],
)
def test_a_connection_is_described(
    found: Connected, login: Login, status: Status, words: str
) -> None:
    verdict = judge_connected(found, login)
    assert (verdict.status, words in verdict.message) == (status, True), verdict
    assert bool(verdict.advice) == (status is not Status.GREEN)


@pytest.mark.parametrize(("used", "few"), [((5, 47), True), ((6, 6), False), ((1, 48), False)])
def test_a_budget_that_is_nearly_spent_is_yellow(used: tuple[int, int], few: bool) -> None:
    assert judge_logins(used, PARAMIKO).status is (Status.GREEN if few else Status.YELLOW)
    assert judge_logins(used, REUSE).status is Status.GREEN


def test_logins_that_were_tried_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "machine_folder", lambda: tmp_path)
    now = [0.0]
    monkeypatch.setattr(logins.time, "time", lambda: now[0])
    budget = logins.Logins("mini-22", clock=lambda: now[0])
    for now[0] in (1000.0, 4500.0, 4590.0):
        budget.wait_for_turn(Deadline(total=1))
    now[0] = 4610.0
    assert logins.used_logins("mini-22") == (1, 2)
    assert logins.used_logins("other-22") == (0, 0)
