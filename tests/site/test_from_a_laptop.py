"""The main job called from outside of the site, over both SSH transports, on a real Slurm."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from tests.conftest import PORT
from tests.site.conftest import (
    Caller,
    Site,
    Worker,
    burst,
    counted_deployment,
    create_run,
    ends,
    job_of,
    side_by_side,
)
from tests.site.laptop import COMMAND, KEY, MARKER, PROFILE, Laptop, laptop_outside
from tests.site.sshd import KINDS
from tests.site.test_cancel import (
    cancel,
    interrupted,
    is_queued,
    output_of,
    queued_run_is_cancelled,
    state,
    until_over,
    until_started,
    until_told,
)
from tests.site.test_main_job import (
    CRASHES,
    LACKING,
    REFUSED,
    RESULTS,
    put_data,
    requeued_job_runs_again,
)
from tests.site.test_output import relayed
from tests.site.test_restart import (
    ADOPTED,
    is_looked_after,
    jobs_named,
    left_job_is_told,
    until_all,
)
from tests.waiting import HUNG, until

FOLDER = "/home/researcher/cancelling"
WAYS = """
import asyncio, json
from prefect import flow
import jobs
from hpc_bridge import slurm
from package.flows import packaged

class Bag:
    def __init__(self, content): self.content = content

@slurm(**jobs.JOB)
@flow
def given(bag: Bag, pair: tuple, text: bytes) -> list:
    return [type(bag).__name__, bag.content == {1, 2}, type(pair).__name__, len(text)]

if __name__ == "__main__":
    futures = [
        jobs.napping.submit(0.1),
        jobs.asynchronous.submit(3),
        packaged.with_options(job_variables={"walltime": "7m"}).submit(20),
        given.submit(Bag({1, 2}), (1, 2), bytes(range(256))),
    ]
    reads = [future.result() for future in futures]
    reads += [jobs.napping(0.2), asyncio.run(jobs.asynchronous(4))]
    print(json.dumps([reads, futures[2].job_id]))
"""
PACKAGE = {
    "package/__init__.py": "from .words import FACTOR\n",
    "package/words.py": "FACTOR = 2\n",
    "package/flows.py": (
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n"
        "from . import words\n"
        "from .deeper import one\n\n"
        '@slurm(memory="600M", walltime="5m")\n'
        "@flow\n"
        "def packaged(x: int) -> int:\n"
        "    return words.FACTOR * x + one()\n"
    ),
    "package/deeper/__init__.py": (
        "from ..words import FACTOR\n\n\ndef one():\n    return FACTOR - 1\n"
    ),
}
POOLED = """
import asyncio, json
import jobs

