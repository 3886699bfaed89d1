"""Like runs that are ready together are one array of PBS, but for a single one."""

from uuid import UUID

from tests.pbs.conftest import PBSSite
from tests.site.conftest import job_of
from tests.site.test_bursts import (
    burst,
    deployment,
    states,
    test_a_cancelled_element_leaves_the_others_alone_and_the_throttle_holds,
    test_each_element_has_its_own_run_output_and_end,
)
from tests.waiting import until


def test_a_run_alone_is_no_array_which_pbs_would_refuse(
    site: PBSSite,
    site_worker: str,
    deployment: UUID,
) -> None:
    (run,) = burst(deployment, site_worker, 1)
    assert "[" not in job_of(run)
    until(lambda: states([run]) == ["Completed"], 60, "the run is completed")
