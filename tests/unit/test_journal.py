"""The run directory: names, modes, whole files, errors in words."""

from __future__ import annotations

import errno
import json
import os
import resource
import string
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpc_bridge.errors import InvalidJobSpec, NotOwned, SharedDirectoryError
from hpc_bridge.journal import (
    RunDirectory,
    check_owner,
    environment_file,
    is_submission_id,
    new_submission_id,
    prepare_shared_directory,
    shared_directory_errors,
    submission_time,
    write_private,
)
from hpc_bridge.node.attempt import FLOW_RUN_ID, Attempt
from hpc_bridge.node.records import ExitRecord, read_exit_record, write_exit_record

NOBODY = 65534


@contextmanager
def file_mode_mask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As on a full disk: a write stops in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_privileges() -> Iterator[None]:
    """As an ordinary user: modes of files do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return prepare_shared_directory(tmp_path / "shared")


@pytest.fixture
def run(shared: Path) -> RunDirectory:
    return RunDirectory.create(shared, new_submission_id())


# submission ids


def test_an_id_is_a_job_name_for_every_scheduler() -> None:
    for _ in range(200):
        name = new_submission_id()
        assert len(name) == 15
        assert name.isalnum()
        assert name.islower()
        assert name[0] in string.ascii_lowercase
        assert is_submission_id(name)


def test_ids_sort_by_time() -> None:
    moments = [0, 1, 31, 32, 1_000_000_000, 1_800_000_000, 1_800_000_001, 2**34, 2**35 - 1]
    names = [new_submission_id(moment) for moment in moments]
    assert names == sorted(names)


@pytest.mark.parametrize("moment", [0, 1, 1_000_000_000, 1_795_240_800, 2**35 - 1])
def test_an_id_tells_when_it_was_made(moment: int) -> None:
    assert submission_time(new_submission_id(moment + 0.9)) == datetime.fromtimestamp(moment, UTC)


def test_ids_of_one_second_differ() -> None:
    assert len({new_submission_id(1_800_000_000) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "name", ["", "train", "hb", "hbabc", "HBAAAAAAAAAAAAA", "hbaaaaaaaaaaaaa1", "hbaaaaaaaaaaaa1"]
)
def test_other_names_are_not_taken_for_ids(name: str) -> None:
    assert not is_submission_id(name)


# modes


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_everything_belongs_to_the_account_alone_whatever_the_umask(
    tmp_path: Path, mask: int
) -> None:
    with file_mode_mask(mask):
        run = RunDirectory.create(prepare_shared_directory(tmp_path / "shared"), "hbabc")
        run.write("env", b"TOKEN=secret\0")
        run.write_submission({"spec": {}})
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "shared").rglob("*.json")}
    folders = [tmp_path / "shared", *(path for path in run.path.parents if path.name == "runs")]
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in [*folders, run.path]} == {0o700}
    assert (run.path / "env").stat().st_mode & 0o777 == 0o600


def test_preparing_again_changes_nothing(shared: Path) -> None:
    (shared / "runs" / "kept").mkdir()
    assert prepare_shared_directory(shared) == shared
    assert sorted(path.name for path in shared.iterdir()) == [
        "bundles",
        "live",
        "results",
        "runs",
    ]
    assert (shared / "runs" / "kept").is_dir()


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


# errors in words


def missing(folder: Path) -> Path:
    return folder / "no" / "such"


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "shared"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (missing, "does not exist; create it or set HPC_BRIDGE_SHARED_DIR"),
        (a_file, "is not a folder; set HPC_BRIDGE_SHARED_DIR"),
        (below_a_file, "is not a folder; set HPC_BRIDGE_SHARED_DIR"),
    ],
)
def test_a_shared_directory_that_cannot_be_is_named(
    tmp_path: Path, place: Callable[[Path], Path], words: str
) -> None:
    path = place(tmp_path)
    with pytest.raises(SharedDirectoryError, match=f"^the shared directory {path} {words}"):
        prepare_shared_directory(path)


def test_a_shared_directory_below_a_folder_of_others_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    path = tmp_path / "shared"
    with (
        without_privileges(),
        pytest.raises(SharedDirectoryError, match=f"^the shared directory {path} is not writable"),
    ):
        prepare_shared_directory(path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full; free some space there or set HPC_BRIDGE_SHARED_DIR"),
        (errno.EDQUOT, "is over quota; free some space there or set HPC_BRIDGE_SHARED_DIR"),
        (errno.EACCES, "is not writable for you; set HPC_BRIDGE_SHARED_DIR"),
        (errno.EPERM, "is not writable for you; set HPC_BRIDGE_SHARED_DIR"),
        (errno.EROFS, "is read-only; set HPC_BRIDGE_SHARED_DIR"),
        (errno.ESTALE, "cannot be used: Stale file handle"),
    ],
)
def test_every_error_of_a_shared_directory_says_what_to_do(number: int, words: str) -> None:
    original = OSError(number, os.strerror(number))
    with (
        pytest.raises(
            SharedDirectoryError, match=f"^the shared directory /shared {words}"
        ) as caught,
        shared_directory_errors(Path("/shared")),
    ):
        raise original
    assert caught.value.__cause__ is original


def test_the_system_says_full_where_it_is_full() -> None:
    with (
        pytest.raises(SharedDirectoryError, match="is full; free some space"),
        shared_directory_errors(Path("/dev")),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")


@pytest.mark.parametrize("name", ["back\\slash", "line\nbreak", "line\rbreak"])
def test_a_path_that_a_directive_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidJobSpec, match="holds a backslash or line break"):
        prepare_shared_directory(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_is_made_once(shared: Path) -> None:
    RunDirectory.create(shared, "hbabc")
    with pytest.raises(SharedDirectoryError, match="File exists"):
        RunDirectory.create(shared, "hbabc")


def test_a_run_directory_that_was_removed_is_named(run: RunDirectory) -> None:
    run.path.rmdir()
    with pytest.raises(SharedDirectoryError, match="does not exist"):
        run.write("job.sh", b"")


# owners


def test_a_folder_of_another_account_is_refused(shared: Path) -> None:
    if os.geteuid() == 0:
        os.chown(shared, NOBODY, -1)
        words = f"belongs to user id {NOBODY}, not to you \\(0\\)"
    else:
        shared.chmod(0o777)
        words = "can be written by others"
    with pytest.raises(NotOwned, match=words):
        prepare_shared_directory(shared)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_refused_with_the_cure(shared: Path, mode: int) -> None:
    shared.chmod(mode)
    with pytest.raises(NotOwned, match=f"{shared} can be written by others; run: chmod go-w"):
        check_owner(shared)


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_a_folder_that_others_can_read_is_no_danger(shared: Path, mode: int) -> None:
    shared.chmod(mode)
    check_owner(shared)


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


# exit records


def claim(run: RunDirectory, attempt: int, element: int = 0) -> Path:
    folder = run.path / str(element) / str(attempt)
    folder.mkdir(parents=True)
    return folder


def test_a_job_that_never_started_has_no_record(run: RunDirectory) -> None:
    assert (run.newest_attempt(), run.exit_record()) == (None, None)
    (run.path / "0").mkdir()
    assert (run.newest_attempt(), run.exit_record()) == (None, None)


def test_an_attempt_that_goes_on_has_no_record(run: RunDirectory) -> None:
    folder = claim(run, 0)
    assert (run.newest_attempt(), run.exit_record()) == (folder, None)


def test_the_newest_attempts_record_counts(run: RunDirectory) -> None:
    for attempt in (0, 9, 10, 2):
        record = ExitRecord(exit_code=attempt)
        write_exit_record(claim(run, attempt) / "exit.json", record)
    assert run.exit_record() == ExitRecord(exit_code=10)
    claim(run, 11)
    assert run.exit_record() is None


def test_an_attempt_is_the_newest_until_a_later_one_has_its_claim(run: RunDirectory) -> None:
    claim(run, 9)
    claim(run, 0, element=1)
    assert Attempt(run.path, 0, 9).is_newest()
    (run.path / "0" / ".nfs000000000a1b2c3d").write_text("")
    assert Attempt(run.path, 0, 9).is_newest()
    claim(run, 10)
    assert [Attempt(run.path, 0, number).is_newest() for number in (9, 10)] == [False, True]


def test_every_element_has_its_own_attempts(run: RunDirectory) -> None:
    write_exit_record(claim(run, 0, element=0) / "exit.json", ExitRecord(exit_code=1))
    write_exit_record(claim(run, 0, element=7) / "exit.json", ExitRecord(exit_code=2))
    assert [run.exit_record(element) for element in (0, 7)] == [
        ExitRecord(exit_code=1),
        ExitRecord(exit_code=2),
    ]
    assert run.exit_record(3) is None


@pytest.mark.parametrize("name", [".nfs000000000a1b2c3d", "notes.txt"])
def test_a_strange_file_beside_the_attempts_hides_no_record(run: RunDirectory, name: str) -> None:
    """A network file system leaves such names where an open file was removed."""
    write_exit_record(claim(run, 0) / "exit.json", ExitRecord(exit_code=1))
    (run.path / "0" / name).write_text("")
    assert run.exit_record() == ExitRecord(exit_code=1)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = ExitRecord(
        job_id="42",
        node="c1",
        stage="flow",
        exit_code=137,
        signal=9,
        cause="WalltimeExceeded",
        message='line\n"two" ü',
        flow_state="CRASHED",
        terminated=True,
        started="2026-11-21T05:00:00+00:00",
        ended="2026-11-21T05:00:01+00:00",
    )
    path = tmp_path / "exit.json"
    write_exit_record(path, record)
    assert read_exit_record(path) == record
    assert list(tmp_path.iterdir()) == [path]


def test_fields_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "exit.json"
    path.write_text(json.dumps({"format": 2, "exit_code": 3, "peak_memory": 17}))
    assert read_exit_record(path) == ExitRecord(format=2, exit_code=3)


def test_fields_that_are_missing_have_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "exit.json"
    path.write_text("{}")
    assert read_exit_record(path) == ExitRecord()


# the job's output


def test_a_job_that_printed_nothing_has_no_tail(run: RunDirectory) -> None:
    assert run.output_tail() == ""
    run.output().write_bytes(b"")
    assert run.output_tail() == ""


def test_the_tail_is_the_last_lines(run: RunDirectory) -> None:
    run.output().write_text("".join(f"{number}\n" for number in range(100)))
    assert run.output_tail().split("\n") == [str(number) for number in range(80, 100)]
    assert run.output_tail(lines=1) == "99"


def test_the_tail_of_a_huge_output_is_read_from_its_end(run: RunDirectory) -> None:
    with run.output().open("wb") as file:
        file.truncate(10 * 2**40)  # ten sparse terabytes
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert run.output_tail(lines=1) == "the end"


def test_a_tail_that_is_no_utf8_is_shown_all_the_same(run: RunDirectory) -> None:
    run.output().write_bytes(b"caf\xe9 \xff\xfe\nbye \xe2\x9c\x93\n")
    assert run.output_tail() == "caf\ufffd \ufffd\ufffd\nbye ✓"


def test_the_zeros_that_a_nodes_crash_leaves_are_not_in_the_tail(run: RunDirectory) -> None:
    """No database takes them as text, and the end of the run would never be told."""
    run.output().write_bytes(b"fi\0rst\nlast\n" + b"\0" * 512)
    assert run.output_tail() == "first\nlast"
    run.output().write_bytes(b"\0" * 100_000)
    assert run.output_tail() == ""


# one element of several


def live(run: RunDirectory) -> bool:
    return (run.shared / "live" / run.submission_id).exists()


def with_elements(run: RunDirectory, *elements: int) -> RunDirectory:
    run.write_submission({"flow_runs": {str(element): "id" for element in elements}})
    return run


def test_an_element_has_a_folder_of_its_own(run: RunDirectory) -> None:
    with file_mode_mask(0o000):
        folder = run.element(7)
        assert run.element(7) == folder == run.path / "7"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_elements_folder_that_cannot_be_made_is_said_in_words(run: RunDirectory) -> None:
    (run.path / "7").write_text("")
    with pytest.raises(SharedDirectoryError, match="is not a folder"):
        run.element(7)


def test_an_array_has_an_output_for_each_element_and_a_job_has_one(run: RunDirectory) -> None:
    """The first version had one alone; a job that was never an array still has."""
    (run.path / "job.out").write_text("all\n")
    (run.element(3) / "job.out").write_text("third\n")
    assert [run.output(element).parent.name for element in (0, 3)] == [run.path.name, "3"]
    assert [run.output_tail(element=element) for element in (0, 3)] == ["all", "third"]


def test_the_output_of_an_element_that_has_not_printed_is_empty(run: RunDirectory) -> None:
    assert run.output_tail(element=4) == ""


# what has been told


def test_a_submission_is_live_until_every_end_is_told(run: RunDirectory) -> None:
    with_elements(run, 0, 1, 2)
    for element in (1, 0, 2):
        assert live(run)
        assert run.settled(element) is None
        run.settle(element, job_state="COMPLETED")
        assert run.settled(element) == {"format": 2, "job_state": "COMPLETED"}
    assert not live(run)


def test_ends_that_are_told_together_leave_nothing_live(run: RunDirectory) -> None:
    with_elements(run, *range(40))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run.settle, range(40)))
    assert not live(run)


def test_an_end_may_be_told_twice(run: RunDirectory) -> None:
    with_elements(run, 0)
    run.settle(0, flow_state="Completed")
    run.settle(0, flow_state="Crashed")
    assert run.settled() == {"format": 2, "flow_state": "Crashed"}
    assert not live(run)


def test_an_end_that_cannot_be_noted_leaves_the_submission_live(run: RunDirectory) -> None:
    with_elements(run, 0)
    with no_file_longer_than(10), pytest.raises(SharedDirectoryError):
        run.settle(0)
    assert run.settled() is None
    assert live(run)


def test_what_is_closed_may_be_closed_again_and_reopened(run: RunDirectory) -> None:
    for _ in range(2):
        run.close()
        assert not live(run)
    for _ in range(2):
        run.reopen()
        assert live(run)
    assert (run.shared / "live" / run.submission_id).stat().st_mode & 0o777 == 0o600


def test_a_submission_is_live_before_its_folder_exists(shared: Path) -> None:
    """Killed in between it leaves a name that leads nowhere, and never a folder without a name."""
    (shared / "runs").rmdir()
    name = new_submission_id()
    with pytest.raises(SharedDirectoryError):
        RunDirectory.create(shared, name)
    assert (shared / "live" / name).exists()


def test_a_shared_directory_of_the_first_version_gets_an_index(shared: Path) -> None:
    (shared / "live").rmdir()
    assert live(RunDirectory.create(shared, new_submission_id()))


# who has claimed a flow run


def test_the_newest_claim_says_which_job_made_it(run: RunDirectory) -> None:
    assert run.claimant() is None
    (claim(run, 0) / "job").write_text("41\n")
    assert run.claimant() == "41"
    newest = claim(run, 1)
    assert run.claimant() is None
    (newest / "job").write_text("")
    assert run.claimant() is None
    (newest / "job").write_text("42_3")
    assert run.claimant() == "42_3"
    assert run.claimant(1) is None


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
