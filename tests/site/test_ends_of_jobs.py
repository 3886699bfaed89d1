"""Each end of a job on a real Slurm is told apart, by a worker and by a caller that waits.

All jobs are submitted at once and brought to their ends together; then each flow run is looked at.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, Log, State

from tests.conftest import ROOT, run_site_script
from tests.server import server_client
from tests.site.conftest import OF_SITE, Site
from tests.waiting import HUNG, PATIENCE, until

SUBMIT = """
import importlib, json, sys
futures = []
for name, (flow, how, variables) in json.load(sys.stdin).items():
    module, _, function = flow.partition(".")
    bound = getattr(importlib.import_module(module), function)
    bound = bound.with_options(job_variables=variables)
    futures.append(getattr(bound, sys.argv[1])(how))
    print(json.dumps([name, str(futures[-1].flow_run_id)]), flush=True)
if sys.argv[1] == "submit":
    for future in futures:
        future.wait()
"""
SLEEP, RESTART = ("jobs.end", "sleep"), ("restarts.restarted", "wait")
JOB: dict[str, Any] = {"memory": "300M", "walltime": "15m"}
G1 = JOB | {"partition": "gpu"}
C2 = JOB | {"nodelist": "c2"}
PREEMPTABLE = JOB | {"nodelist": "c1", "nodes": 1, "tasks": 3, "warning": "off"}
LATER = JOB | {"begin": "now+1hour"}
WARNED = G1 | {"walltime": "2m", "warning": "USR1@60"}
AGAIN = WARNED | {"on_walltime": "resubmit"}

Cases = dict[str, tuple[tuple[str, str], dict[str, Any]]]
"""Of each end: the flow and its argument, and the job variables."""
Expected = tuple[str, str, str, tuple[str, ...]]
"""The state's type and name, how the message begins, and what it says besides."""

WORKER: Cases = {
    "node set down": (SLEEP, G1 | {"requeue": False}),
    "warned": (SLEEP, WARNED),
    "resubmitted": (RESTART, AGAIN),
    "resubmitted too often": (SLEEP, AGAIN | {"max_resubmissions": 1}),
    "exit code": (("jobs.end", "_exit"), G1),
    "killed": (("jobs.end", "kill"), G1),
    "segmentation fault": (("jobs.end", "segv"), G1),
    "out of memory": (("jobs.end", "memory"), G1),
    "cancelled by root": (SLEEP, G1),
    "cancelled in the queue": (SLEEP, LATER),
    "held": (SLEEP, LATER),
    "deadline": (SLEEP, LATER | {"directives": ["--deadline=now+3hours"]}),
    "can never start": (SLEEP, JOB | {"dependency": "afterok:1"}),
    "preempted": (SLEEP, PREEMPTABLE | {"partition": "scavenge"}),
    "preempted, requeued": (RESTART, PREEMPTABLE | {"partition": "scavrq", "requeue": True}),
    "node failed": (SLEEP, C2 | {"requeue": False}),
    "node failed, requeued": (RESTART, C2 | {"requeue": True}),
}
CALLER: Cases = {
    "exit code": (("jobs.end", "_exit"), G1),
    "out of memory": (("jobs.end", "memory"), G1),
    "not warned": (SLEEP, G1 | {"warning": "off"}),
    "cancelled by its owner": (SLEEP, G1),
    "deadline": (SLEEP, LATER | {"directives": ["--deadline=now+3hours"]}),
    "preempted": (SLEEP, PREEMPTABLE | {"partition": "scavenge", "tasks": 1}),
    "node failed": (SLEEP, C2 | {"requeue": False}),
}
CASES = [("worker", end) for end in WORKER] + [("caller", end) for end in CALLER]
WAITING = {"cancelled in the queue", "held", "deadline", "can never start"}
REQUEUED = {"preempted, requeued", "node failed, requeued"}
EXPECTED: dict[str, Expected] = {
    "exit code": ("CRASHED", "JobFailed", "ended as FAILED on g1 with exit code 3.", ()),
    "killed": ("CRASHED", "JobFailed", "died of signal 9 (SIGKILL) on g1", ("too little memory",)),
    "segmentation fault": ("CRASHED", "JobFailed", "died of signal 11 (SIGSEGV) on g1", ()),
    "out of memory": (
        "CRASHED",
        "OutOfMemory",
        "ended as OUT_OF_MEMORY on g1",
        ("it had asked for 300M per node", 'memory="600M"'),
    ),
    "warned": (
        "CRASHED",
        "WalltimeExceeded",
        "ended as FAILED on g1",
        ("before the end of the walltime of 00:02:00", "Ask for a longer walltime"),
    ),
    "not warned": (
        "CRASHED",
        "WalltimeExceeded",
        "ended as TIMEOUT on g1",
        ("its walltime was 00:15:00", "Ask for a longer walltime"),
    ),
    "resubmitted too often": (
        "CRASHED",
        "WalltimeExceeded",
        "ended as FAILED on g1",
        ("as often as max_resubmissions=1 allows",),
    ),
    "cancelled by its owner": ("CANCELLED", "Cancelled", "at the scheduler by researcher.", ()),
    "cancelled by root": ("CANCELLED", "Cancelled", "at the scheduler by root.", ()),
    "cancelled in the queue": ("CANCELLED", "Cancelled", "by researcher before it started.", ()),
    "deadline": (
        "CRASHED",
        "DeadlineExceeded",
        "ended as DEADLINE",
        ("It did not start.", "Give a later deadline"),
    ),
    "preempted": (
        "CRASHED",
        "Preempted",
        "ended as PREEMPTED on c1",
        ("partition scavenge", "not preempted, or allow requeue"),
    ),
    "node set down": ("CRASHED", "NodeFail", "ended as NODE_FAIL on g1", ("Submit again",)),
    "node failed": ("CRASHED", "NodeFail", "ended as NODE_FAIL on c2", ("Submit again",)),
}
NO_USE = {"cancelled in the queue", "deadline"}


