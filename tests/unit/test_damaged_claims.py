"""Claims that cannot be read or written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from hpc_bridge.errors import SharedDirectoryError
from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.tracking.claims import Claims
from tests.unit.claiming import Start, another, held_by
from tests.unit.restrictions import as_nobody


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\0\0\0\0", b"\xff\xfe", b"../x\n", b"x" * 5000, b"released\n"]
)
def test_a_damaged_claim_is_free(claims: Claims, run: RunDirectory, content: bytes) -> None:
    (run.path / "tracker.3").write_bytes(content)
    assert claims.take(run)
    assert claims.held([run])


def test_strange_files_are_no_claims(claims: Claims, run: RunDirectory, start: Start) -> None:
    claims.take(run)
    for name in ("tracker.txt", "tracker.", "tracker.9.old", ".tracker.7", "tracker"):
        (run.path / name).write_text("other\n")
    assert claims.take(run)
    assert not start().takes(run)


def test_a_folder_that_cannot_be_written_is_said_in_words(shared: Path, run: RunDirectory) -> None:
    shared.chmod(0o755)
    with as_nobody(), pytest.raises(SharedDirectoryError, match=f"{shared} is not writable"):
        Claims(shared).take(run)


def test_a_run_directory_that_cannot_be_read_is_not_taken_for_a_free_one() -> None:
    with tempfile.TemporaryDirectory() as folder:  # the way to tmp_path is closed for others
        Path(folder).chmod(0o755)
        shared = prepare_shared_directory(Path(folder) / "shared")
        run, claims = RunDirectory.create(shared, new_submission_id()), Claims(shared)
        held_by(run, another(shared, place="elsewhere"))
        assert not claims.take(run)
        for path in (shared, shared / "runs", shared / "trackers"):
            path.chmod(0o777)
        for path in (shared / "trackers").iterdir():
            path.chmod(0o666)
        run.path.chmod(0o333)
        with as_nobody(), pytest.raises(SharedDirectoryError, match="Permission denied"):
            claims.take(run)
        assert [path.name for path in run.path.iterdir()] == ["tracker.0"]
        claims.end()


def test_a_process_whose_file_cannot_be_read_is_not_taken_for_dead(
    claims: Claims, run: RunDirectory
) -> None:
    claims.living()
    identity = another(run.shared, place="elsewhere")
    held_by(run, identity)
    path = run.shared / "trackers" / f"{identity}.json"
    path.unlink()
    path.mkdir()  # any error but that it is missing
    with pytest.raises(SharedDirectoryError):
        claims.take(run)


def test_a_run_directory_that_is_gone_is_said_in_words(claims: Claims, run: RunDirectory) -> None:
    run.path.rmdir()
    with pytest.raises(SharedDirectoryError, match="does not exist"):
        claims.take(run)
    claims.release(run)
