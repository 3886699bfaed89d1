"""From requests to one command: a plain job, or a job array with an element for each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hpc_bridge import connections
from hpc_bridge.connections import NO_OPTIONS
from hpc_bridge.errors import (
    BundleError,
    CommandTimeout,
    InvalidJobSpec,
    SchedulerUnavailable,
    SubmissionRefused,
    TemplateError,
)
from hpc_bridge.jobs import JobId, JobSpec
from hpc_bridge.node.attempt import Attempt
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.script import load_template
from hpc_bridge.storage import spool
from hpc_bridge.storage.bundle import BundleStore, Packed
from hpc_bridge.tracking.claims import claims_on
from hpc_bridge.tracking.job import stored_spec, tracked_jobs
from hpc_bridge.tracking.resubmission import resubmit, submit_again
from hpc_bridge.transports.base import Completed
from hpc_bridge.workers.submission import likeness, may_be_array, submit
from tests.unit.counted_files import CountedTransport
from tests.unit.elsewhere import ALPHA, elsewhere
from tests.unit.submitting import FakeSlurm, bundle, connected, request

REFUSED = Completed(1, "", "sbatch: error: Batch job submission failed: Invalid qos specification")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "50% shared"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def slurm(shared: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return connected(shared, monkeypatch)


def directives(script: str) -> list[str]:
    return [line[8:] for line in script.splitlines() if line.startswith("#SBATCH ")]


# One request


def test_one_request_is_a_plain_job(shared: Path, slurm: FakeSlurm) -> None:
    asked = request(shared, array_throttle=3)
    [job] = submit([asked])
    assert (job.job_id, job.element, job.flow_run_id) == (JobId("100"), 0, asked.flow_run_id)
    assert not [line for line in directives(slurm.scripts[0]) if "array" in line]
    assert job.run.output() == job.run.path / "job.out"
    assert job.run.read_submission()["job_id"] == "100"


# Several


def test_like_requests_are_one_array_with_an_element_for_each(
    shared: Path, slurm: FakeSlurm
) -> None:
    asked = [request(shared, command=bundle(shared)) for _ in range(3)]
    jobs = submit(asked)
    assert [str(job.job_id) for job in jobs] == ["100_0", "100_1", "100_2"]
    assert [job.flow_run_id for job in jobs] == [one.flow_run_id for one in asked]
    assert len(slurm.scripts) == 1
    run = jobs[0].run
    assert run.read_submission()["flow_runs"] == {
        str(n): str(one.flow_run_id) for n, one in enumerate(asked)
    }
    for element in range(3):
        folder = run.path / str(element)
        assert (folder / "bundle.json").exists()
        assert (folder / "job.out").stat().st_mode & 0o777 == 0o600
        assert run.output(element) == folder / "job.out"


@pytest.mark.parametrize(("throttle", "indices"), [(None, "0-1"), (1, "0-1%1")])
def test_the_script_names_indices_and_an_output_for_each(
    shared: Path, slurm: FakeSlurm, throttle: int | None, indices: str
) -> None:
    [job, _] = submit([request(shared, array_throttle=throttle) for _ in range(2)])
    run = str(job.run.path).replace("%", "%%")
    lines = directives(slurm.scripts[0])
    assert f"--array={indices}" in lines
    assert [line for line in lines if "--output" in line] == [f'--output="{run}/%a/job.out"']


def test_an_elements_process_knows_its_own_flow_run_only(shared: Path, slurm: FakeSlurm) -> None:
    asked = [request(shared, env={"MINE": "1"}) for _ in range(2)]
    run = submit(asked)[0].run
    assert str(asked[0].flow_run_id) not in (run.path / "env").read_text()
    for element, one in enumerate(asked):
        variables = Attempt(run.path, element, 0).variables()
        assert variables["PREFECT__FLOW_RUN_ID"] == str(one.flow_run_id)
        assert variables["MINE"] == "1"


def test_the_journals_command_names_no_bundle(shared: Path, slurm: FakeSlurm) -> None:
    command = bundle(shared)
    [job] = submit([request(shared, command=f"nice -n 5 {command}")])
    stored = job.run.read_submission()["command"]
    assert stored == "nice -n 5 python -m hpc_bridge.node.execute"


def test_the_comment_of_an_array_names_the_flow_and_the_number(
    shared: Path, slurm: FakeSlurm
) -> None:
    class Named:
        name = "my\nflow"

    asked = [request(shared) for _ in range(2)]
    asked[0].configuration._related_objects["flow"] = Named()
    submit(asked)
    assert '--comment="my flow: array of 2 runs"' in directives(slurm.scripts[0])


def test_a_template_that_makes_no_array_is_refused_before_anything_is_written(
    shared: Path, slurm: FakeSlurm
) -> None:
    with pytest.raises(TemplateError, match="no job array"):
        submit([request(shared, template="#!/bin/bash\ntrue\n") for _ in range(2)])
    assert not (shared / "runs").exists()
    assert slurm.scripts == []


def test_after_a_refusal_nothing_is_live(shared: Path, slurm: FakeSlurm) -> None:
    slurm.refusal = REFUSED
    with pytest.raises(SubmissionRefused, match="Invalid qos"):
        submit([request(shared) for _ in range(2)])
    assert list((shared / "live").iterdir()) == []


def test_elsewhere_a_bundle_has_arrived_although_its_job_is_refused(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = elsewhere(tmp_path, CountedTransport(), monkeypatch)
    place = ("slurm", shared, 30.0, NO_OPTIONS, ALPHA)
    monkeypatch.setitem(connections._connections, place, alpha.connection)
    (alpha.programs / "refusal").write_text("sbatch: error: invalid partition specified: nope\n")
    store = BundleStore(shared, alpha.connection.files)
    key = store.save(Packed(b'{"hpc_bridge": {"python": "3.12"}}', None))
    command = f"python -m hpc_bridge.node.execute --key {key}"
    asked = request(shared, command=command, api_url="http://server:4200/api")
    asked.configuration._login = ALPHA
    with pytest.raises(SubmissionRefused):
        submit([asked])
    assert spool.content(key) == {}
    store.check(key)
    claims_on(shared, alpha.connection.files).end()


def test_after_an_unclear_answer_the_submission_stays_live(shared: Path, slurm: FakeSlurm) -> None:
    slurm.refusal = Completed(1, "", "sbatch: error: Unable to contact slurm controller")
    with pytest.raises(SchedulerUnavailable):
        submit([request(shared)])
    [live] = (shared / "live").iterdir()
    assert json.loads((shared / "runs" / live.name / "submission.json").read_bytes())


def test_an_array_whose_answer_was_lost_is_found_by_its_name(
    shared: Path, slurm: FakeSlurm
) -> None:
    slurm.refusal = CommandTimeout("no answer")
    rows = [(f"77_{n}", "hb", "PENDING", "None", "", "", "", "") for n in (1, 0)]
    slurm.found = "".join("\x1f".join(row) + "\n" for row in rows)
    jobs = submit([request(shared) for _ in range(2)])
    assert [str(job.job_id) for job in jobs] == ["77_0", "77_1"]
    assert jobs[0].run.read_submission()["job_id"] == "77"


# What can go together


def test_runs_that_differ_in_name_and_bundle_only_are_alike(shared: Path, slurm: FakeSlurm) -> None:
    first, second = (request(shared, command=bundle(shared)) for _ in range(2))
    assert likeness(first) == likeness(second)


@pytest.mark.parametrize(
    "other",
    [
        {"walltime": 7200},
        {"env": {"MINE": "2"}},
        {"python": "/other"},
        {"setup": ["module load cuda"]},
        {"comment": "charge to x"},
        {"working_directory": "/data"},
        {"called_from": "/home/me"},
        {"array_throttle": 5},
        {"command": "python -m mine"},
    ],
)
def test_runs_that_differ_otherwise_are_not(
    shared: Path, slurm: FakeSlurm, other: dict[str, Any]
) -> None:
    first, second = request(shared), request(shared)
    configuration = second.configuration.model_copy(
        update={
            **other,
            "env": second.configuration.env | other.get("env", {}),
        }
    )
    assert likeness(first) != likeness(replace(second, configuration=configuration))
    assert likeness(first) != likeness(replace(first, work_pool="other"))


@pytest.mark.parametrize("other", [{"files": True}, {"python": "3.13"}])
def test_bundles_that_need_another_start_are_not_alike(
    shared: Path, slurm: FakeSlurm, other: dict[str, Any]
) -> None:
    first = request(shared, command=bundle(shared))
    assert likeness(first) != likeness(request(shared, command=bundle(shared, **other)))


def test_a_bundle_that_is_gone_is_told_before_the_run_joins_others(
    shared: Path, slurm: FakeSlurm
) -> None:
    (shared / "bundles").mkdir()
    command = f"python -m hpc_bridge.node.execute --key {uuid4()}"
    with pytest.raises(BundleError, match="gone"):
        likeness(request(shared, command=command))


def test_an_own_template_makes_arrays_when_it_is_a_copy_of_ours(
    shared: Path, slurm: FakeSlurm
) -> None:
    packaged = load_template(None, "slurm.sh.j2")[1]
    older = packaged.replace("{% if array %}", "{% if false %}")
    assert may_be_array(request(shared, template=packaged).configuration, SlurmScheduler())
    assert not may_be_array(request(shared, template=older).configuration, SlurmScheduler())
    assert not may_be_array(request(shared, arrays=False).configuration, SlurmScheduler())


@pytest.mark.parametrize(("requeue", "is_taken"), [(None, True), (True, True), (False, False)])
def test_pbs_takes_no_array_that_may_not_be_rerun(requeue: bool | None, is_taken: bool) -> None:
    spec = JobSpec(name="hb", requeue=requeue)
    assert PBSScheduler().takes_array(spec) is is_taken
    assert SlurmScheduler().takes_array(spec)


@pytest.mark.parametrize("line", ["--array=0-5", "-a0-5", "--output=x"])
def test_users_cannot_make_arrays_of_their_own(shared: Path, slurm: FakeSlurm, line: str) -> None:
    with pytest.raises(InvalidJobSpec, match="decided by hpc-bridge"):
        submit([request(shared, directives=[line])])


# From the journal alone


def test_tracked_jobs_come_back_from_the_journal(shared: Path, slurm: FakeSlurm) -> None:
    asked = [request(shared, walltime="90m", memory="1500M") for _ in range(3)]
    jobs = submit(asked)
    run, connection = jobs[0].run, jobs[0].connection
    assert [
        (job.job_id, job.element, job.flow_run_id) for job in tracked_jobs(run, connection)
    ] == [(job.job_id, job.element, job.flow_run_id) for job in jobs]
    spec = tracked_jobs(run, connection)[0].spec
    assert spec is not None
    assert (spec.walltime, spec.memory) == (5400, 1500)
    run.settle(1, state="COMPLETED")
    assert [job.element for job in tracked_jobs(run, connection)] == [0, 2]


def test_a_plain_job_comes_back_too_and_one_without_id_does_not(
    shared: Path, slurm: FakeSlurm
) -> None:
    [job] = submit([request(shared)])
    [again] = tracked_jobs(job.run, job.connection)
    assert (again.job_id, again.reference) == (job.job_id, job.reference)
    stored = job.run.read_submission()
    del stored["job_id"]
    job.run.write_submission(stored)
    assert tracked_jobs(job.run, job.connection) == []


def test_a_stored_spec_of_another_version_is_read_as_far_as_it_is_known() -> None:
    spec = stored_spec({"spec": {"name": "hbabc", "walltime": "02:00:00", "qubits": 7}})
    assert spec is not None
    assert spec.walltime == 7200
    assert stored_spec({"spec": {"name": "hbabc", "walltime": "a fortnight"}}) is None
    assert stored_spec({}) is None


def test_a_script_that_never_reached_the_scheduler_is_submitted_as_it_lies_there(
    shared: Path, slurm: FakeSlurm
) -> None:
    [job] = submit([request(shared)])
    stored = job.run.read_submission()
    del stored["job_id"]
    job.run.write_submission(stored)
    assert resubmit(job.run, job.connection) == JobId("101")
    assert slurm.scripts[1] == slurm.scripts[0]
    assert job.run.read_submission()["job_id"] == "101"


# Once more, for the same flow run

NEW = "hb2222222333333"


def test_an_element_goes_on_as_a_plain_job_in_a_directory_of_its_own(
    shared: Path, slurm: FakeSlurm
) -> None:
    asked = [request(shared, command=bundle(shared, files=True), walltime="1h") for _ in range(3)]
    old = submit(asked)[1]
    new = submit_again(old, NEW, resubmissions=2)
    assert (new.job_id, new.element, new.flow_run_id) == (JobId("101"), 0, asked[1].flow_run_id)
    assert new.reference.submission_id == NEW
    stored = new.run.read_submission()
    assert (stored["continues"], stored["resubmissions"]) == (old.run.submission_id, 2)
    assert stored["flow_runs"] == {"0": str(asked[1].flow_run_id)}
    assert (stored["job_id"], stored["spec"]["name"]) == ("101", NEW)
    packed = [
        (run.path / element / name).stat().st_ino
        for run, element in ((old.run, "1"), (new.run, "0"))
        for name in ("bundle.json", "files.zip")
    ]
    assert packed[:2] == packed[2:]
    assert (new.run.path / "env").read_bytes() == (old.run.path / "env").read_bytes()


def test_its_script_is_that_of_a_plain_job_of_the_new_name(shared: Path, slurm: FakeSlurm) -> None:
    values = {"walltime": "1h", "setup": ["module load x"], "comment": "mine"}
    [_, old] = submit([request(shared, **values) for _ in range(2)])
    submit_again(old, NEW, resubmissions=1)
    [plain] = submit([request(shared, **values)])
    assert slurm.scripts[1] == slurm.scripts[2].replace(plain.run.submission_id, NEW)


def test_done_again_after_a_crash_it_makes_no_second_job(shared: Path, slurm: FakeSlurm) -> None:
    [old] = submit([request(shared)])
    first = submit_again(old, NEW, resubmissions=1)
    assert submit_again(old, NEW, resubmissions=1).job_id == first.job_id
    stored = first.run.read_submission()
    del stored["job_id"]
    first.run.write_submission(stored)
    slurm.found = "\x1f".join((str(first.job_id), NEW, "PENDING", "None", "", "", "", "")) + "\n"
    assert submit_again(old, NEW, resubmissions=1).job_id == first.job_id
    assert len(slurm.scripts) == 2


def test_interrupted_while_it_was_written_it_is_completed(shared: Path, slurm: FakeSlurm) -> None:
    [old] = submit([request(shared, command=bundle(shared))])
    first = submit_again(old, NEW, resubmissions=1)
    (first.run.path / "submission.json").unlink()
    assert submit_again(old, NEW, resubmissions=1).job_id == JobId("102")


def test_a_run_directory_of_the_first_format_can_be_continued(
    shared: Path, slurm: FakeSlurm
) -> None:
    [old] = submit([request(shared, command=bundle(shared))])
    (old.run.path / "0" / "bundle.json").rename(old.run.path / "bundle.json")
    stored = old.run.read_submission() | {"format": 1}
    (old.run.path / "submission.json").write_text(json.dumps(stored))
    [tracked] = tracked_jobs(old.run, old.connection)
    new = submit_again(tracked, NEW, resubmissions=1)
    assert (new.run.path / "0" / "bundle.json").exists()
    assert new.run.read_submission()["format"] == 2
