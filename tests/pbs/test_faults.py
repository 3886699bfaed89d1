"""PBS, its answers and records and the Prefect server fail for a while: no run is lost."""

from __future__ import annotations

from uuid import UUID

from tests.fake_pbs import FakePBS
from tests.pbs.conftest import PBSSite
from tests.site.conftest import create_run, ends, job_of, read
from tests.site.test_faults import (
    address,
    cancel,
    deployment,
    gate,
    gated,
    has_run,
    let_go,
    scheduler_is_away,
    test_ends_while_the_server_is_away_are_told_afterwards,
    until_in,
    until_running,
    worker,
)
from tests.site.test_restart import jobs_named
from tests.waiting import until


def test_a_server_that_is_down_loses_and_doubles_nothing(
    site: PBSSite, fake: FakePBS, deployment: UUID
) -> None:
    scheduler_is_away(site, deployment, "down", fake.switched("down"))


def test_while_questions_hang_jobs_are_submitted_and_tell_their_ends(
    site: PBSSite, fake: FakePBS, deployment: UUID
) -> None:
    completes, dies = gated(deployment)
    until_running(completes, dies)
    with fake.switched("hang", "qstat qselect"):
        late = create_run(deployment)
        let_go(site, completes, dies)
        until_in(completes, "Completed")
        until_in(late, "Completed", 90)
        until(lambda: read(dies).state.is_crashed(), 60, "the node has told the end")
    assert "exit code 3" in until_in(dies, "JobFailed").message
    assert [has_run(site, run) for run in (completes, dies, late)] == [1, 1, 1]


def test_a_job_whose_id_was_lost_is_found_by_its_name(
    site: PBSSite, fake: FakePBS, deployment: UUID
) -> None:
    fake.switch("lose-answer")
    run = create_run(deployment)
    until_in(run, "Completed", 90)
    assert fake.calls()  # the switch is off again by itself
    assert not (fake.folder / "lose-answer").exists()
    assert jobs_named(site, run) == [1]
    assert has_run(site, run) == 1


DAMAGE = ["name", "bytes", "project", "escape", "newline", "empty"]


def test_damage_in_a_neighbours_job_hides_none_of_ours(
    site: PBSSite, fake: FakePBS, deployment: UUID
) -> None:
    with fake.switched("damage", " ".join(DAMAGE)):
        broken = site.run("qstat", "-f", "-F", "json").stdout
        assert '"Job_Name":nan' in broken.replace(" ", "")
        held = create_run(deployment, **site.batch.held)
        completes, dies = gated(deployment)
        until_running(completes, dies)
        assert read(held).state.name == "Queued"
        let_go(site, completes, dies)
        until_in(completes, "Completed")
        assert "exit code 3" in until_in(dies, "JobFailed").message
        site.batch.cancel(job_of(held))
        until_in(held, "Cancelled")
    assert [ends(run) for run in (completes, held)] == [["Completed"], ["Cancelled"]]


def test_jobs_of_others_that_are_hidden_hide_none_of_ours(
    site: PBSSite, fake: FakePBS, deployment: UUID
) -> None:
    with fake.switched("privacy"):
        run = create_run(deployment)
        until_in(run, "Completed", 90)
    assert jobs_named(site, run) == [1]


# the last, since the worker then asks for no records for a minute


def test_without_job_history_the_exit_record_decides(
    site: PBSSite, fake: FakePBS, deployment: UUID
) -> None:
    completes, dies = gated(deployment)
    waits = create_run(deployment, **site.batch.later())
    until_running(completes, dies)
    until_in(waits, "Queued")
    until(lambda: all(has_run(site, run) for run in (completes, dies)), 60, "they run")
    with fake.switched("no-history"):
        let_go(site, completes, dies)
        cancel(waits)
        until_in(completes, "Completed")
        assert "exit code 3" in until_in(dies, "JobFailed").message
        until_in(waits, "Cancelled")
    assert not site.batch.queued(job_of(waits))
