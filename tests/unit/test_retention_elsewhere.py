"""What is removed on a cluster that is reached over a connection, and what that costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.retention import Swept, sweep
from tests.unit.counted_files import CountedFiles
from tests.unit.test_retention import MONTH, NOW, a_bundle, a_run, age, ended, link, settled


@pytest.fixture
def files() -> CountedFiles:
    return CountedFiles()


def a_lot(shared: Path, count: int) -> list[RunDirectory]:
    """Runs of which every fifth one's end was never told."""
    runs = [a_run(shared) for _ in range(count)]
    for number, run in enumerate(runs):
        if number % 5:
            settled(run)
        else:
            ended(run)
            run.close()
    return runs


def test_the_same_goes_and_stays_as_on_the_cluster_itself(
    shared: Path, files: CountedFiles
) -> None:
    runs = a_lot(shared, 10)
    kept, gone, other = a_bundle(shared), a_bundle(shared), a_bundle(shared, days=1)
    link(kept, runs[0])
    link(gone, runs[1])
    for path in (runs[0].path, runs[1].path, kept, gone):
        age(path, 31)
    on_itself = sweep(shared, MONTH, now=NOW, dry_run=True)
    told = sweep(shared, MONTH, files, now=NOW, dry_run=True)
    done = sweep(shared, MONTH, files, now=NOW)
    assert told == done == on_itself
    assert (done.count, done.bundles, len(done.untold), done.errors) == (8, 1, 2, [])
    assert sorted((shared / "runs").iterdir()) == sorted([runs[0].path, runs[5].path])
    assert kept.exists()
    assert not gone.exists()
    assert other.exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_it_costs_does_not_depend_on_how_many_there_are(
    shared: Path, files: CountedFiles, dry_run: bool
) -> None:
    a_lot(shared, 100)
    done = sweep(shared, MONTH, files, now=NOW, dry_run=dry_run)
    assert (done.count, len(done.untold)) == (80, 20)
    assert files.commands <= 10


def test_a_folder_that_cannot_be_read_hinders_no_other(shared: Path, files: CountedFiles) -> None:
    damaged, *others = a_lot(shared, 8)
    (damaged.path / "submission.json").unlink()
    (damaged.path / "submission.json").mkdir()
    age(damaged.path, 31)
    done = sweep(shared, MONTH, files, now=NOW)
    assert done.count == 6
    assert str(damaged.path) in done.errors[0]
    assert [run.path.exists() for run in others] == [False] * 4 + [True] + [False] * 2


@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_killed_transfers_have_left_goes_after_a_day(
    shared: Path, files: CountedFiles, elsewhere: bool
) -> None:
    run = a_run(shared, days=2)
    places = [shared, run.path]
    for place in places:
        for name, days in ((".hpc-bridge-0123abcd", 2.0), (".hpc-bridge-ffff", 0.5)):
            (place / name / "f").mkdir(parents=True)
            (place / name / "f" / "half").write_bytes(b"x" * 100)
            age(place / name, days)
    done = sweep(shared, MONTH, *([files] if elsewhere else []), now=NOW)
    assert done == Swept(bytes=200)
    left = [path.name for place in places for path in place.glob(".hpc-bridge-*")]
    assert left == [".hpc-bridge-ffff"] * 2


def test_a_removal_that_breaks_off_leaves_no_half_of_a_run(
    shared: Path, files: CountedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settled(a_run(shared))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "remove_trees", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep(shared, MONTH, files, now=NOW)
    assert not (run.path / "submission.json").exists()
    age(run.path, 31)
    assert sweep(shared, MONTH, files, now=NOW).count == 1
    assert not run.path.exists()