class Runs:
    """Every case's flow run, as the server has it."""

    def __init__(self, client: SyncPrefectClient, ids: dict[tuple[str, str], UUID]) -> None:
        self.client = client
        self.ids = ids

    def read(self) -> dict[tuple[str, str], FlowRun]:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(self.ids.values())))
        found = {run.id: run for run in self.client.read_flow_runs(flow_run_filter=wanted)}
        return {case: found[flow_run_id] for case, flow_run_id in self.ids.items()}

    def of(self, ends: Collection[str]) -> list[tuple[str, str]]:
        return [case for case in self.ids if case[1] in ends]

    def until(
        self, ends: Collection[str], check: Callable[[State[Any]], bool], seconds: float, what: str
    ) -> None:
        """Wait until the states of all these cases are as they are to be."""
        deadline = time.monotonic() + seconds * PATIENCE
        left = set(self.of(ends))
        while left:
            runs = self.read()
            left = {case for case in left if not check(_state(runs[case]))}
            told = {case: _state(runs[case]).name for case in left}
            assert time.monotonic() < deadline, f"{what}: {told}"
            time.sleep(0.5)

    def jobs(self, end: str) -> list[str]:
        runs = self.read()
        return [str(runs[case].infrastructure_pid).split(":")[1] for case in self.of({end})]

    def states(self, case: tuple[str, str]) -> list[State[Any]]:
        return list(self.client.read_flow_run_states(self.ids[case]))

    def logs(self, case: tuple[str, str]) -> list[Log]:
        of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.ids[case]]))
        return list(self.client.read_logs(of_run, limit=200))

    def usage(self, case: tuple[str, str]) -> list[Any]:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self.ids[case]]))
        return list(self.client.read_artifacts(artifact_filter=of_run))


def _state(run: FlowRun) -> State[Any]:
    assert run.state is not None
    return run.state


@contextmanager
def submitted(site: Site, worker: Cases, caller: Cases) -> Iterator[Runs]:
    """All runs, by a worker and by a caller who waits for them."""
    for name in ("jobs.py", "restarts.py"):
        site.put(name, (ROOT / "tests/flows" / name).read_text())
    site.put("submit_ends.py", SUBMIT)
    processes: list[subprocess.Popen[Any]] = []
    ids = {}
    try:
        for who, how, cases in (
            ("worker", "submit_to_work_pool", worker),
            ("caller", "submit", caller),
        ):
            process = site.start(
                sys.executable, "submit_ends.py", how, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(_calls(site, who, cases)).encode())
            process.stdin.close()
        for who, process, cases in zip(
            ("worker", "caller"), processes, (worker, caller), strict=True
        ):
            assert process.stdout is not None
            for _ in cases:
                end, flow_run_id = json.loads(process.stdout.readline())
                ids[who, end] = UUID(flow_run_id)
        with server_client() as client:
            yield Runs(client, ids)
    finally:
        for process in processes:
            process.terminate()
            process.wait(HUNG)
        site.batch.cancel_all()


