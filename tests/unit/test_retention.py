"""What is removed from the shared directory, and above all what is not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.node.records import ExitRecord, write_exit_record
from hpc_bridge.storage.bundle import BundleStore, Packed
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.tracking.retention import Swept, sweep
from hpc_bridge.transports.base import Files
from tests.unit.counted_files import CountedFiles
from tests.unit.restrictions import NOBODY, as_nobody

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MONTH = timedelta(days=30)


def age(path: Path, days: float) -> None:
    then = (NOW - timedelta(days=days)).timestamp()
    for folder, _, names in os.walk(path, topdown=False):
        for name in (*names, "."):
            os.utime(Path(folder) / name, (then, then))


def a_run(shared: Path, *, elements: int = 1, days: float = 31) -> RunDirectory:
    run = RunDirectory.create(shared, new_submission_id())
    run.write("job.out", b"x" * 1000)
    flow_runs = {str(element): f"run-{element}" for element in range(elements)}
    run.write_submission({"flow_runs": flow_runs})
    age(run.path, days)
    return run


def settled(run: RunDirectory, *elements: int, days: float = 31) -> RunDirectory:
    for element in elements or (0,):
        run.settle(element, state="COMPLETED")
    age(run.path, days)
    return run


def ended(run: RunDirectory, element: int = 0, days: float = 31) -> RunDirectory:
    attempt = run.element(element) / "0"
    attempt.mkdir(parents=True)
    write_exit_record(attempt / "exit.json", ExitRecord(exit_code=0))
    age(run.path, days)
    return run


def a_bundle(shared: Path, days: float = 31) -> Path:
    key = BundleStore(shared).save(Packed(b"b" * 500, None))
    age(shared / "bundles" / key, days)
    return shared / "bundles" / key


def link(bundle: Path, run: RunDirectory) -> None:
    links = BundleStore(run.shared).links(bundle.name, f"runs/{run.submission_id}/0")
    HERE.put(Files(str(run.shared), {}, links))


@contextmanager
def as_an_ordinary_user(place: Path) -> Iterator[None]:
    """Modes of files do not bind root."""
    if os.geteuid() == 0:
        for folder, _, names in os.walk(place):
            for name in (*names, "."):
                os.chown(Path(folder) / name, NOBODY, -1)
    with as_nobody():
        yield


def swept(shared: Path, **options: object) -> Swept:
    return sweep(shared, MONTH, now=NOW, **options)  # type: ignore[arg-type]


def test_a_run_that_ended_long_ago_is_removed(shared: Path) -> None:
    run = settled(a_run(shared))
    done = swept(shared)
    assert (done.count, done.errors) == (1, [])
    assert done.bytes > 1000
    assert list((shared / "runs").iterdir()) == []
    assert not run.path.exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda shared: settled(a_run(shared), days=29),
        lambda shared: a_run(shared, days=29),
    ],
)
def test_what_is_recent_stays(shared: Path, make: Callable[[Path], RunDirectory]) -> None:
    run = make(shared)
    done = swept(shared)
    assert run.path.exists()
    assert (done.count, done.kept_live) == (0, 0)


def test_the_end_counts_not_the_submission(shared: Path) -> None:
    run = settled(a_run(shared, days=90), days=90)
    settled_at = (NOW - timedelta(days=1)).timestamp()
    os.utime(run.path / "0" / "settled.json", (settled_at, settled_at))
    swept(shared)
    assert run.path.exists()


def test_a_job_that_waits_for_months_stays(shared: Path) -> None:
    run = a_run(shared, days=300)
    done = swept(shared)
    assert run.path.exists()
    assert (done.count, done.kept_live, done.untold) == (0, 1, [])


def test_an_array_stays_while_one_element_is_not_told(shared: Path) -> None:
    run = settled(a_run(shared, elements=3), 0, 2)
    assert swept(shared).kept_live == 1
    settled(run, 1)
    assert swept(shared).count == 1


def test_a_live_marker_wins_over_everything(shared: Path) -> None:
    run = settled(a_run(shared))
    (shared / "live" / run.submission_id).touch()
    done = swept(shared, told=lambda _: [run.submission_id])
    assert run.path.exists()
    assert done.count == 0


def test_an_end_that_nobody_was_told_of_is_named_and_stays(shared: Path) -> None:
    run = ended(a_run(shared))
    done = swept(shared)
    assert run.path.exists()
    assert (done.kept_live, done.untold) == (0, [run.submission_id])


def test_a_run_of_format_one_goes_when_its_flow_run_is_known_to_have_ended(shared: Path) -> None:
    run = ended(a_run(shared))
    run.close()  # format 1 made no markers
    assert swept(shared).untold == [run.submission_id]
    assert swept(shared, told=lambda _: [run.submission_id]).count == 1


def test_a_folder_without_a_journal_never_had_a_job(shared: Path) -> None:
    run = RunDirectory.create(shared, new_submission_id())
    age(run.path, 31)
    assert swept(shared).kept_live == 1  # somebody may be about to write it, for all we know
    run.close()
    assert swept(shared).count == 1


def test_a_damaged_journal_is_told_and_kept(shared: Path) -> None:
    run, other = a_run(shared), settled(a_run(shared))
    (run.path / "submission.json").write_text("{")
    age(run.path, 31)
    done = swept(shared)
    assert run.path.exists()
    assert not other.path.exists()
    assert "submission.json cannot be read" in done.errors[0]


def test_what_is_not_ours_stays(shared: Path) -> None:
    (shared / "runs" / "notes").mkdir()
    age(shared / "runs", 400)
    (shared / "results" / "abc").write_text("a result")
    age(shared / "results", 400)
    assert swept(shared) == Swept()
    assert (shared / "runs" / "notes").exists()
    assert (shared / "results" / "abc").exists()


def test_a_dry_run_says_the_same_and_removes_nothing(shared: Path) -> None:
    run, bundle = a_run(shared), a_bundle(shared)
    link(bundle, run)
    settled(run)
    age(bundle, 31)
    told = swept(shared, dry_run=True)
    assert run.path.exists()
    assert bundle.exists()
    assert swept(shared) == told
    assert (told.count, told.bundles) == (1, 1)
    assert 1500 < told.bytes < 2000
    assert not run.path.exists()
    assert not bundle.exists()


def test_a_removal_that_was_broken_off_is_finished(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    settled(a_run(shared))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            swept(shared)
    [left] = (shared / "runs").iterdir()
    assert left.name.startswith(".removing-hb")
    swept(shared)
    assert list((shared / "runs").iterdir()) == []


def test_folders_that_a_flow_made_read_only_are_removed_too() -> None:
    with tempfile.TemporaryDirectory() as place:  # which an ordinary user reaches
        shared = prepare_shared_directory(Path(place) / "shared")
        cache = settled(a_run(shared)).element(0) / "0" / "work" / "cache"
        cache.mkdir(parents=True)
        (cache / "module").touch()
        age(shared, 31)
        cache.chmod(0o500)
        cache.parent.chmod(0o500)
        with as_an_ordinary_user(Path(place)):
            done = swept(shared)
        assert (done.count, done.errors) == (1, [])


def test_an_old_bundle_that_no_run_has_is_removed(shared: Path) -> None:
    old, recent = a_bundle(shared), a_bundle(shared, days=29)
    done = swept(shared)
    assert (done.bundles, done.bytes) == (1, 500)
    assert not old.exists()
    assert recent.exists()


def test_the_bundle_of_a_run_that_is_kept_stays(shared: Path) -> None:
    bundle = a_bundle(shared)
    link(bundle, a_run(shared))
    age(bundle, 31)
    assert swept(shared).bundles == 0
    assert bundle.exists()


def test_a_shared_directory_that_was_never_used_is_no_error(tmp_path: Path) -> None:
    assert swept(tmp_path / "nowhere") == Swept()


# profiles that came from elsewhere


def a_site(shared: Path, digest: str, days: float = 31) -> Path:
    HERE.put(Files(str(shared), {f"sites/{digest}/hpc.yaml": b"x" * 300}))
    age(shared / "sites" / digest, days)
    return shared / "sites" / digest


@pytest.mark.parametrize("files", [HERE, CountedFiles()], ids=["here", "elsewhere"])
def test_a_profile_goes_that_no_live_run_looks_for(shared: Path, files: ClusterFiles) -> None:
    used, unused, other, young = (
        a_site(shared, digest, days)
        for digest, days in (("aa", 31), ("bb", 31), ("cc", 31), ("dd", 1))
    )
    for days, site in ((1, used), (300, other)):  # submitted again since, and waiting for long
        run = a_run(shared, days=days)
        run.write("env", f"A=1\0HPC_BRIDGE_SITES={site}\0".encode())
        age(run.path, days)
    ended = settled(a_run(shared))
    ended.write("env", f"HPC_BRIDGE_SITES={unused}\0".encode())
    age(ended.path, 31)
    ended.close()
    would = swept(shared, files=files, dry_run=True)
    assert unused.exists()
    done = swept(shared, files=files)
    assert done.bytes == would.bytes > 300
    assert [site.exists() for site in (used, unused, other, young)] == [True, False, True, True]
    assert done.errors == []
