"""The main job on a real scheduler, as the user ``researcher`` of the site."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.server import server_client
from tests.site.conftest import Site
from tests.waiting import HUNG, until


def flow_run(flow_run_id: str) -> Any:
    with server_client() as client:
        return client.read_flow_run(UUID(flow_run_id))


RESULTS: dict[str, Any] = {
    "types": [[1, 3], "set", 6, "int16", 5, True, True, 6],
    "async": 49,
    "parent": 20,
    "parent_in_a_job": 30,
    "state": "FAILED",
    "submit": 0.1,
}
CRASHES = {"exit": "system exit", "segv": "signal 11"}
REFUSED = {"partition": "Invalid partition name specified", "account": "Invalid account"}
LACKING = {
    "cwd_missing": "the working directory /nowhere does not exist on ",
    "python_missing": "there is no Python at /nowhere/bin/python on ",
}


@pytest.mark.parametrize(("case", "expected"), RESULTS.items())
def test_results_come_back(site: Site, case: str, expected: Any) -> None:
    answer = site.case(case)
    assert answer.get("result") == expected, answer


def test_the_flows_own_exception_comes_back(site: Site) -> None:
    answer = site.case("raise")
    assert (answer["raised"], answer["args"]) == ("OwnError", "('my own words', 42)")


@pytest.mark.parametrize(("case", "words"), CRASHES.items())
def test_a_flow_that_ends_its_process_is_a_crash(site: Site, case: str, words: str) -> None:
    answer = site.case(case)
    assert answer["raised"] == "CrashedRun"
    assert words in answer["text"]


def test_the_job_runs_on_a_node_where_it_was_called(site: Site) -> None:
    result = site.case("surroundings", MARKER="leak")["result"]
    assert result["cwd"] == site.path()
    assert site.batch.is_id(result["job"])
    assert result["leaked"] is None


def put_data(place: Site) -> None:
    """Files beside the script, of which some are to travel."""
    for name in ("a.csv", "secret.txt", "ignored.tmp"):
        place.put(f"data/{name}", name)
    place.put(".prefectignore", "*.tmp\n")


def test_included_files_arrive(site: Site) -> None:
    put_data(site)
    assert site.case("files")["result"] == ["data/a.csv"]


def test_the_job_outlives_its_caller(site: Site) -> None:
    answer = site.case("submit_and_leave")
    until(lambda: flow_run(answer["flow_run_id"]).state.is_completed(), 60, "the flow is over")


def test_a_worker_takes_runs_of_the_pool(site: Site, site_worker: str) -> None:
    assert site.case("pool")["result"] == 0.2


def test_a_deployment_runs_through_the_worker(site: Site, site_worker: str) -> None:
    site.put(
        "project/flows.py",
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n\n\n"
        '@slurm(walltime="7m", memory="500M")\n'
        "@flow\n"
        "def deployed(x: int = 1) -> int:\n"
        "    return x + 1\n",
    )
    site.put(
        "deploy.py",
        "import sys\n"
        "from prefect import flow\n"
        "from prefect.deployments import run_deployment\n"
        f'loaded = flow.from_source(source="{site.path("project")}",'
        ' entrypoint="flows.py:deployed")\n'
        'loaded.deploy("site", print_next_steps=False)\n'
        'run = run_deployment("deployed/site", parameters={"x": 41}, timeout=240)\n'
        "print(run.state.result(), run.infrastructure_pid)\n",
    )
    done = site.python("deploy.py")
    assert done.returncode == 0, done.stderr
    result, reference = done.stdout.splitlines()[-1].split()
    assert result == "42"
    script = site.shell(f"cat ~/.hpc-bridge/runs/{reference.split(':')[2]}/job.sh")
    assert site.batch.walltime_line("00:07:00") in script.splitlines()


@pytest.mark.parametrize(("case", "words"), REFUSED.items())
def test_slurms_own_words_are_in_the_exception(site: Site, case: str, words: str) -> None:
    answer = site.case(case)
    assert answer["raised"] == "SubmissionRefused"
    assert words in answer["text"]


def test_a_refused_run_leaves_the_worker_at_work(site: Site, site_worker: str) -> None:
    answer = site.case("partition_by_worker")
    assert "Invalid partition name specified" in answer["text"]
    assert site.case("pool")["result"] == 0.2


@pytest.mark.parametrize(
    "text",
    ["$(touch /tmp/trap) `touch /tmp/trap`", "'a' \"b\" \\ # é ; | & %j ✓", "-x --wrap=date"],
)
def test_odd_text_is_kept_byte_for_byte(site: Site, text: str) -> None:
    result = site.case("weird", WEIRD=text)["result"]
    assert result["value"] == text
    assert site.shell(f"squeue --noheader --states=all --jobs={result['job']} --format=%k") == text
    assert site.run("test", "-e", "/tmp/trap").returncode == 1


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        ("/readonly/hb", "/readonly/hb is not writable for you"),
        ("/nowhere/at/all", "/nowhere/at/all does not exist"),
    ],
)
def test_a_bad_shared_directory_is_named(site: Site, shared: str, words: str) -> None:
    answer = site.case("submit", HPC_BRIDGE_SHARED_DIR=shared)
    assert answer["raised"] == "SharedDirectoryError"
    assert words in answer["text"]


def test_a_full_shared_directory_is_named_and_nothing_is_submitted(site: Site) -> None:
    site.put(
        "big.py",
        "import os\n"
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n\n"
        '@slurm(shared_dir="/full/hb")\n'
        "@flow\n"
        "def big(data: bytes) -> int:\n"
        "    return len(data)\n\n"
        "big(os.urandom(8_000_000))\n",
    )
    before = site.shell("squeue --noheader --states=all --format=%i | sort -n | tail -1")
    done = site.python("big.py")
    assert "SharedDirectoryError" in done.stderr
    assert "/full/hb is full" in done.stderr
    after = site.shell("squeue --noheader --states=all --format=%i | sort -n | tail -1")
    assert after == before


def test_without_sbatch_on_the_path_the_embedded_scheduler_is_named(site: Site) -> None:
    site.shell("mkdir -p /tmp/only-env && ln -sf /usr/bin/env /tmp/only-env/env")
    done = site.run("/usr/bin/env", "PATH=/tmp/only-env", sys.executable, "jobs.py", "partition")
    answer = json.loads(done.stdout)
    assert answer["raised"] == "CommandNotFound"
    assert "HPC_BRIDGE_SCHEDULER=local" in answer["text"]


def test_a_run_of_another_account_is_refused_in_words(site: Site, site_worker: str) -> None:
    answer = site.case(
        "pool",
        user="colleague",
        HPC_BRIDGE_WORK_POOL=site_worker,
        HPC_BRIDGE_SHARED_DIR="/home/colleague/.hpc-bridge",
    )
    assert "belongs to another account" in answer["text"], answer
    assert "this worker runs as researcher" in answer["text"]


@pytest.mark.parametrize(("case", "words"), LACKING.items())
def test_what_the_node_lacks_is_named(site: Site, case: str, words: str) -> None:
    answer = site.case(case)
    assert answer["raised"] == "CrashedRun"
    assert words + site.batch.node in answer["text"]


def submit_nap(site: Site, **job_variables: Any) -> dict[str, Any]:
    """A job that sleeps for five minutes, whose caller waits for it in a process of its own."""
    site.put(
        "nap.py",
        "import json, sys\n"
        "import jobs\n"
        "bound = jobs.napping.with_options(job_variables=json.loads(sys.argv[1]))\n"
        "future = bound.submit(300)\n"
        "print(json.dumps({'flow_run_id': str(future.flow_run_id), 'job': future.job_id}),"
        " flush=True)\n",
    )
    done = site.python("nap.py", json.dumps(job_variables))
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


WAIT = """
import sys, json, uuid, pathlib
from hpc_bridge import BatchFlowRunFuture
future = BatchFlowRunFuture(uuid.UUID(sys.argv[1]), shared=pathlib.Path.home() / ".hpc-bridge",
                            poll_interval=1.0)
