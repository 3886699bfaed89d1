"""Runs that the first version of this package left are taken over too."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.journal import RunDirectory
from hpc_bridge.storage.cluster_files import HERE
from hpc_bridge.tracking.adoption import index_older_runs
from tests.unit.fake_cluster import FakeCluster
from tests.unit.orphaned_runs import a_run, adopted, found, ids, status


def of_format_1(shared: Path, **what: Any) -> RunDirectory:
    run = a_run(shared, format=1, **what)
    run.close()
    return run


def test_runs_of_the_first_version_are_found_once(shared: Path) -> None:
    run, newer = of_format_1(shared, job_id="7"), a_run(shared)
    newer.settle(0)
    assert index_older_runs(shared, HERE) == 1
    assert index_older_runs(shared, HERE) == 0
    assert found(shared) == [run]
    run.settle(0)
    assert index_older_runs(shared, HERE) == 0
    assert found(shared) == []


def test_a_run_of_the_first_version_is_adopted(shared: Path, cluster: FakeCluster) -> None:
    run = of_format_1(shared, job_id="7")
    index_older_runs(shared, HERE)
    assert ids(adopted(run)) == ["7"]
    unnoted = of_format_1(shared)
    cluster.queue = [status(unnoted, "8")]
    assert ids(adopted(unnoted)) == ["8"]
    assert unnoted.read_submission()["format"] == 1


def test_a_submission_of_the_first_version_that_was_refused_is_not_made_now(
    shared: Path, cluster: FakeCluster
) -> None:
    """That version left the same files for what was refused and what was killed."""
    run = of_format_1(shared)
    assert adopted(run) == []
    assert cluster.scripts == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", None])
def test_a_run_of_the_first_version_that_was_never_complete_is_left(
    shared: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    run = of_format_1(shared)
    if content is None:
        (run.path / "submission.json").unlink()
    else:
        run.write("submission.json", content)
    with caplog.at_level(logging.WARNING):
        assert index_older_runs(shared, HERE) == 0
    assert caplog.text == ""


def test_an_index_is_made_where_the_first_version_had_none(shared: Path) -> None:
    run = of_format_1(shared, job_id="7")
    (shared / "live").rmdir()
    assert index_older_runs(shared, HERE) == 1
    assert json.loads((run.path / "submission.json").read_bytes())["format"] == 1
    assert (shared / "live" / run.submission_id).stat().st_mode & 0o777 == 0o600
