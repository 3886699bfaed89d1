"""kill -9 at any point, on PBS: the tests of tests/site/test_restart.py."""

from tests.site.test_restart import (
    folder,
    test_a_worker_may_be_killed_at_any_point,
    test_reconcile_tells_what_became_of_a_job_that_nobody_looked_after,
    test_two_workers_of_a_pool_share_its_runs_and_one_takes_over_the_others,
)