future.wait(timeout=240)
print(json.dumps([future.state.type.value, future.state.name, future.state.message]))
"""


def waited(site: Site, flow_run_id: str) -> list[str]:
    """What a future in another process finds out about the run's end."""
    site.put("wait.py", WAIT)
    done = site.python("wait.py", flow_run_id)
    assert done.stdout, done.stderr
    answer: list[str] = json.loads(done.stdout)
    return answer


def test_a_job_that_exceeds_its_walltime_is_told_by_name(site: Site) -> None:
    nap = submit_nap(site, walltime="5m", warning="off")
    until(lambda: flow_run(nap["flow_run_id"]).state.is_running(), 60, "the flow runs")
    site.shell(f"scontrol update jobid={nap['job']} EndTime=now+3", user="root")
    kind, name, message = waited(site, nap["flow_run_id"])
    assert (kind, name) == ("CRASHED", "WalltimeExceeded")
    assert "Ask for a longer walltime" in message


def test_a_job_whose_node_dies_is_told_by_name(site: Site) -> None:
    nap = submit_nap(site, nodelist="c2", requeue=False)
    until(lambda: flow_run(nap["flow_run_id"]).state.is_running(), 60, "the flow runs")
    site.shell("scontrol update nodename=c2 state=down reason=test", user="root")
    try:
        kind, _, _ = waited(site, nap["flow_run_id"])
    finally:
        # It may have come back by itself (ReturnToService).
        site.run("scontrol", "update", "nodename=c2", "state=resume", user="root")
    assert kind == "CRASHED"
    # The accounting may be slower than a future's patience with an end that is not explained.
    until(lambda: flow_run(nap["flow_run_id"]).state.name == "NodeFail", 60, "the cause is told")


