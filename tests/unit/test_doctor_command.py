"""How the doctor's findings are shown."""

from __future__ import annotations

import json

import pytest

from hpc_bridge.cli.doctor import run_doctor
from hpc_bridge.doctor import examine as module
from hpc_bridge.doctor.findings import Examination, Verdict, green, red, yellow


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
        "green   step 0: fine (0.0 s)",
        "yellow  step 1: slow (0.0 s)",
        "        -> be patient",
    ]


def test_red_fails(verdicts: list[Verdict], capsys: pytest.CaptureFixture[str]) -> None:
    verdicts.append(red("broken", "mend it"))
    assert run() == 1
    assert "red     step 2: broken (0.0 s)\n        -> mend it\n" in capsys.readouterr().out


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
