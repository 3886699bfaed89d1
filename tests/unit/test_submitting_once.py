"""The program that asks the scheduler on a cluster elsewhere, however often it is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.cluster import _ONCE
from tests.unit.elsewhere import SBATCH, BreakingTransport, Elsewhere, elsewhere
from tests.waiting import until

SCRIPT = b"#!/bin/sh\n"


@pytest.fixture
def alpha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    return elsewhere(tmp_path, BreakingTransport(), monkeypatch)


@pytest.fixture
def once(tmp_path: Path) -> list[str]:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    return ["sh", "-c", _ONCE, "sh", str(run_dir), "sbatch", "--parsable"]


def asked(once: list[str], **options: Any) -> bytes:
    done = subprocess.run(once, input=SCRIPT, capture_output=True, check=True, **options)
    return done.stdout


def quick_sleep(alpha: Elsewhere) -> None:
    """A second of the program is a hundredth."""
    (alpha.programs / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.01\n")
    (alpha.programs / "sleep").chmod(0o755)


def test_an_earlier_try_that_takes_long_is_waited_for(alpha: Elsewhere, once: list[str]) -> None:
    """A scheduler that is busy takes a job later than anybody would wait for a dead process."""
    (alpha.programs / "sbatch").write_text(SBATCH.replace("sleep 0.5", "/bin/sleep 2"))
    quick_sleep(alpha)
    (alpha.programs / "slow").touch()
    first = subprocess.Popen(once, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until((alpha.programs / "begun").exists, 20, "the first submission to begin")
    assert asked(once) == b"100\n"
    assert first.wait(30) == 0
    assert len(alpha.jobs) == 1


@pytest.mark.parametrize("left", ["dead process", "nothing"])
def test_an_earlier_try_that_was_killed_is_no_hindrance(
    alpha: Elsewhere, once: list[str], left: str
) -> None:
    quick_sleep(alpha)
    lock = Path(once[4]) / "submitting"
    lock.mkdir()
    if left == "dead process":
        dead = subprocess.Popen(["true"])
        dead.wait()
        (lock / "by").write_text(f"{dead.pid} {os.uname().nodename}\n")
    assert asked(once, timeout=20) == b"100\n"
    assert len(alpha.jobs) == 1
    assert not lock.exists()


def test_what_is_said_to_a_connection_that_is_gone_ends_no_submission(
    alpha: Elsewhere, once: list[str]
) -> None:
    sbatch = SBATCH.replace("echo $((", "echo warning >&2; echo $((")
    (alpha.programs / "sbatch").write_text(sbatch)
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run(once, input=SCRIPT, stdout=writer, stderr=writer, check=False)
    os.close(writer)
    assert asked(once) == b"100\n"
    assert len(alpha.jobs) == 1


def test_who_asks_again_after_a_refusal_submits_once(alpha: Elsewhere, once: list[str]) -> None:
    (alpha.programs / "refusal").write_text("no\n")
    assert subprocess.run(once, input=SCRIPT, capture_output=True, check=False).stderr == b"no\n"
    (alpha.programs / "refusal").unlink()
    assert [asked(once) for _ in range(3)] == [b"100\n"] * 3
    assert len(alpha.jobs) == 1
    assert [path.name for path in Path(once[4]).iterdir()] == ["submitted"]
