"""How the doctor's findings are shown."""

from __future__ import annotations

import json

import pytest

from hpc_bridge.cli.doctor import _write, run_doctor
from hpc_bridge.doctor import examine as module
from hpc_bridge.doctor.findings import Examination, Finding, Status, Verdict, green, red, yellow


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[Verdict]:
    """What the steps find."""
    found: list[Verdict] = [green("fine"), yellow("slow", "be patient")]

    def examine(examination: Examination, *_: object, **__: object) -> None:
        for number, verdict in enumerate(found):
            examination.step(f"step-{number}", f"step {number}", lambda v=verdict: v)

    monkeypatch.setattr(module, "examine", examine)
    return found


def run(*, as_json: bool = False) -> int:
    return run_doctor(None, as_json=as_json, partition=None, with_jobs=False, wait=1)


def test_yellow_does_not_fail(verdicts: list[Verdict], capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert capsys.readouterr().out.splitlines() == [
        "green   step 0: fine",
        "yellow  step 1: slow",
        "        -> be patient",
        "1 yellow",
    ]


def test_red_fails(verdicts: list[Verdict], capsys: pytest.CaptureFixture[str]) -> None:
    verdicts.append(red("broken", "mend it"))
    assert run() == 1
    shown = capsys.readouterr().out
    assert "red     step 2: broken\n        -> mend it\n" in shown
    assert shown.endswith("\n1 red, 1 yellow\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_was_skipped_for_one_reason_is_one_line(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def examine(examination: Examination, *_: object, **__: object) -> None:
        examination.step("a", "A", lambda: red("broken", "mend it"))
        for name in "bc":
            examination.step(name, name.upper(), lambda: green("fine"), needs=["a"])
        examination.step("d", "D", lambda: green("fine"))
        examination.step("e", "E, last", lambda: green("fine"), needs=["c"])

    monkeypatch.setattr(module, "examine", examine)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert run() == 1
    lines = capsys.readouterr().out.replace("\x1b[0m", "").splitlines()
    skipped = [line[line.index("skipped") :] for line in lines if "skipped" in line]
    assert skipped == ["skipped (needs A): B, C", "skipped (needs A): E last"]
    assert lines[-1].endswith("1 red, 3 not examined")


def test_only_a_step_that_took_long_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in (0.4, 0.6):
        _write(Finding("a", "A", Status.GREEN, "fine", "", seconds))
    assert capsys.readouterr().out.splitlines() == ["green   A: fine", "green   A: fine (0.6 s)"]


def test_json_is_all_that_is_printed(
    verdicts: list[Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts.append(red("broken", "mend it"))
    assert run(as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert [line["status"] for line in found] == ["green", "yellow", "red"]
    assert found[2]["advice"] == "mend it"
    assert {"step", "title", "status", "message", "advice", "seconds"} == set(found[0])


def test_a_terminal_gets_signs_and_text_as_it_is(
    verdicts: list[Verdict],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts.append(red("[bold]broken[/]", "mend [/it]"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run() == 1
    shown = capsys.readouterr().out
    assert "✔" in shown
    assert "✘" in shown
    assert "[bold]broken[/]" in shown
    assert "mend [/it]" in shown