@pytest.fixture(scope="module")
def runs(site: Site, site_worker: str) -> Iterator[Runs]:
    # Where the id of a job that has failed is not in use: a dependency on it is never met.
    failed = site.shell("sbatch --parsable --partition=gpu --time=1 --wrap false")
    until(lambda: site.shell(f"squeue -h -t all -j {failed} -o %T") == "FAILED", 30, "it fails")
    WORKER["can never start"][1]["dependency"] = f"afterok:{failed}"
    try:
        with submitted(site, WORKER, CALLER) as found:
            bring_to_their_ends(site, found)
            yield found
    finally:
        run_site_script("node", "start", "c2", *OF_SITE)  # unless it has been
        site.run("scontrol", "update", "nodename=g1", "state=resume", user="root")


def _calls(site: Site, who: str, cases: Cases) -> dict[str, Any]:
    calls = {}
    for end, ((flow, how), variables) in cases.items():
        folder = site.path(f"notes/{who}/{end.replace(' ', '-')}")
        site.shell(f"rm -rf {folder} && mkdir -p {folder}")
        calls[end] = (flow, how, variables | {"env": {"HOOK_DIR": folder}})
    return calls


def notes(site: Site, who: str, end: str) -> dict[str, int]:
    """How often each line was left by the flow run, and each hook ran."""
    folder = site.home() / "notes" / who / end.replace(" ", "-")
    return {path.name.split(".")[-1]: path.stat().st_size for path in folder.iterdir()}


def has_begun(site: Site, end: str) -> bool:
    return "starts" in notes(site, "worker", end)


def bring_to_their_ends(site: Site, runs: Runs) -> None:
    every = {end for _, end in runs.ids}
    runs.until(WAITING, lambda state: state.name == "Queued", 90, "in the queue")
    runs.until(every - WAITING, lambda state: not state.is_pending(), 180, "running")
    for end in REQUEUED:
        until(partial(has_begun, site, end), 30, "it has left its first lines")
    for job in runs.jobs("not warned"):
        site.shell(f"scontrol update jobid={job} EndTime=now+3", user="root")
    for job in runs.jobs("deadline"):
        site.shell(f"scontrol update jobid={job} deadline=now+3", user="root")
    for end, user in (
        ("cancelled by root", "root"),
        ("cancelled by its owner", "researcher"),
        ("cancelled in the queue", "researcher"),
    ):
        site.batch.cancel(runs.jobs(end)[0], user=user)
    site.batch.hold(runs.jobs("held")[0])
    assert run_site_script("node", "crash", "c2", *OF_SITE).returncode == 0
    site.shell(
        "sbatch --partition=cpu --nodelist=c1 --nodes=1 --ntasks=8 --time=1 --wrap 'sleep 5'"
    )
    runs.until({"preempted", "preempted, requeued"}, lambda s: not s.is_running(), 30, "preempted")
    runs.until({"preempted, requeued"}, lambda state: state.name == "Requeued", 30, "requeued")
    runs.until(REQUEUED, lambda state: state.name == "Requeued", 90, "requeued")
    assert run_site_script("node", "start", "c2", *OF_SITE).returncode == 0
    for end in REQUEUED:  # Slurm would start them two minutes later
        site.run("scontrol", "update", f"jobid={runs.jobs(end)[0]}", "starttime=now", user="root")
    on_g1 = {end for end in every - WAITING - REQUEUED if end != "node set down"}
    runs.until(on_g1, is_told, 180, "over")
    site.shell("scontrol update nodename=g1 state=down reason=test", user="root")
    runs.until(set(EXPECTED), is_told, 60, "over")
    runs.until(REQUEUED, lambda state: state.is_final(), 60, "over")
    until(lambda: all(runs.usage(case) for case in runs.of(EXPECTED)), 60, "their usage is told")


def is_told(state: State[Any]) -> bool:
    """Whether it is the run's last."""
    # What the node said first is completed by what the scheduler knows.
    told = state.is_completed() or (state.message or "").startswith("Job ")
    return state.is_final() and told


@pytest.mark.parametrize("case", [case for case in CASES if case[1] in EXPECTED], ids=" - ".join)
def test_the_end_is_told_with_its_cause_and_what_to_change(
    runs: Runs, case: tuple[str, str]
) -> None:
    check_end(runs, case, EXPECTED[case[1]], has_run=case[1] not in NO_USE)