futures = [jobs.napping.submit_to_work_pool(0.3), jobs.asynchronous.submit_to_work_pool(5)]
print(json.dumps([future.result(timeout=240) for future in futures]))
"""


@pytest.fixture(scope="module")
def laptops(site: Site) -> Iterator[list[Laptop]]:
    """One for each transport."""
    site.shell(f"mkdir -p {FOLDER} ~/restarts")
    with ExitStack() as stack:
        yield [stack.enter_context(laptop_outside(site, kind)) for kind in KINDS]


@pytest.fixture(params=KINDS)
def laptop(request: pytest.FixtureRequest, laptops: list[Laptop]) -> Laptop:
    return laptops[KINDS.index(request.param)]


def go(site: Site, *runs: UUID) -> None:
    """What gated runs wait for."""
    for run in runs:
        site.put(f"cancelling/{run}.go", "")


# the ways of calling


def every_way_of_calling_gives_the_result(site: Site, laptop: Laptop) -> None:
    for name, text in PACKAGE.items():
        laptop.put(name, text)
    laptop.put("ways.py", WAYS)
    done = laptop.python("ways.py", timeout=300)
    assert done.returncode == 0, done.stderr
    results, job = json.loads(done.stdout.splitlines()[-1])
    assert results == [0.1, 9, 41, ["Bag", True, "tuple", 256], 0.2, 16]
    assert site.shell(f"sacct -nXP --jobs={job} --format=Timelimit") == "00:07:00"


def results_come_back(laptop: Laptop) -> None:
    put_data(laptop)
    expected = {case: RESULTS[case] for case in ("types", "parent_in_a_job", "state")}
    answers = laptop.cases(*expected, "files", "surroundings")
    assert {case: answers[case].get("result") for case in expected} == expected
    assert answers["files"]["result"] == ["data/a.csv"]
    there = answers["surroundings"]["result"]
    assert there["cwd"].startswith("/home/researcher")
    assert there["leaked"] is None


def ends_are_told(laptop: Laptop) -> None:
    crashes = {
        "exit": CRASHES["exit"],
        "kill": "signal 9",
        "memory": "600M",  # the words depend on the machine's cgroups
        "python_missing": LACKING["python_missing"],
    }
    answers = laptop.cases("raise", *crashes, "partition")
    raised = answers["raise"]
    assert (raised["raised"], raised["args"]) == ("OwnError", "('my own words', 42)")
    for case, words in crashes.items():
        assert answers[case]["raised"] == "CrashedRun"
        assert words in answers[case]["text"]
    assert answers["partition"]["raised"] == "SubmissionRefused"
    assert REFUSED["partition"] in answers["partition"]["text"]


def walltime_is_told(site: Site, laptop: Laptop) -> None:
    tag = f"walltime-{laptop.name}"
    caller = Caller(laptop, "call", tag, folder=FOLDER, walltime="5m", warning="off")
    run = caller.flow_run_id
    until_started(site, run)
    site.shell(f"scontrol update jobid={job_of(run)} EndTime=now+3", user="root")
    _, errors = caller.process.communicate(timeout=HUNG)
    assert "Ask for a longer walltime" in errors
    assert state(run).name == "WalltimeExceeded"


def nothing_is_guessed_of_the_cluster(site: Site, laptop: Laptop) -> None:
    """Where this machine's own address or Python would be as wrong as it is near."""
    lacking = {
        "network": ("address of the Prefect server for jobs on", "HPC_BRIDGE_API_URL"),
        "environment": ("no Python on", "environment.python"),
    }
    for part, words in lacking.items():
        folder = laptop.profile(f"without-{part}", **{part: None})
        answer = laptop.case("submit", HPC_BRIDGE_SITES=folder)
        assert answer["raised"] == "SettingsError", answer
        assert all(word in answer["text"] for word in words), answer


def the_users_own_connection_is_enough(laptop: Laptop) -> None:
    """As with two factors: one that is open is used, and none is opened."""
    login = {"transport": "openssh", "host": "the-site", "master": "reuse"}
    folder = laptop.profile("reusing", login=login)
    assert "ssh -fNM the-site" in laptop.case("submit", HPC_BRIDGE_SITES=folder)["text"]
    assert laptop.run("ssh", "-fNM", "the-site").returncode == 0
    try:
        assert laptop.case("submit", HPC_BRIDGE_SITES=folder).get("result") == 0.1
    finally:
        laptop.run("ssh", "-O", "exit", "the-site")


def test_scripts_on_a_laptop_call_flows_as_on_the_login_node(site: Site, laptop: Laptop) -> None:
    more = (
        [partial(the_users_own_connection_is_enough, laptop)]
        if laptop.transport == "openssh"
        else [
            partial(ends_are_told, laptop),
            partial(walltime_is_told, site, laptop),
            partial(nothing_is_guessed_of_the_cluster, site, laptop),
            partial(requeued_job_runs_again, site, laptop),
            partial(left_job_is_told, site, laptop, "/home/researcher/left-by-a-laptop"),
            partial(interrupted, site, laptop, "async", FOLDER),
        ]
    )
    side_by_side(
        partial(every_way_of_calling_gives_the_result, site, laptop),
        partial(results_come_back, laptop),
        partial(interrupted, site, laptop, "call", FOLDER),
        partial(interrupted, site, laptop, "call", FOLDER, directives=["--hold"]),
        *more,
    )


