"""The run directory: what is written into it is read back, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc_bridge.errors import SharedDirectoryError
from hpc_bridge.files import write_private
from hpc_bridge.journal import RunDirectory, environment_file
from hpc_bridge.node.attempt import FLOW_RUN_ID, Attempt
from hpc_bridge.node.records import ExitRecord, write_exit_record
from tests.unit.restrictions import file_mode_mask, no_file_longer_than
from tests.unit.run_directories import claim, live

# whole files


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")
    with path.open("rb") as reader:
        write_private(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    with no_file_longer_than(100), pytest.raises(OSError, match="File too large"):
        write_private(tmp_path / "file", b"x" * 200)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_fit_leaves_the_old_one(run: RunDirectory) -> None:
    run.write("job.sh", b"old")
    with (
        no_file_longer_than(100),
        pytest.raises(
            SharedDirectoryError, match=r"the shared directory .* cannot be used: File too"
        ),
    ):
        run.write("job.sh", b"x" * 200)
    assert [path.read_bytes() for path in run.path.iterdir()] == [b"old"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"theirs")
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    write_private(link, b"ours")
    assert elsewhere.read_bytes() == b"theirs"
    assert link.read_bytes() == b"ours"


# the env file


VARIABLES = {
    "PLAIN": "value",
    "EMPTY": "",
    "EQUALS": "a=b=c",
    "LINES": "one\ntwo\r\n\n",
    "QUOTES": 'it\'s "quoted" `x` $(y) \\',
    "BLANKS": "  a\tb  ",
    "UNICODE": "ümläut ✓ \U0001f680 \x85\u2028",
    "CONTROL": "\x01\x1b[31m\x7f",
    "LONG": "x" * 100_000,
}


def test_any_variable_survives_the_env_file(run: RunDirectory) -> None:
    run.write("env", environment_file(VARIABLES))
    run.write_submission({"flow_runs": {}})
    run.write_submission({"flow_runs": {}})
    assert Attempt(run.path, 0, 0).variables() == VARIABLES


def test_no_variables_are_an_empty_env_file(run: RunDirectory) -> None:
    run.write("env", environment_file({}))
    run.write_submission({"flow_runs": {}})
    run.write_submission({"flow_runs": {}})
    assert Attempt(run.path, 0, 0).variables() == {}


def test_every_element_has_its_own_flow_run_in_the_variables(run: RunDirectory) -> None:
    run.write("env", environment_file({"A": "1", FLOW_RUN_ID: "of another version"}))
    run.write_submission({"flow_runs": {"0": "first", "7": "second"}})
    found = [Attempt(run.path, element, 0).variables() for element in (0, 7)]
    assert found == [{"A": "1", FLOW_RUN_ID: "first"}, {"A": "1", FLOW_RUN_ID: "second"}]


def test_an_attempt_survives_the_environment(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt(run.path, 3, 2)
    for name, value in attempt.environment().items():
        monkeypatch.setenv(name, value)
    assert Attempt.from_environment() == attempt
    assert attempt.exit_record == run.path / "3" / "2" / "exit.json"


# submission.json


def test_a_submission_survives_its_file(run: RunDirectory) -> None:
    run.write_submission({"spec": {"comment": 'ü "x"'}, "flow_runs": {"0": "id"}})
    assert run.read_submission() == {
        "format": 2,
        "spec": {"comment": 'ü "x"'},
        "flow_runs": {"0": "id"},
    }
    assert Attempt(run.path, 0, 0).submission() == run.read_submission()


def test_an_attempt_without_a_bundle_has_none(run: RunDirectory) -> None:
    assert Attempt(run.path, 0, 0).bundle() is None
    run.write("bundle.json", b'{"function": "x"}')
    assert Attempt(run.path, 0, 0).bundle() == {"function": "x"}


# one element of several


def test_an_element_has_a_folder_of_its_own(run: RunDirectory) -> None:
    with file_mode_mask(0o000):
        run.write("7/note", b"")
    assert run.element(7) == run.path / "7"
    assert run.element(7).stat().st_mode & 0o777 == 0o700


def test_an_elements_folder_that_cannot_be_made_is_said_in_words(run: RunDirectory) -> None:
    (run.path / "7").write_text("")
    with pytest.raises(SharedDirectoryError, match="is not a folder"):
        run.write("7/note", b"")


# directories of the first version


def test_a_directory_of_the_first_version_is_read(run: RunDirectory) -> None:
    journal = {"format": 1, "flow_runs": {"0": "id"}, "job_id": "7"}
    run.write("submission.json", json.dumps(journal).encode())
    run.write("job.out", b"hello\n")
    run.write("bundle.json", b'{"function": "x"}')
    write_exit_record(claim(run, 0) / "exit.json", ExitRecord(exit_code=3))
    assert run.read_submission() == journal
    assert run.output_tail() == "hello"
    assert run.exit_record() == ExitRecord(exit_code=3)
    assert run.claimant() is None
    assert Attempt(run.path, 0, 0).bundle() == {"function": "x"}
    run.write_submission(run.read_submission() | {"job_id": "8"})
    assert run.read_submission() == journal | {"job_id": "8"}
    run.settle(0)
    assert not live(run)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7"])
def test_a_damaged_journal_is_a_value_error(run: RunDirectory, content: str) -> None:
    (run.path / "submission.json").write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011  two kinds of damage, two messages
        run.read_submission()
