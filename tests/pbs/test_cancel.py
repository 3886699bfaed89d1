"""Every way to cancel a run, on PBS: the tests of tests/site/test_cancel.py, and PBS's own."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from tests.pbs.conftest import PBSSite
from tests.site.conftest import create_run, ends, job_of, side_by_side
from tests.site.test_cancel import (
    deployment,
    folder,
    state,
    test_a_cancellation_that_meets_the_end_leaves_one_final_state,
    test_a_cancelled_element_of_an_array_leaves_the_others_alone,
    test_a_cancelled_flow_has_its_hooks_and_its_children_end,
    test_a_flow_that_ignores_its_cancellation_is_ended,
    test_a_job_that_waits_again_after_a_requeue_is_cancelled,
    test_a_queued_job_leaves_the_queue_at_once,
    test_a_run_that_is_being_submitted_can_be_cancelled,
    test_ctrl_c_in_a_direct_call_cancels_the_job,
    test_the_end_of_the_script_that_submitted_never_ends_the_job,
    test_the_job_of_a_run_that_is_set_cancelled_by_hand_leaves_the_queue,
    test_with_nobody_alive_outside_the_job_looks_before_it_starts,
    until_started,
    worker,
)
from tests.waiting import until


def test_a_job_that_is_deleted_by_hand_says_by_whom_if_it_ran(
    site: PBSSite,
    deployment: UUID,
) -> None:
    def cancelled(user: str, *, running: bool) -> None:
        variables = {} if running else site.batch.later()
        run = create_run(deployment, 300, arrays=False, **variables)
        job = job_of(run)
        if running:
            until_started(site, run)
        site.batch.cancel(job, user=user)
        until(lambda: state(run).is_cancelled(), 30, "the run is cancelled")
        by = site.account if user == "researcher" else user
        words = f"at the scheduler by {by}." if running else "at the scheduler before it started."
        assert words in state(run).message
        assert ends(run)[-1] == "Cancelled"

    side_by_side(
        *(
            partial(cancelled, user, running=running)
            for user in ("researcher", "root")
            for running in (True, False)
        )
    )