def test_a_job_that_dies_in_the_queue_is_noticed(site: Site) -> None:
    nap = submit_nap(site, **site.batch.later())
    site.batch.cancel(nap["job"])
    kind, _, message = waited(site, nap["flow_run_id"])
    assert kind == "CANCELLED"
    assert f"cancelled at the scheduler{site.batch.by_owner}" in message


def requeued_job_runs_again(site: Site, place: Site) -> None:
    """``place`` is where the script runs that submits it."""
    starts = f"starts-{place.name}"
    place.put(
        "twice.py",
        "import pathlib, time\n"
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n\n"
        '@slurm(memory="600M", requeue=True)\n'
        "@flow\n"
        "def twice() -> int:\n"
        f"    log = pathlib.Path({site.path(starts)!r})\n"
        "    with log.open('a') as file:\n"
        "        file.write('start\\n')\n"
        "    if log.read_text().count('start') == 1:\n"
        "        time.sleep(300)\n"
        "    return log.read_text().count('start')\n\n"
        "if __name__ == '__main__':\n"
        "    future = twice.submit()\n"
        "    print(future.job_id, future.flow_run_id, flush=True)\n"
        "    print(future.result(timeout=240))\n",
    )
    site.shell(f"rm -f ~/{starts}")
    process = place.start(sys.executable, "twice.py", stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    job, run = process.stdout.readline().split()
    until(lambda: (site.home() / starts).exists(), 60, "the flow runs")
    with site.batch.requeued(job):
        until(lambda: flow_run(run).state.name == "Requeued", 60, "the run waits again")
    assert process.stdout.readline().strip() == "2"
    assert process.wait(HUNG) == 0
    with server_client() as client:
        names = [state.name for state in client.read_flow_run_states(UUID(run))]
    assert names.count("Requeued") == 1
    assert flow_run(run).run_count == 2


def test_a_job_that_is_requeued_runs_again(site: Site) -> None:
    requeued_job_runs_again(site, site)


def test_the_key_is_in_no_byte_but_the_env_file(site: Site) -> None:
    key = "pnu_sitemarkerkey0123456789"
    done = site.python("jobs.py", "submit", PREFECT_API_KEY=key, PREFECT_LOGGING_LEVEL="DEBUG")
    assert '"result"' in done.stdout, done.stderr
    assert key not in done.stdout + done.stderr
    holders = site.shell(f"grep -rl {key} ~/.hpc-bridge").splitlines()
    assert {Path(path).name for path in holders} == {"env"}
    assert site.shell(f"stat -c %a {holders[0]}") == "600"
    assert site.run("grep", "-rlI", key, site.batch.records, user="root").stdout == ""


def test_a_site_with_modules_finds_them_in_setup_lines(site: Site) -> None:
    site.put(
        "modules.py",
        "import os\n"
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n\n"
        '@slurm(memory="600M", setup=["module load cuda/12", "export MINE=set"])\n'
        "@flow\n"
        "def loaded() -> list:\n"
        "    return [os.environ.get('MINE'), os.environ.get('MODULE_cuda')]\n\n"
        "print(loaded())\n",
    )
    done = site.python("modules.py")
    assert done.stdout == "['set', '12']\n", done.stderr
