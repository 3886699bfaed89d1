"""``hpc-bridge doctor`` on a real Slurm: all green, and red in the right place."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

from tests.conftest import PORT
from tests.server import server_client
from tests.site.conftest import Site, side_by_side
from tests.waiting import HUNG, until

COMMAND = str(Path(sys.executable).with_name("hpc-bridge"))
LOGIN_ONLY = "/mnt/login-only"
KEY = "admin:right"
FORWARDER = """
import socket, sys, threading

def copy(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
while True:
    near, _ = listener.accept()
    far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


def doctor(site: Site, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and the findings by their step."""
    done = site.run(COMMAND, "doctor", "--json", *arguments, timeout=200, **variables)
    assert done.stdout, done.stderr
    return done.returncode, {finding["step"]: finding for finding in json.loads(done.stdout)}


def the_only_red(exit_code: int, findings: dict[str, Any]) -> tuple[str, str, str]:
    """Step, message and advice; the test flow, which needs everything, was not tried."""
    reds = [finding for finding in findings.values() if finding["status"] == "red"]
    assert len(reds) == 1, findings
    assert exit_code == 1
    assert findings["test-flow"]["status"] == "skipped"
    return reds[0]["step"], reds[0]["message"], reds[0]["advice"]


@contextmanager
def guarded(site: Site, home: Path) -> Iterator[str]:
    """A Prefect server that wants a key; yields its address as the site sees it."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/server.db",
        "PREFECT_SERVER_API_AUTH_STRING": KEY,
    }
    start = ("-m", "prefect", "server", "start", "--host", "0.0.0.0", "--port", str(port))
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *start],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def is_up() -> bool:
        assert process.poll() is None, (home / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    try:
        until(is_up, 120, "the guarded server starts")
        yield f"http://{site.address}:{port}/api"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(HUNG)


@pytest.fixture(scope="module")
def login_only(site: Site) -> Iterator[str]:
    """A folder of the login host: what is mounted there now is not seen by the nodes."""
    site.shell(f"mkdir -p {LOGIN_ONLY} && mount -t tmpfs -o mode=1777 tmpfs {LOGIN_ONLY}", "root")
    yield LOGIN_ONLY
    site.shell(f"umount {LOGIN_ONLY}", "root")


@pytest.fixture(scope="module")
def tunnel(site: Site) -> Iterator[str]:
    """The server at an address of the login host's own, as an SSH tunnel makes it."""
    site.put("forwarder.py", FORWARDER)
    process = site.start(sys.executable, "forwarder.py", site.address, str(PORT))
    url = f"http://127.0.0.1:{PORT}/api"
    listens = f"import urllib.request as r; r.urlopen('{url}/health')"
    until(lambda: site.python("-c", listens).returncode == 0, 30, "the tunnel is open")
    yield url
    process.terminate()
    process.wait(HUNG)


def all_is_green_on_a_site_that_works(site: Site) -> None:
    before = time.monotonic()
    code, found = doctor(site, "minihpc")
    took = time.monotonic() - before
    assert code == 0, found
    statuses = {step: finding["status"] for step, finding in found.items()}
    assert statuses.pop("containers") == "skipped"  # the profile has none
    assert set(statuses.values()) == {"green"}, found
    assert "minihpc" in found["profile"]["message"]
    assert "every partition" in found["profile-facts"]["message"]
    assert "Slurm 24.11" in found["commands"]["message"]
    assert site.address in found["server-from-node"]["message"]
    assert found["test-flow"]["seconds"] < took
    with server_client() as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=["hpc-bridge-doctor"]))
        runs = client.read_flow_runs(flow_run_filter=tagged)
    [run] = [run for run in runs if repr(run.name) in found["test-flow"]["message"]]
    assert run.state is not None
    assert run.state.is_completed()


def without_sbatch(site: Site) -> None:
    names = "env squeue scancel scontrol sinfo sacct"
    site.shell(f"mkdir -p few && for name in {names}; do ln -sf $(command -v $name) few; done")
    code, found = doctor(site, "--no-job", PATH="/home/researcher/few")
    step, message, advice = the_only_red(code, found)
    assert (step, message) == ("commands", "not on PATH: sbatch")
    assert advice == "export PATH=$PATH:/usr/bin"
    assert found["node"]["status"] == "skipped"


