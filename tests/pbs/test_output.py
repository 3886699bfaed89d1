"""What jobs print comes into their runs' logs once: the tests of tests/site/test_output.py.

They run in the order of their names here: the job is over after the one of its lines.
"""

from tests.site.test_output import (
    followed,
    over,
    run,
    test_a_live_job_is_listed_with_its_run,
    test_a_run_names_its_job,
    test_each_line_comes_once_although_the_worker_was_killed,
    test_the_file_itself_is_followed_to_the_end,
    test_the_usage_has_walltime_cpus_and_memory,
    test_what_the_flow_logs_is_not_doubled,
)
