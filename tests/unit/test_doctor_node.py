"""What the doctor makes of a probe job's answers."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from hpc_bridge.doctor.findings import Status
from hpc_bridge.doctor.node import (
    Known,
    There,
    Versions,
    Words,
    judge_address,
    judge_containers,
    judge_environment,
    judge_python,
    judge_server,
    judge_shared,
    judge_start,
)
from hpc_bridge.doctor.probe import Answers
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.jobs.reasons import Clears, QueueReason
from hpc_bridge.node.records import ExitRecord

GREEN, YELLOW, RED, SKIPPED = Status.GREEN, Status.YELLOW, Status.RED, Status.SKIPPED
OURS = Versions("3.11.7", {"hpc_bridge": "0.1.0", "prefect": "3.8.8", "cloudpickle": "3.1.0"})


def job(state: JobState, **known: Any) -> JobStatus:
    return JobStatus(JobId("7"), "hb", state, str(state), **known)


def answers(**known: Any) -> Answers:
    return Answers(job_id="7", **known)


SLURMS = Words("--partition", "squeue --me, and sacct -j 7")


def waiting(clears: Clears) -> Answers:
    reason = QueueReason("Word", "It waits for this.", clears)
    return answers(status=job(JobState.PENDING), reason=reason, waited=120.0)


@pytest.mark.parametrize(
    ("given", "status", "blocks", "advice"),
    [
        (answers(started=True), GREEN, False, ""),
        (answers(exit_record=ExitRecord(cause="SetupFailed")), GREEN, False, ""),
        (answers(status=job(JobState.FAILED, nodes="c1")), GREEN, False, ""),
        (answers(), YELLOW, True, "squeue"),
        (answers(status=job(JobState.PENDING)), YELLOW, True, "--wait"),
        (waiting(Clears.BY_ITSELF), YELLOW, True, "--wait 600"),
        (waiting(Clears.NEVER), YELLOW, True, "choose another with --partition (cpu, gpu)"),
        (answers(status=job(JobState.CANCELLED, cancelled_by="root")), RED, False, "again"),
    ],
)
def test_the_start(given: Answers, status: Status, blocks: bool, advice: str) -> None:
    verdict = judge_start(given, ["cpu", "gpu"], SLURMS)
    assert (verdict.status, verdict.blocks) == (status, blocks)
    assert advice in verdict.advice


def test_why_it_waits_is_told_in_words() -> None:
    assert "It waits for this." in judge_start(waiting(Clears.BY_ITSELF), [], SLURMS).message


def test_the_advice_is_in_the_words_of_the_scheduler() -> None:
    words = Words("--queue", "qstat -x -f 7.pbs")
    assert "qstat -x -f 7.pbs" in judge_start(answers(), [], words).advice
    never = judge_start(waiting(Clears.NEVER), ["workq", "gpuq"], words)
    assert never.advice == "choose another with --queue (workq, gpuq)"


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (answers(started=True, round_trip=0.2), GREEN, "back in 0.2 s"),
        (answers(started=True, round_trip=9.0), YELLOW, "9.0 s"),
        (answers(started=True), RED, "only the other way"),
        (answers(exit_record=ExitRecord(node="c1")), GREEN, "c1"),
        (answers(status=job(JobState.FAILED, signal=53, nodes="c1")), RED, "c1 does not have"),
        (answers(status=job(JobState.COMPLETED, nodes="c1")), RED, "not shared"),
        (answers(), RED, "not shared"),
    ],
)
def test_the_shared_directory(given: Answers, status: Status, words: str) -> None:
    verdict = judge_shared(given, "/x", "HPC_BRIDGE_SHARED_DIR")
    assert verdict.status is status
    assert words in verdict.message
    assert ("set HPC_BRIDGE_SHARED_DIR" in verdict.advice) == (status is RED)


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (answers(said={"node": "c1"}), GREEN, "c1"),
        (
            answers(
                exit_record=ExitRecord(
                    node="c1", cause="SetupFailed", message="a setup line failed: module load x"
                ),
                output="no module x\nhpc-bridge: a setup line failed",
            ),
            *(RED, "on c1: a setup line failed: module load x (no module x)"),
        ),
        (answers(exit_record=ExitRecord(node="c1", cause="PythonNotFound")), RED, "noexec"),
        (answers(exit_record=ExitRecord(node="c1", exit_code=3)), RED, "exit code 3"),
        (answers(output="bash: oh"), RED, "bash: oh"),
    ],
)
def test_the_environment(given: Answers, status: Status, words: str) -> None:
    verdict = judge_environment(given, "HPC_BRIDGE_SHARED_DIR")
    assert verdict.status is status
    assert words in verdict.message


def python(version: str = "3.11.2", seconds: float = 1.0, **packages: str) -> Answers:
    found = {
        "executable": "/env/bin/python",
        "version": version,
        "packages": {**OURS.packages, **packages},
        "errors": {"hpc_bridge": "ModuleNotFoundError: No module named 'hpc_bridge'"},
        "import_seconds": seconds,
    }
    return answers(said={"node": "c1", "python": "/env/bin/python"}, python=found)


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (python(), GREEN, "Python 3.11.2, hpc-bridge 0.1.0, Prefect 3.8.8"),
        (python(seconds=60), YELLOW, "faster file system"),
        (python(version="3.12.1"), RED, "is Python 3.12.1, and here is 3.11.7"),
        (python(hpc_bridge=""), RED, "/env/bin/python -m pip install hpc-bridge==0.1.0"),
        (python(hpc_bridge=""), RED, "No module named 'hpc_bridge'"),
        (python(prefect="3.9.1"), RED, "/env/bin/python -m pip install prefect==3.8.8"),
        (python(prefect="3.8.20"), GREEN, "Prefect 3.8.20"),
        (python(cloudpickle="2.2"), RED, "cloudpickle 2.2"),
        (python(hpc_bridge="0.0.9"), YELLOW, "hpc-bridge==0.1.0"),
        (answers(said={"node": "c1"}), RED, "no Python at /env on c1"),
        (
            answers(said={"node": "c1", "python": "/env"}, python_error="a\nbad ELF"),
            *(RED, "/env does not run on c1: bad ELF"),
        ),
    ],
)
def test_python(given: Answers, status: Status, words: str) -> None:
    verdict = judge_python(given, "/env", OURS, "HPC_BRIDGE_PYTHON")
    assert verdict.status is status
    assert words in verdict.message + verdict.advice


def test_the_interpreter_of_this_side_is_advised_where_the_node_has_it() -> None:
    given = answers(said={"node": "c1", "own_python": "/shared/env/bin/python"})
    advice = judge_python(given, "/env", OURS, "HPC_BRIDGE_PYTHON").advice
    assert advice.startswith("set HPC_BRIDGE_PYTHON to /shared/env/bin/python, which ")
    assert advice.endswith(": export HPC_BRIDGE_PYTHON=/shared/env/bin/python")
    advice = judge_python(answers(), "/env", OURS, "HPC_BRIDGE_PYTHON").advice
    assert "python3.11 -m venv" in advice
    assert "export HPC_BRIDGE_PYTHON=" in advice


def test_an_environment_is_made_on_the_cluster_when_that_is_elsewhere() -> None:
    there = There("mini", "/home/me")
    advice = judge_python(answers(), "/env", OURS, "HPC_BRIDGE_PYTHON", there).advice
    assert "run on mini: python3.11 -m venv /home/me/hpc-bridge-env && " in advice
    assert advice.endswith("export HPC_BRIDGE_PYTHON=/home/me/hpc-bridge-env")
    advice = judge_python(python(prefect="3.9.1"), "/env", OURS, "X", there).advice
    assert advice == "run on mini: /env/bin/python -m pip install prefect==3.8.8"


KNOWN = "http://prefect.example:4200/api"
LOOPBACK = "http://127.0.0.1:4200/api"


def server(problem: str, url: str = KNOWN) -> Answers:
    answer = {"url": url, "problem": problem, "status": 401, "version": "3.8.8", "words": "oh"}
    return answers(said={"node": "c1"}, server=answer)


@pytest.mark.parametrize(
    ("given", "known", "status", "words"),
    [
        (server(""), KNOWN, GREEN, "c1 reaches Prefect 3.8.8"),
        (server("", LOOPBACK), LOOPBACK, GREEN, "c1 reaches"),
        (server("credentials"), KNOWN, RED, "export PREFECT_API_KEY="),
        (server("refused"), KNOWN, RED, "prefect server start --host 0.0.0.0"),
        (server("timeout"), KNOWN, RED, "no way out"),
        (server("unknown-host"), KNOWN, RED, "IP address"),
        (server("not-prefect"), KNOWN, RED, "http_proxy"),
        (server("timeout", "http://x:1/api"), KNOWN, RED, f"export HPC_BRIDGE_API_URL={KNOWN}"),
        (server("refused", LOOPBACK), KNOWN, RED, f"export HPC_BRIDGE_API_URL={KNOWN}"),
        (server("refused", LOOPBACK), LOOPBACK, RED, "--host 0.0.0.0"),
        (answers(), KNOWN, SKIPPED, "Python"),
    ],
)
def test_the_server_from_a_node(given: Answers, known: str, status: Status, words: str) -> None:
    verdict = judge_server(given, {"PREFECT_API_KEY": "secret"}, Known(known), "HPC_BRIDGE_API_URL")
    assert verdict.status is status
    assert words in verdict.message + verdict.advice
    assert "secret" not in verdict.message + verdict.advice


@pytest.mark.parametrize(
    "known", [LOOPBACK, "", f"http://{socket.gethostname()}:4200/api", "http://[::1]:4200/api"]
)
def test_a_cluster_elsewhere_is_never_sent_to_this_machine(known: str) -> None:
    elsewhere = Known(known, is_elsewhere=True)
    for given in (server("refused"), server("refused", LOOPBACK)):
        verdict = judge_server(given, {}, elsewhere, "HPC_BRIDGE_API_URL")
        assert verdict.status is RED
        assert "export" not in verdict.advice
        assert socket.gethostname() not in verdict.advice
        assert "where both reach it" in verdict.advice
    usable = judge_server(server("timeout", LOOPBACK), {}, Known(KNOWN, is_elsewhere=True), "X")
    assert f"export HPC_BRIDGE_API_URL={KNOWN}" in usable.advice


@pytest.mark.parametrize(
    ("url", "scheduler", "status"),
    [(LOOPBACK, "slurm", RED), (LOOPBACK, "local", SKIPPED), (KNOWN, "slurm", SKIPPED)],
)
def test_the_address_alone_says_when_it_cannot_work(
    url: str, scheduler: str, status: Status
) -> None:
    verdict = judge_address(url, scheduler, Known(url), "network.api_url")
    assert verdict.status is status
    assert ("network.api_url" in verdict.advice) == (status is RED)


@pytest.mark.parametrize(
    ("given", "runtime", "status"),
    [
        (answers(), None, SKIPPED),
        (answers(), "apptainer", RED),
        (answers(said={"runtime": "apptainer version 1.3"}), "apptainer", GREEN),
        (
            answers(said={"runtime": "apptainer version 1.3"}, missing_images=["/x.sif"]),
            *("apptainer", YELLOW),
        ),
    ],
)
def test_containers(given: Answers, runtime: str | None, status: Status) -> None:
    assert judge_containers(given, runtime).status is status
