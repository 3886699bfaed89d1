"""``hpc-bridge clean``: which submissions the server is asked about, and what is said."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from hpc_bridge.cli import clean as module
from hpc_bridge.cli.clean import clean, report
from hpc_bridge.errors import ServerUnreachable
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.node.records import ExitRecord, write_exit_record
from hpc_bridge.tracking.retention import Swept
from tests.unit.folders import element_folder

WEEK = timedelta(days=7)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[UUID, bool]:
    """Flow runs that the server knows, and whether they are final."""
    known: dict[UUID, bool] = {}

    def flow_runs(ids: set[UUID]) -> dict[UUID, Any]:
        return {
            of: SimpleNamespace(state=SimpleNamespace(is_final=lambda of=of: known[of]))
            for of in ids & set(known)
        }

    monkeypatch.setattr(module, "flow_runs", flow_runs)
    return known


def an_old_run_of_format_one(shared: Path, flow_run: UUID) -> RunDirectory:
    """It has an exit record, but neither a marker nor a note that its end was told."""
    run = RunDirectory.create(shared, new_submission_id())
    run.close()
    run.write_submission({"flow_runs": {"0": str(flow_run)}})
    attempt = element_folder(run, 0) / "0"
    attempt.mkdir(parents=True)
    write_exit_record(attempt / "exit.json", ExitRecord(exit_code=0))
    for path in (*run.path.rglob("*"), run.path):
        os.utime(path, (1.7e9, 1.7e9))
    return run


@pytest.mark.parametrize(("final", "removed"), [(True, True), (False, False), (None, True)])
def test_an_end_that_was_not_noted_is_asked_of_the_server(
    shared: Path, states: dict[UUID, bool], final: bool | None, removed: bool
) -> None:
    flow_run = uuid4()
    if final is not None:  # else it has been deleted there
        states[flow_run] = final
    run = an_old_run_of_format_one(shared, flow_run)
    assert clean(shared, WEEK, dry_run=False) == 0
    assert run.path.exists() is not removed


def test_without_a_server_it_stays_and_the_way_out_is_named(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(_: object) -> None:
        raise ServerUnreachable("no answer")

    monkeypatch.setattr(module, "flow_runs", unreachable)
    run = an_old_run_of_format_one(shared, uuid4())
    assert clean(shared, WEEK, dry_run=False) == 0
    assert run.path.exists()
    assert "kept 1 old run with no told end; run: hpc-bridge reconcile" in capsys.readouterr().out


def test_a_run_with_a_live_marker_is_not_even_asked_about(
    shared: Path, states: dict[UUID, bool]
) -> None:
    flow_run = uuid4()
    states[flow_run] = True
    run = an_old_run_of_format_one(shared, flow_run)
    (shared / "live" / run.submission_id).touch()
    clean(shared, WEEK, dry_run=False)
    assert run.path.exists()


def test_a_dry_run_speaks_of_what_would_be(shared: Path) -> None:
    swept = Swept(count=1200, bundles=1, bytes=3_456_000_000, kept_live=2, untold=["a"])
    assert report(swept, shared, dry_run=True).splitlines() == [
        f"would remove 1,200 run directories and 1 bundle of {shared}: 3.5 GB",
        "kept 2 old runs that may be queued or running",
        "kept 1 old run with no told end; run: hpc-bridge reconcile",
    ]


def test_what_cannot_be_removed_is_told_and_fails(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        module, "sweep", lambda *_, **__: Swept(errors=["/x: Device or resource busy"])
    )
    assert clean(shared, WEEK, dry_run=False) == 1
    assert "cannot be removed: /x: Device or resource busy" in capsys.readouterr().err
