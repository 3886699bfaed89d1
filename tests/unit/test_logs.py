"""The job's output file on standard output."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from hpc_bridge.cli import logs
from hpc_bridge.cli.logs import copy, follow_output
from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from tests.unit.counted_files import CountedFiles


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0)
    monkeypatch.setattr(logs, "POLL_ELSEWHERE_SECONDS", 0)
    return RunDirectory.create(prepare_shared_directory(tmp_path / "s"), new_submission_id())


@pytest.fixture(params=["here", "elsewhere"])
def files(request: pytest.FixtureRequest) -> ClusterFiles:
    return HERE if request.param == "here" else CountedFiles()


def copied(path: Path, lines: int | None = None, files: ClusterFiles = HERE) -> bytes:
    out = io.BytesIO()
    copy(path, out, lines, files=files)
    return out.getvalue()


@pytest.mark.parametrize("size", [0, 1, 1024**2 - 1, 1024**2, 1024**2 + 1, 3 * 1024**2])
def test_every_byte_is_as_it_was(tmp_path: Path, files: ClusterFiles, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    (tmp_path / "job.out").write_bytes(content)
    assert copied(tmp_path / "job.out", files=files) == content


@pytest.mark.parametrize("ending", [b"\n", b""])
@pytest.mark.parametrize("size", [1, 1000, 64 * 1024 - 1, 64 * 1024, 200_000])
@pytest.mark.parametrize("lines", [0, 1, 2, 3, 9])
def test_the_last_lines(
    tmp_path: Path, files: ClusterFiles, ending: bytes, size: int, lines: int
) -> None:
    content = b"\n".join([b"x" * size, b"", b"b" * size, b"c"]) + ending
    (tmp_path / "job.out").write_bytes(content)
    expected = b"".join(content.splitlines(keepends=True)[-lines:]) if lines else b""
    assert copied(tmp_path / "job.out", lines, files) == expected


def test_the_last_lines_of_a_large_output_elsewhere_are_all_that_is_fetched(tmp_path: Path) -> None:
    files, path = CountedFiles(), tmp_path / "job.out"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(2_000_000)))
    last = b"".join(b"line %d\n" % number for number in range(1_990_000, 2_000_000))
    assert copied(path, 3, files) == b"line 1999997\nline 1999998\nline 1999999\n"
    assert (files.commands, files.transport.bytes < 100_000) == (3, True)
    assert copied(path, 10_000, files) == last
    assert files.transport.bytes < 800_000


def test_following_elsewhere_is_one_command_a_look_and_outlives_the_connection(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    files, out = CountedFiles(), io.BytesIO()
    (run.path / "job.out").write_bytes(b"one\n")
    looks: list[int] = []

    def over() -> bool:
        looks.append(files.commands)
        files.transport.is_away = len(looks) == 3
        if len(looks) == 3:
            files.transport.comes_back_after = 2
        with (run.path / "job.out").open("ab") as file:
            file.write(b"more\n")
        return len(looks) == 6

    follow_output(RunDirectory(run.path, files), 0, 0, out, over=over)
    assert out.getvalue() == b"one\n" + b"more\n" * 6
    # The first one finds the output; two fail while the connection is away.
    assert looks == [2, 3, 4, 7, 8, 9]
    assert capsys.readouterr().err.count("there is no connection") == 1


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
