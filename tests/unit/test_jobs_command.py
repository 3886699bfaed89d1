"""The list of live jobs with their flow runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from hpc_bridge.cli import here
from hpc_bridge.cli import jobs as module
from hpc_bridge.cli.here import look_here
from hpc_bridge.cli.jobs import aligned, job_lines, list_jobs
from hpc_bridge.errors import ServerUnreachable, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from tests.unit.counted_files import CountedFiles

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NAMES: dict[UUID, str] = {}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[UUID]]:
    """What the server was asked; it knows NAMES."""
    calls: list[set[UUID]] = []

    def flow_runs(ids: set[UUID]) -> dict[UUID, Any]:
        calls.append(ids)
        return {of: SimpleNamespace(id=of, name=NAMES[of]) for of in ids & set(NAMES)}

    monkeypatch.setattr(module, "flow_runs", flow_runs)
    return calls


def a_run(shared: Path, *flow_runs: UUID) -> RunDirectory:
    run = RunDirectory.create(shared, new_submission_id())
    of = {str(element): str(flow_run) for element, flow_run in enumerate(flow_runs)}
    run.write_submission({"flow_runs": of, "spec": {"partition": "gpu"}})
    return run


def status(name: str, job_id: str, state: JobState, **known: Any) -> JobStatus:
    return JobStatus(JobId(job_id), name, state, str(state), **known)


def test_a_job_is_shown_with_its_run(shared: Path) -> None:
    flow_run = uuid4()
    NAMES[flow_run] = "tidy-owl"
    run = a_run(shared, flow_run)
    running = status(run.submission_id, "5", JobState.RUNNING, started=NOON, nodes="c1")
    [line] = job_lines([running], shared, SlurmScheduler())
    assert (line.flow_run, line.flow_run_id) == ("tidy-owl", str(flow_run))
    assert (line.partition, line.nodes, line.start) == ("gpu", "c1", NOON)
    assert line.output == str(run.output())


def test_a_waiting_job_says_why_and_when_it_may_start(shared: Path) -> None:
    run = a_run(shared, uuid4())
    waiting = status(
        run.submission_id, "5", JobState.PENDING, reason="Priority", estimated_start=NOON
    )
    [line] = job_lines([waiting], shared, SlurmScheduler())
    assert (line.reason, line.start) == ("Priority", NOON)
    assert " " in line.meaning


def test_each_element_of_an_array_has_its_own_run_and_the_server_is_asked_once(
    shared: Path, asked: list[set[UUID]]
) -> None:
    flow_runs = [uuid4() for _ in range(12)]
    run = a_run(shared, *flow_runs)
    elements = [status(run.submission_id, f"7_{n}", JobState.RUNNING) for n in (11, 2, 0)]
    lines = job_lines(elements, shared, SlurmScheduler())
    assert [line.flow_run_id for line in lines] == [str(flow_runs[n]) for n in (0, 2, 11)]
    assert asked == [{flow_runs[0], flow_runs[2], flow_runs[11]}]


def test_elsewhere_all_run_directories_are_two_commands(shared: Path) -> None:
    files = CountedFiles()
    array, single = a_run(shared, *(uuid4() for _ in range(30))), a_run(shared, uuid4())
    (array.path / "2").mkdir()
    (array.path / "2" / "job.out").touch()
    jobs = [status(array.submission_id, f"7_{n}", JobState.RUNNING) for n in range(30)]
    jobs.append(status(single.submission_id, "8", JobState.RUNNING))
    lines = job_lines(jobs, shared, SlurmScheduler(), files)
    assert lines == job_lines(jobs, shared, SlurmScheduler())
    outputs = {line.job_id: line.output for line in lines}
    assert outputs["7_2"] == str(array.path / "2" / "job.out")
    assert outputs["8"] == str(single.path / "job.out")
    assert files.commands == 2


def test_without_a_server_the_jobs_are_still_listed(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(_: object) -> None:
        raise ServerUnreachable("no answer")

    monkeypatch.setattr(module, "flow_runs", unreachable)
    flow_run = uuid4()
    run = a_run(shared, flow_run)
    [line] = job_lines([status(run.submission_id, "5", JobState.RUNNING)], shared, SlurmScheduler())
    assert (line.flow_run, line.flow_run_id) == ("", str(flow_run))
    assert "no answer" in capsys.readouterr().err


def test_a_job_of_another_shared_directory_is_listed_without_its_run(
    shared: Path, asked: list[set[UUID]]
) -> None:
    [line] = job_lines(
        [status(new_submission_id(), "5", JobState.RUNNING)], shared, SlurmScheduler()
    )
    assert (line.job_id, line.flow_run_id) == ("5", "")
    assert asked == []


def listed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared: Path,
    answer: Any,
    **options: bool,
) -> list[dict[str, Any]]:
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", str(shared))
    cluster = SimpleNamespace(status=answer, scheduler=SlurmScheduler())
    monkeypatch.setattr(here, "connect", lambda *_: SimpleNamespace(cluster=cluster))
    list_jobs(look_here(), **{"all_": False, "as_json": True, **options})
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(("all_", "expected"), [(False, ["1"]), (True, ["1", "2"])])
def test_live_jobs_are_listed_and_others_when_asked_for_but_never_those_of_others(
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    all_: bool,
    expected: list[str],
) -> None:
    run = a_run(shared, uuid4())
    jobs = {
        job.job_id: job
        for job in (
            status(run.submission_id, "1", JobState.RUNNING),
            status(new_submission_id(), "2", JobState.FAILED),
            status("my-own-job", "3", JobState.RUNNING),
        )
    }
    found = listed(monkeypatch, capsys, shared, lambda: jobs, all_=all_)
    assert sorted(line["job_id"] for line in found) == expected


def test_one_odd_job_hides_no_other(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = status(a_run(shared, uuid4()).submission_id, "1", JobState.RUNNING)

    def odd() -> None:
        raise UnexpectedOutput("job 2 is in state 'NEW'", readable={job.job_id: job})

    assert [line["job_id"] for line in listed(monkeypatch, capsys, shared, odd)] == ["1"]


def test_columns_are_aligned_and_no_cell_is_empty(shared: Path) -> None:
    run = a_run(shared, uuid4(), uuid4())
    jobs = [status(run.submission_id, f"1000{n}_{n}", JobState.PENDING) for n in (0, 1)]
    head, *rows = aligned(job_lines(jobs, shared, SlurmScheduler())).splitlines()
    assert head.split()[:4] == ["job_id", "state", "reason", "start"]
    assert {len(row.split()) for row in (head, *rows)} == {len(head.split())}
    assert {row.index("PENDING") for row in rows} == {head.index("state")}


def test_elements_of_pbs_are_told_apart(shared: Path) -> None:
    flow_runs = [uuid4() for _ in range(3)]
    run = a_run(shared, *flow_runs)
    jobs = [status(run.submission_id, f"7[{n}].pbs_01", JobState.RUNNING) for n in (2, 0)]
    lines = job_lines(jobs, shared, PBSScheduler())
    assert [(line.element, line.flow_run_id) for line in lines] == [
        *((0, str(flow_runs[0])), (2, str(flow_runs[2]))),
    ]
    [whole] = job_lines(
        [status(run.submission_id, "8.pbs_01", JobState.RUNNING)], shared, PBSScheduler()
    )
    assert whole.element == 0  # the number in the server's name is none


def test_where_jobs_wait_is_called_as_their_scheduler_does() -> None:
    assert aligned([], "queue").split()[4] == "queue"
    assert aligned([]).split()[4] == "partition"