def check_end(runs: Runs, case: tuple[str, str], expected: Expected, *, has_run: bool) -> None:
    """The end has its cause, what the job had asked for and used, and what to change."""
    kind, name, ending, words = expected
    state = runs.states(case)[-1]
    message = state.message or ""
    assert (state.type.value, state.name) == (kind, name), message
    assert ending in message.splitlines()[0]
    if kind == "CRASHED":
        assert "\nIt had asked for: walltime" in message
        assert "\nLast lines of its output:\n" in message or message.endswith("printed nothing.")
    if has_run:
        assert "\nIt used: walltime 00:" in message
        assert "printed by the flow" in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("case", [case for case in CASES if case[1] in EXPECTED], ids=" - ".join)
def test_the_usage_is_an_artifact_of_the_run(runs: Runs, case: tuple[str, str]) -> None:
    check_usage(runs, case, has_run=case[1] not in NO_USE)


def check_usage(runs: Runs, case: tuple[str, str], *, has_run: bool) -> None:
    """There is one table of what the job asked for and used, by what is known of it."""
    (usage,) = runs.usage(case)
    assert usage.key == "hpc-job-usage"
    rows = {row.split("|")[1].strip(): row for row in usage.data.splitlines() if "|" in row}
    assert re.match(r"\| Walltime \| 00:\d\d:00 \|", rows["Walltime"])
    assert "00M" in rows["Memory"]
    if has_run:
        assert "did not start" not in rows["Walltime"]
    else:
        assert "did not start" in rows["Walltime"]
        assert "not recorded by the site" in rows["CPUs"]
    assert " 0 %" not in rows["Memory"]


@pytest.mark.parametrize("who", ["worker", "caller"])
def test_the_hook_of_a_crash_runs_once(site: Site, runs: Runs, who: str) -> None:
    assert notes(site, who, "exit code") == {"CRASHED": 4}  # a line


def test_a_flow_that_is_warned_leaves_its_logs_and_ends_by_itself(runs: Runs) -> None:
    case = ("worker", "warned")
    assert [state.name for state in runs.states(case)].count("WalltimeExceeded") == 2
    own = [log.message for log in runs.logs(case) if log.name == "prefect.flow_runs"]
    assert "about to end by sleep" in own
    assert any(message.startswith("Finished in state WalltimeExceeded") for message in own)


@pytest.mark.parametrize("end", sorted(REQUEUED))
def test_a_requeued_job_runs_the_same_flow_run_again(site: Site, runs: Runs, end: str) -> None:
    check_requeued(site, runs, end)


def check_requeued(site: Site, runs: Runs, end: str) -> None:
    """Started twice, and what was done and kept at the first start was not done again."""
    case = ("worker", end)
    states = runs.states(case)
    names = [state.name for state in states]
    assert names[-1] == "Completed", states[-1].message
    assert names.count("Requeued") == 1
    assert runs.read()[case].run_count == 2
    counts = notes(site, *case)
    assert (counts["starts"], counts["kept"], counts["done_again"]) == (2, 1, 2)


def test_a_run_goes_on_in_a_new_job_after_its_walltime(site: Site, runs: Runs) -> None:
    case = ("worker", "resubmitted")
    state = runs.states(case)[-1]
    assert state.is_completed(), state
    counts = notes(site, *case)
    assert (counts["starts"], counts["kept"], counts["done_again"]) == (2, 1, 2)


@pytest.mark.parametrize(
    ("end", "reason"),
    [("held", "BeginTime: "), ("can never start", "DependencyNeverSatisfied: ")],
)
def test_a_queued_run_says_why_it_waits(runs: Runs, end: str, reason: str) -> None:
    (queued,) = [state for state in runs.states(("worker", end)) if state.name == "Queued"]
    (job,) = runs.jobs(end)
    assert (queued.message or "").startswith(f"Slurm job {job} is in the queue. {reason}")


def test_a_change_of_the_reason_goes_to_the_log_only(runs: Runs) -> None:
    case = ("worker", "held")
    said = [log.message for log in runs.logs(case) if log.level == 30]
    assert len(said) == 1
    assert "JobHeldUser" in said[0]
    assert "scontrol release" in said[0]
    assert [state.name for state in runs.states(case)][-1] == "Queued"


def test_a_reason_that_never_clears_is_an_error_in_the_log(runs: Runs) -> None:
    (error,) = [log for log in runs.logs(("worker", "can never start")) if log.level == 40]
    assert "can never start" in error.message
    assert "DependencyNeverSatisfied" in error.message