# workers


def waiting_for_a_worker_gives_the_result(laptop: Laptop) -> None:
    laptop.put("pooled.py", POOLED)
    done = laptop.python("pooled.py", timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0.3, 25]


def burst_is_one_array(site: Site, laptop: Laptop, deployment: UUID) -> None:
    runs = burst(laptop.pool, deployment, 3, setup=["echo from a setup line"])
    jobs = [job_of(run) for run in runs]
    array = jobs[0].split("_")[0]
    assert sorted(jobs) == [f"{array}_{element}" for element in range(3)]
    until_all(runs, "Completed")
    for run in runs:
        until(lambda run=run: "from a setup line" in relayed(run), 60, "its output is in its log")
        assert relayed(run).count("from a setup line") == 1


def running_run_is_cancelled(site: Site, deployment: UUID) -> None:
    run = create_run(deployment, 300, arrays=False)
    until_started(site, run)
    cancel(run)
    until_over(run, seconds=30)
    until(lambda: not is_queued(site, job_of(run)), 30, "the job is over")
    assert ends(run) == ["Cancelled"]


def scancel_tells_by_whom(site: Site, deployment: UUID) -> None:
    run = create_run(deployment, begin="now+1hour", arrays=False)
    site.shell(f"scancel {job_of(run)}")
    until(lambda: state(run).is_cancelled(), 30, "the run is cancelled")
    assert "cancelled at the scheduler by researcher" in state(run).message


def run_of_another_account_is_refused(site: Site, laptop: Laptop) -> None:
    site.put(f"profiles/{laptop.name}.yaml", laptop.text_of_profile, "colleague")
    answer = site.case(
        "pool",
        user="colleague",
        HPC_BRIDGE_WORK_POOL=laptop.pool,
        HPC_BRIDGE_SHARED_DIR="/home/colleague/.hpc-bridge",
        HPC_BRIDGE_SITES="/home/colleague/profiles",
    )
    assert "belongs to another account" in answer["text"], answer
    assert "this worker runs as researcher" in answer["text"]


def commands_show_a_run(site: Site, laptop: Laptop, deployment: UUID) -> None:
    run = create_run(deployment, how="gated", setup=["echo from a setup line"], arrays=False)
    until_started(site, run)
    shown = laptop.run(COMMAND, "jobs").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith(f"{job_of(run)} ")]
    assert str(run) in line
    assert "RUNNING" in line.upper()
    go(site, run)
    until_all([run], "Completed")
    until_told(site, run)
    shown = laptop.run(COMMAND, "logs", str(run)).stdout
    assert "from a setup line" in shown
    assert shown == output_of(site, run) + "\n"


def is_long_silent(site: Site, worker: Worker) -> None:
    """As when two minutes have passed: nobody sees from another machine that a process is dead."""
    site.shell(f"touch -d '3 minutes ago' ~/.hpc-bridge/trackers/*-{worker.pid}-*.json")


