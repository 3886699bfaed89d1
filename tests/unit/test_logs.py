"""The job's output file on standard output."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from hpc_bridge.cli import logs
from hpc_bridge.cli.logs import copy, follow_output
from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0)
    return RunDirectory.create(prepare_shared_directory(tmp_path / "s"), new_submission_id())


def copied(path: Path, lines: int | None = None) -> bytes:
    out = io.BytesIO()
    copy(path, out, lines)
    return out.getvalue()


def test_every_byte_is_as_it_was(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "job.out").write_bytes(content)
    assert copied(tmp_path / "job.out") == content


@pytest.mark.parametrize("ending", [b"\n", b""])
@pytest.mark.parametrize("size", [1, 1000, 64 * 1024 - 1, 64 * 1024, 200_000])
@pytest.mark.parametrize("lines", [0, 1, 2, 3, 9])
def test_the_last_lines(tmp_path: Path, ending: bytes, size: int, lines: int) -> None:
    content = b"\n".join([b"x" * size, b"", b"b" * size, b"c"]) + ending
    (tmp_path / "job.out").write_bytes(content)
    expected = b"".join(content.splitlines(keepends=True)[-lines:]) if lines else b""
    assert copied(tmp_path / "job.out", lines) == expected


def test_following_goes_on_until_the_run_is_over_and_nothing_more_comes(run: RunDirectory) -> None:
    out = io.BytesIO()
    events = iter([b"", b"one\n", b"two\n", None])

    def over() -> bool:
        event = next(events)
        with run.path.joinpath("job.out").open("ab") as file:
            file.write(event or b"slurmstepd: the end\n")  # after the flow's own end
        return event is None

    follow_output(run, 0, 0, out, over=over)
    assert out.getvalue() == b"slurmstepd: the end\n" + b"one\ntwo\n" + b"slurmstepd: the end\n"


def test_following_a_file_that_was_cut_shows_it_from_its_start(run: RunDirectory) -> None:
    out = io.BytesIO()
    run.write("job.out", b"a long first output\n")
    answers = iter([False, True])

    def over() -> bool:
        run.write("job.out", b"new\n")
        return next(answers)

    follow_output(run, 0, 0, out, over=over)
    assert out.getvalue() == b"a long first output\nnew\n"
