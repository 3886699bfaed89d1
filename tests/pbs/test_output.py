"""What jobs print comes into their runs' logs once: the tests of tests/site/test_output.py."""

from tests.site.test_output import (
    followed,
    over,
    run,
    test_a_run_names_its_job,
    test_each_line_comes_once_although_the_worker_was_killed,
    test_live_jobs_are_listed_with_their_runs,
    test_the_file_itself_is_followed_to_the_end,
    test_the_usage_has_walltime_cpus_and_memory,
    test_what_the_flow_logs_is_not_doubled,
)