def whoever_comes_goes_on(site: Site, laptop: Laptop, deployment: UUID, first: Worker) -> None:
    """On the laptop at once, and on the login node and back when all is silent for long enough."""
    pool, is_paramiko = laptop.pool, laptop.transport == "paramiko"
    held = [create_run(deployment, directives=["--hold"], arrays=False) for _ in range(2)]
    gated = create_run(deployment, how="gated", arrays=False)
    lost = create_run(deployment, 300, arrays=False)
    jobs = [job_of(run) for run in held]
    until_started(site, gated, lost)
    first.kill()
    site.shell(f"scancel {job_of(lost)}")
    go(site, gated)
    near, variables = laptop, {}
    if is_paramiko:
        is_long_silent(site, first)
        # The same profile, by which the cluster is this machine there.
        path = site.put(f"sites-of-laptops/{laptop.name}.yaml", laptop.text_of_profile)
        near, variables = site, {"HPC_BRIDGE_SITES": f"/home/researcher/{path.parent.name}"}
    with Worker(near, pool, f"{laptop.name}-second", **variables) as second:
        for run in held:
            until(partial(is_looked_after, site, run, second), ADOPTED, "the jobs are adopted")
        until_all([gated], "Completed")
        until_all([lost], "Cancelled")
        site.shell(f"scontrol release {jobs[0]}")
        until_all(held[:1], "Completed")
        second.kill()
    if is_paramiko:
        is_long_silent(site, second)
    with Worker(laptop, pool, f"{laptop.name}-third") as third:
        until(partial(is_looked_after, site, held[1], third), ADOPTED, "the job is adopted")
        site.shell(f"scontrol release {jobs[1]}")
        until_all(held[1:], "Completed")
    assert [ends(run) for run in (*held, gated)] == [["Completed"]] * 3
    assert jobs_named(site, *held, gated, lost) == [1] * 4
    starts = [site.home() / f"cancelling/{run}.starts" for run in (*held, gated, lost)]
    assert [len(path.read_text().split()) for path in starts] == [1] * 4


def test_a_worker_on_a_laptop_does_what_one_on_the_login_node_does(
    site: Site, laptop: Laptop
) -> None:
    # A machine with much else to do takes its time for what each run of a burst asks the server.
    window = {"HPC_BRIDGE_ARRAY_WINDOW": "120"}
    with Worker(laptop, laptop.pool, f"{laptop.name}-first", **window) as worker:
        deployment = counted_deployment(laptop.pool, FOLDER)
        held = create_run(deployment, directives=["--hold"], arrays=False)
        more = [
            partial(scancel_tells_by_whom, site, deployment),
            partial(run_of_another_account_is_refused, site, laptop),
            partial(commands_show_a_run, site, laptop, deployment),
        ]
        side_by_side(
            partial(waiting_for_a_worker_gives_the_result, laptop),
            partial(burst_is_one_array, site, laptop, deployment),
            partial(queued_run_is_cancelled, site, held),
            partial(running_run_is_cancelled, site, deployment),
            *(more if laptop.transport == "paramiko" else ()),
        )
        whoever_comes_goes_on(site, laptop, deployment, worker)


# what travels


def unpacked(path: Path) -> bytes:
    """The flow and its parameters, as they are pickled."""
    bundle = json.loads(path.read_bytes())
    parts = [base64.b64decode(bundle[name]) for name in ("function", "context")]
    return b"".join(map(gzip.decompress, parts))


def test_nothing_of_the_laptop_travels(site: Site, laptops: list[Laptop]) -> None:
    root = site.home().parents[1]
    folders = [site.home() / ".hpc-bridge", root / "var/log/slurm", root / "var/spool"]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    content = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # what daemons keep for a moment
            content[path] = path.read_bytes()
    pickled = {path: unpacked(path) for path in paths if path.name == "bundle.json"}

    def holders(text: str, among: dict[Path, bytes]) -> set[str]:
        return {path.name for path, found in among.items() if text.encode() in found}

    names = {path.name for path in paths}
    assert names >= {"files.zip", "job.sh", "env", "submission.json", "slurmctld.log"}
    assert holders(laptops[0].pool, content) >= {"submission.json"}, "so this would find it"
    for text in (f"127.0.0.1:{PORT}", f"localhost:{PORT}", PROFILE, MARKER, "id_ed25519"):
        assert (holders(text, content), holders(text, pickled)) == (set(), set()), text
    assert holders(KEY, content) == {"env"}
    assert holders(KEY, pickled) == set()
    for laptop in laptops:
        # Code objects and tracebacks name their file.
        own = str(laptop.folder)
        said = {path: b"" if path.name == "job.out" else text for path, text in content.items()}
        assert holders(own, said) == set()
        for path, text in content.items():
            if path.name == "job.out":
                lines = [line for line in text.decode().splitlines() if own in line]
                assert all(f'File "{own}/home/' in line for line in lines), lines