def a_shared_directory_that_is_not(site: Site) -> None:
    code, found = doctor(site, HPC_BRIDGE_SHARED_DIR=f"{LOGIN_ONLY}/shared")
    step, message, advice = the_only_red(code, found)
    assert step == "shared"
    assert f"does not have {LOGIN_ONLY}/shared" in message
    assert advice.startswith("set HPC_BRIDGE_SHARED_DIR to a folder that login and compute")
    assert found["shared-directory"]["status"] == "green"
    assert site.shell(f"ls {LOGIN_ONLY}/shared/runs {LOGIN_ONLY}/shared/live | grep hb || :") == ""


def a_server_that_only_the_login_host_reaches(site: Site, tunnel: str) -> None:
    code, found = doctor(site, PREFECT_API_URL=tunnel)
    step, message, advice = the_only_red(code, found)
    assert step == "server-from-node"
    assert f"{tunnel} is c" in message
    assert f"export HPC_BRIDGE_API_URL=http://login:{PORT}/api" in advice
    assert found["server"]["status"] == found["python"]["status"] == "green"


def a_python_of_the_login_host(site: Site) -> None:
    site.shell(f"ln -sfn {Path(sys.executable).parents[1]} {LOGIN_ONLY}/env")
    code, found = doctor(site, HPC_BRIDGE_PYTHON=f"{LOGIN_ONLY}/env")
    step, message, advice = the_only_red(code, found)
    assert step == "python"
    assert f"there is no Python at {LOGIN_ONLY}/env on c" in message
    assert "export HPC_BRIDGE_PYTHON=" in advice
    assert found["server-from-node"]["status"] == "green"


def a_python_without_our_package(site: Site) -> None:
    code, found = doctor(site, HPC_BRIDGE_PYTHON="/usr/bin/python3")
    step, message, advice = the_only_red(code, found)
    assert step == "python"
    assert "/usr/bin/python3 on c" in message
    assert advice.endswith(f"export HPC_BRIDGE_PYTHON={sys.executable}")


def a_wrong_key(site: Site, home: Path) -> None:
    with guarded(site, home) as url:
        wrong, right = (
            doctor(site, "--no-job", PREFECT_API_URL=url, PREFECT_API_AUTH_STRING=key)
            for key in ("admin:wrong", KEY)
        )
    step, message, advice = the_only_red(*wrong)
    assert (step, "PREFECT_API_AUTH_STRING (401)" in message) == ("server", True)
    assert "export PREFECT_API_AUTH_STRING=" in advice
    assert "wrong" not in json.dumps(wrong)
    assert (right[0], right[1]["server"]["status"]) == (0, "green")


def an_interrupted_doctor_leaves_nothing(site: Site) -> None:
    """While its probe waits for a partition that is busy."""
    names = "squeue --noheader --format=%j"
    blocker = site.shell(
        "sbatch --parsable --partition=gpu --exclusive --output=/dev/null --wrap 'sleep 120'"
    )
    shared = "/home/researcher/interrupted"
    process = site.start(
        *("bash", "-c"),
        f"echo $$ > doctor.pid; exec {COMMAND} doctor --partition gpu",
        variables={"HPC_BRIDGE_SHARED_DIR": shared},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: site.shell(f"{names} --partition=gpu | grep ^hb || :"), 60, "the probe waits")
    site.shell("kill -INT $(cat doctor.pid)")
    process.communicate(timeout=HUNG)
    assert process.returncode == 130
    assert site.shell(f"{names} --partition=gpu") == "wrap"
    assert site.shell(f"ls {shared}/runs {shared}/live | grep hb || :") == ""
    site.shell(f"scancel {blocker}")


def test_the_doctor_finds_what_is_wrong(
    site: Site, login_only: str, tunnel: str, tmp_path: Path
) -> None:
    side_by_side(
        partial(all_is_green_on_a_site_that_works, site),
        partial(without_sbatch, site),
        partial(a_shared_directory_that_is_not, site),
        partial(a_server_that_only_the_login_host_reaches, site, tunnel),
        partial(a_python_of_the_login_host, site),
        partial(a_python_without_our_package, site),
        partial(a_wrong_key, site, tmp_path),
        partial(an_interrupted_doctor_leaves_nothing, site),
    )
    assert site.shell("squeue --noheader") == ""
