"""Limits while jobs wait in the queue, on PBS."""

from functools import partial

from tests.pbs.conftest import PBSSite
from tests.site.conftest import side_by_side
from tests.site.test_limits import (
    a_work_queue_has_one_queued_job_at_a_time,
    folder,
    queued_and_running_jobs_count_also_those_of_an_earlier_worker,
)


def test_limits_hold_while_jobs_wait(site: PBSSite) -> None:
    cases = (
        queued_and_running_jobs_count_also_those_of_an_earlier_worker,
        a_work_queue_has_one_queued_job_at_a_time,
    )
    side_by_side(*(partial(case, site) for case in cases))
