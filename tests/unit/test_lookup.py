"""From what a person types to the files of a run."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from hpc_bridge.errors import RunNotFound
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.tracking.lookup import NamedRun, find_run, submissions
from tests.unit.counted_files import CountedFiles


def a_run(shared: Path, job_id: str, *flow_runs: UUID, at: float = 1.8e9) -> RunDirectory:
    run = RunDirectory.create(shared, new_submission_id(at))
    of = {str(element): str(flow_run) for element, flow_run in enumerate(flow_runs or (uuid4(),))}
    run.write_submission({"flow_runs": of, "job_id": job_id})
    return run


def test_a_run_is_found_by_each_of_its_names(shared: Path) -> None:
    flow_run = uuid4()
    a_run(shared, "122")
    run = a_run(shared, "123", flow_run)
    names = [run.submission_id, "123", str(flow_run), str(flow_run).upper()]
    assert [find_run(name, shared) for name in names] == [(run, 0)] * 4


def test_an_element_is_found_by_each_of_its_names(shared: Path) -> None:
    flow_runs = [uuid4() for _ in range(3)]
    run = a_run(shared, "123", *flow_runs)
    names = [f"{run.submission_id}_2", "123_2", str(flow_runs[2])]
    assert [find_run(name, shared) for name in names] == [(run, 2)] * 3


@pytest.mark.parametrize("name", ["7.pbs01", "7", "7.pbs01.example"])
def test_a_job_of_pbs_is_found_with_and_without_its_server(shared: Path, name: str) -> None:
    a_run(shared, "8.pbs01.example", at=1.9e9)
    run = a_run(shared, "7.pbs01.example")
    assert find_run(name, shared) == (run, 0)
    with pytest.raises(RunNotFound, match=r"job id 7\.other"):
        find_run("7.other", shared)


@pytest.mark.parametrize("name", ["7[2]", "7[2].pbs", "7_2"])
def test_an_element_of_pbs_is_found_by_each_of_its_names(shared: Path, name: str) -> None:
    run = a_run(shared, "7[].pbs", *(uuid4() for _ in range(3)))
    assert find_run(name, shared) == (run, 2)
    with pytest.raises(RunNotFound, match="array of 3 flow runs"):
        find_run("7[]", shared)


def test_of_jobs_with_one_id_the_newest_counts(shared: Path) -> None:
    a_run(shared, "7", at=1.7e9)
    newest = a_run(shared, "7", at=1.9e9)
    a_run(shared, "7", at=1.8e9)
    assert find_run("7", shared) == (newest, 0)


def test_of_the_jobs_of_one_flow_run_the_newest_counts(shared: Path) -> None:
    flow_run = uuid4()
    newest = a_run(shared, "9", flow_run, at=1.9e9)
    a_run(shared, "8", flow_run, at=1.8e9)
    assert find_run(str(flow_run), shared) == (newest, 0)


def test_a_name_is_asked_of_the_server(shared: Path) -> None:
    flow_run = uuid4()
    run = a_run(shared, "1", flow_run)
    assert find_run("tidy-owl", shared, named=lambda _: [NamedRun(flow_run, "")]) == (run, 0)


def test_several_runs_of_one_name_are_listed(shared: Path) -> None:
    runs = [NamedRun(uuid4(), "started 10:00"), NamedRun(uuid4(), "started 11:00")]
    with pytest.raises(RunNotFound) as caught:
        find_run("nightly", shared, named=lambda _: runs)
    for run in runs:
        assert f"{run.flow_run_id}  {run.started}" in str(caught.value)


def test_only_a_name_is_asked_of_the_server(shared: Path) -> None:
    def never(name: str) -> list[NamedRun]:
        raise AssertionError(name)

    run = a_run(shared, "1")
    assert find_run("1", shared, named=never) == (run, 0)
    with pytest.raises(RunNotFound):
        find_run(str(uuid4()), shared, named=never)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("99", "no submission in .* has the job id 99"),
        ("5_7", "5 has no element 7"),
        ("5", "5 is an array of 3 flow runs; give one: 5_0, 5_1, 5_2"),
        ("hbaaaaaaaaaaaaa", "there is no submission hbaaaaaaaaaaaaa"),
        ("tidy-owl", "there is no flow run, submission or job 'tidy-owl'"),
        ("", "there is no flow run"),
        ("b5a1c1c0-0000-4000-8000-000000000000", "has no job yet, or none with its files in"),
    ],
)
def test_what_is_not_found_is_said_in_words(shared: Path, text: str, message: str) -> None:
    a_run(shared, "5", uuid4(), uuid4(), uuid4())
    with pytest.raises(RunNotFound, match=message):
        find_run(text, shared)


@pytest.mark.parametrize("files", [HERE, CountedFiles()], ids=["here", "elsewhere"])
def test_directories_that_cannot_be_read_hide_no_other(shared: Path, files: ClusterFiles) -> None:
    run = a_run(shared, "5")
    RunDirectory.create(shared, new_submission_id())  # being written
    damaged = a_run(shared, "6")
    (damaged.path / "submission.json").write_text("{")
    odd = a_run(shared, "7")
    (odd.path / "submission.json").unlink()
    (odd.path / "submission.json").mkdir()
    (shared / "runs" / ".removing-hbaaaaaaaaaaaaa").mkdir()
    assert [found.path for found, _ in submissions(shared, files)] == [run.path]


def test_over_a_connection_the_newest_runs_are_read_first_and_many_at_once(shared: Path) -> None:
    files = CountedFiles()
    runs = [a_run(shared, str(number), at=1.8e9 + number) for number in range(250)]
    for job, commands in (("249", 2), ("150", 2), ("149", 3), ("0", 4)):
        before = files.commands
        found, _ = find_run(job, shared, files)
        assert found.path == runs[int(job)].path
        assert found.files is files
        assert files.commands - before == commands


def test_a_shared_directory_that_was_never_used_has_no_runs(tmp_path: Path) -> None:
    assert list(submissions(tmp_path / "nowhere")) == []
