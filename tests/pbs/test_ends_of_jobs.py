"""Each end of a job on PBS is told apart, by a worker and by a caller that waits.

As tests/site/test_ends_of_jobs.py: all at once, and then each flow run is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.pbs.conftest import PBSSite
from tests.site.test_ends_of_jobs import (
    RESTART,
    SLEEP,
    Cases,
    Expected,
    Runs,
    check_end,
    check_requeued,
    check_usage,
    has_begun,
    is_told,
    notes,
    submitted,
)
from tests.waiting import until

JOB: dict[str, Any] = {"memory": "600M", "walltime": "15m"}
WARNED = JOB | {"walltime": "2m", "warning": "USR1@40"}
AGAIN = WARNED | {"on_walltime": "resubmit"}

WORKER: Cases = {
    "exit code": (("jobs.end", "_exit"), JOB),
    "killed": (("jobs.end", "kill"), JOB),
    "segmentation fault": (("jobs.end", "segv"), JOB),
    "out of memory": (("jobs.end", "hoard"), JOB),
    "warned": (SLEEP, WARNED),
    "resubmitted": (RESTART, AGAIN),
    "resubmitted too often": (SLEEP, AGAIN | {"max_resubmissions": 1}),
    "deleted by root": (SLEEP, JOB),
    "deleted in the queue": (SLEEP, dict(JOB)),  # later
    "dependency not met": (SLEEP, dict(JOB)),  # on a job that has failed
    "held": (SLEEP, dict(JOB)),  # later
    "can never run": (SLEEP, JOB | {"cpus_per_task": 999}),
    "rerun": (RESTART, JOB | {"requeue": True}),
}
ON_FARHOST: Cases = {"node back again": (RESTART, JOB | {"nodelist": "farhost", "requeue": True})}
CALLER: Cases = {
    "exit code": (("jobs.end", "_exit"), JOB),
    "out of memory": (("jobs.end", "hoard"), JOB),
    "not warned": (SLEEP, JOB | {"walltime": "60s", "warning": "off"}),
    "deleted by its owner": (SLEEP, JOB),
}
CASES = [("worker", end) for end in WORKER] + [("caller", end) for end in CALLER]
IN_QUEUE = {"deleted in the queue", "held", "can never run"}
NEVER_RAN = {"deleted in the queue", "dependency not met"}
EXPECTED: dict[str, Expected] = {
    "exit code": ("CRASHED", "JobFailed", "ended as FAILED on ", ("with exit code 3.",)),
    "killed": ("CRASHED", "JobFailed", "died of signal 9 (SIGKILL)", ("too little memory",)),
    "segmentation fault": ("CRASHED", "JobFailed", "died of signal 11 (SIGSEGV)", ()),
    "out of memory": (
        "CRASHED",
        "OutOfMemory",
        "ended as OUT_OF_MEMORY",
        ("it had asked for 600M per node", "used more memory than it asked", 'memory="1200M"'),
    ),
    "warned": (
        "CRASHED",
        "WalltimeExceeded",
        "ended as FAILED",
        ("before the end of the walltime of 00:02:00", "Ask for a longer walltime"),
    ),
    "not warned": (
        "CRASHED",
        "WalltimeExceeded",
        "ended as TIMEOUT",
        ("its walltime was 00:01:00", "Exit_status -29", "Ask for a longer walltime"),
    ),
    "resubmitted too often": (
        "CRASHED",
        "WalltimeExceeded",
        "ended as FAILED",
        ("as often as max_resubmissions=1 allows",),
    ),
    "deleted by its owner": ("CANCELLED", "Cancelled", "at the scheduler by {account}.", ()),
    "deleted by root": ("CANCELLED", "Cancelled", "at the scheduler by root.", ()),
    "deleted in the queue": ("CANCELLED", "Cancelled", "at the scheduler before it started.", ()),
    "dependency not met": (
        "CANCELLED",
        "Cancelled",
        "before it started: what it depends on did not end as asked, or is not known (afterok:",
        (),
    ),
}


@pytest.fixture(scope="module")
def runs(site: PBSSite, site_worker: str) -> Iterator[Runs]:
    failed = site.shell("echo false | qsub -l walltime=60 -o /dev/null -e /dev/null")
    for end in ("deleted in the queue", "held"):
        WORKER[end][1].update(site.batch.later())
    WORKER["dependency not met"][1]["dependency"] = f"afterok:{failed}"
    with submitted(site, WORKER | (ON_FARHOST if site.fake else {}), CALLER) as found:
        bring_to_their_ends(site, found)
        yield found


def bring_to_their_ends(site: PBSSite, runs: Runs) -> None:
    every = {end for _, end in runs.ids}
    rerun = every & {"rerun", "node back again"}
    runs.until(IN_QUEUE, lambda state: state.name == "Queued", 90, "in the queue")
    site.batch.hold(runs.jobs("held")[0])
    site.batch.cancel(runs.jobs("deleted in the queue")[0])
    runs.until(rerun, lambda state: not state.is_pending(), 180, "running")
    for end in rerun:
        until(lambda end=end: has_begun(site, end), 30, "it has left its first lines")
    with site.batch.requeued(runs.jobs("rerun")[0]):
        runs.until({"rerun"}, lambda state: state.name == "Requeued", 60, "requeued")
    if site.fake:
        with site.starting_nothing():
            site.fake.crash_node("farhost")
            site.fake.start_node("farhost")
            runs.until({"node back again"}, lambda s: s.name == "Requeued", 60, "requeued")
    by_hand = {"deleted by root": "root", "deleted by its owner": "researcher"}
    runs.until(by_hand, lambda state: state.is_running(), 180, "running")
    for end, user in by_hand.items():
        site.batch.cancel(runs.jobs(end)[0], user=user)
    runs.until(set(EXPECTED), is_told, 240, "over")
    runs.until({*rerun, "resubmitted"}, lambda state: state.is_final(), 120, "over")
    until(lambda: all(runs.usage(case) for case in runs.of(EXPECTED)), 60, "their usage is told")


@pytest.mark.parametrize("case", [case for case in CASES if case[1] in EXPECTED], ids=" - ".join)
def test_the_end_is_told_with_its_cause_and_what_to_change(
    site: PBSSite, runs: Runs, case: tuple[str, str]
) -> None:
    kind, name, ending, words = EXPECTED[case[1]]
    expected = kind, name, ending.format(account=site.account), words
    check_end(runs, case, expected, has_run=case[1] not in NEVER_RAN)


@pytest.mark.parametrize("case", [case for case in CASES if case[1] in EXPECTED], ids=" - ".join)
def test_the_usage_is_an_artifact_of_the_run(runs: Runs, case: tuple[str, str]) -> None:
    check_usage(runs, case, has_run=case[1] not in NEVER_RAN)


@pytest.mark.parametrize("who", ["worker", "caller"])
def test_the_hook_of_a_crash_runs_once(site: PBSSite, runs: Runs, who: str) -> None:
    assert notes(site, who, "exit code") == {"CRASHED": 4}  # a line


@pytest.mark.parametrize("end", ["rerun", "node back again"])
def test_a_rerun_job_runs_the_same_flow_run_again(site: PBSSite, runs: Runs, end: str) -> None:
    if ("worker", end) not in runs.ids:
        pytest.skip("a real PBS has no switch for this")
    check_requeued(site, runs, end)


def test_a_run_goes_on_in_a_new_job_after_its_walltime(site: PBSSite, runs: Runs) -> None:
    case = ("worker", "resubmitted")
    state = runs.states(case)[-1]
    assert state.is_completed(), state
    counts = notes(site, *case)
    assert (counts["starts"], counts["kept"], counts["done_again"]) == (2, 1, 2)


@pytest.mark.parametrize(
    ("end", "reason"), [("held", "Execution_Time = "), ("can never run", "Can Never Run: ")]
)
def test_a_queued_run_says_why_it_waits(runs: Runs, end: str, reason: str) -> None:
    (queued,) = [state for state in runs.states(("worker", end)) if state.name == "Queued"]
    (job,) = runs.jobs(end)
    assert (queued.message or "").startswith(f"PBS job {job} is in the queue. {reason}")


def test_a_change_of_the_reason_goes_to_the_log_only(runs: Runs) -> None:
    case = ("worker", "held")
    (said,) = [log.message for log in runs.logs(case) if log.level == 30]
    assert "Hold_Types = u" in said
    assert f"qrls {runs.jobs('held')[0]}" in said
    assert [state.name for state in runs.states(case)][-1] == "Queued"


def test_a_job_that_can_never_run_is_an_error_in_the_log(runs: Runs) -> None:
    (error,) = [log for log in runs.logs(("worker", "can never run")) if log.level == 40]
    assert "Can Never Run" in error.message
    assert "ncpus=999" in error.message
