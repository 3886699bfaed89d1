"""The real Slurm site, brought up once a run, and the people on it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

from tests.conftest import PORT, ROOT, SITE, run_site_script
from tests.server import server_client
from tests.site.batch import Batch, SlurmBatch
from tests.site.sshd import (  # noqa: F401  fixtures
    client_of_the_test,
    home,
    kind,
    plain,
    servers,
    sockets,
    there,
)
from tests.waiting import HUNG, until

CANNOT_HOST = 3
OF_SITE = ("--site", str(SITE))


@dataclass(frozen=True)
class Site:
    """A login host and three nodes."""

    address: str
    """Of this machine, as the nodes see it."""

    @property
    def account(self) -> str:
        """The researcher's login name."""
        return "researcher"

    @property
    def batch(self) -> Batch:
        """The scheduler's own commands."""
        return SlurmBatch(self)

    @property
    def search_path(self) -> str:
        """PATH of whoever works there."""
        return "/usr/local/bin:/usr/bin:/bin"

    @property
    def name(self) -> str:
        """Of the place where scripts and workers run."""
        return "login"

    def run(
        self, *argv: str, user: str = "researcher", timeout: float = HUNG, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the login host, in the user's home, with a clean environment."""
        return subprocess.run(
            self._enter(argv, user, variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def start(
        self, *argv: str, user: str = "researcher", variables: Any = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """As ``run``, without waiting for the end; ``options`` are Popen's."""
        return subprocess.Popen(self._enter(argv, user, variables or {}), **options)

    def _enter(self, argv: Sequence[str], user: str, variables: dict[str, str]) -> list[str]:
        settings = {
            "PREFECT_API_URL": f"http://{self.address}:{PORT}/api",
            "HPC_BRIDGE_POLL_INTERVAL": "1",
        } | variables
        options = [part for item in settings.items() for part in ("--env", "=".join(item))]
        return [str(ROOT / "tests/site/enter"), *OF_SITE, "--user", user, *options, "--", *argv]

    def shell(self, command: str, user: str = "researcher") -> str:
        """Standard output of a shell command that must work."""
        done = self.run("bash", "-c", command, user=user)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def python(
        self, *argv: str, user: str = "researcher", timeout: float = HUNG, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the interpreter of this test run there."""
        return self.run(sys.executable, *argv, user=user, timeout=timeout, **variables)

    def case(self, case: str, *, user: str = "researcher", **variables: str) -> dict[str, Any]:
        """One case of tests/flows/jobs.py, as a script in the user's home."""
        done = self.python("jobs.py", case, user=user, **variables)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def home(self, user: str = "researcher") -> Path:
        """The user's home as this machine sees it."""
        return SITE / "root" / "home" / user

    def path(self, name: str = "") -> str:
        """A path in the researcher's home, or the home itself, as they see it there."""
        return f"/home/researcher/{name}".rstrip("/")

    def put(self, name: str, text: str, user: str = "researcher") -> Path:
        """Write a file into the user's home."""
        path = self.home(user) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.batch.in_own_words(text))
        self.shell(f"chown -R {user}: /home/{user}/{shlex.quote(name.split('/')[0])}", user="root")
        return path


CALLER = """
import asyncio, json, os, sys, time
from pathlib import Path
from prefect import tags
import jobs

way, tag, seconds, how, variables = sys.argv[1:]
seconds, variables = float(seconds), json.loads(variables)
os.setsid()  # a process group of its own, as a terminal gives
Path(f"{tag}.pid").write_text(str(os.getpid()))
with tags(tag):
    if way == "async":
        asyncio.run(jobs.patient.with_options(job_variables=variables)(seconds))
    elif way == "call":
        jobs.counted.with_options(job_variables=variables)(seconds, how)
    elif way == "cancel":
        future = jobs.counted.with_options(job_variables=variables).submit(seconds, how)
        future.cancel()
        future.wait()
        print(future.state.name)
    else:
        jobs.counted.with_options(job_variables=variables).submit(seconds, how)
        Path(f"{tag}.submitted").touch()
        time.sleep(300)
"""


def side_by_side(*cases: Callable[[], None]) -> None:
    """Run all at once; the first that failed is raised, the others are printed."""
    errors: list[BaseException] = []

    def run(case: Callable[[], None]) -> None:
        try:
            case()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors[1:]:
        traceback.print_exception(error)
    if errors:
        raise errors[0]


class Caller:
    """A researcher's script that calls a flow in one of the ways of CALLER."""

    def __init__(
        self,
        site: Site,
        way: str,
        tag: str,
        seconds: float = 300,
        how: str = "",
        *,
        folder: str,
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._site = site
        self._tag = tag
        site.put("caller.py", CALLER)
        site.run("rm", "-f", f"{tag}.pid", f"{tag}.submitted")
        variables = {"env": {"HOOK_DIR": folder}, **options}
        self.process = site.start(
            *(sys.executable, "caller.py", way, tag, str(seconds), how, json.dumps(variables)),
            variables=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @cached_property
    def flow_run_id(self) -> UUID:
        """Of the run that it has made."""
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[self._tag]))

        def found() -> list[Any]:
            with server_client() as client:
                return client.read_flow_runs(flow_run_filter=tagged)

        run: UUID = until(found, 60, "the flow run is made")[0].id
        return run

    def is_ready(self) -> bool:
        """Whether ``submit`` has returned."""
        return (self._site.home() / f"{self._tag}.submitted").exists()

    def signal(self, name: str) -> None:
        """Send a signal to all processes of the script."""
        self._site.shell(f"kill -{name} -- -$(cat {self._tag}.pid)")


class Worker:
    """A worker process of a user on the login host, with a pool of its own."""

    def __init__(
        self,
        site: Site,
        pool: str,
        name: str,
        *options: str,
        start: str = "-m prefect",
        log: str | None = None,
        **env: str,
    ) -> None:
        self.name = log or name
        self.log = site.home() / f"{self.name}.log"
        self._site = site
        site.run("rm", "-f", self.log.name)
        options_of_type = f"--type {site.batch.name} --name {name}"
        command = f"{sys.executable} {start} worker start --pool {pool} {options_of_type}"
        self._process = site.start(
            *("bash", "-c"),
            f"echo $$ > {self.name}.pid; exec {shlex.join([*shlex.split(command), *options])}"
            f" > {self.log.name} 2>&1",
            variables={"PREFECT_WORKER_QUERY_SECONDS": "1", **env},
            start_new_session=True,
        )

    def __enter__(self) -> Worker:
        until(lambda: "started!" in self.text or self.is_over, 90, "the worker starts")
        assert not self.is_over, self.text
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(HUNG)

    @property
    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """On the login host."""
        return int((self._site.home() / f"{self.name}.pid").read_text())

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal and wait for the end of the process."""
        self._site.shell(f"kill -{signal} {self.pid}")
        self._process.wait(HUNG)

    def memory(self) -> int:
        """Resident, in MiB."""
        status = self._site.shell(f"grep VmRSS /proc/{self.pid}/status")
        return int(status.split()[1]) // 1024


def counted_deployment(pool: str, folder: str, **options: Any) -> UUID:
    """A deployment of ``counted`` in jobs.py, whose effects are left in a folder of the home."""
    directory = str(Path(folder).parent)
    variables = {"memory": "600M", "walltime": "30m", "env": {"HOOK_DIR": folder}}
    with server_client() as client:
        return client.create_deployment(
            client.create_flow_from_name("counted"),
            name=pool,
            entrypoint="jobs.py:counted",
            pull_steps=[
                {"prefect.deployments.steps.set_working_directory": {"directory": directory}}
            ],
            work_pool_name=pool,
            job_variables=variables | options.pop("job_variables", {}),
            **options,
        )


def create_run(deployment: UUID, seconds: float = 0, how: str = "", **job_variables: Any) -> UUID:
    """A run of ``counted`` that is ready now."""
    with server_client() as client:
        return client.create_flow_run_from_deployment(
            deployment,
            parameters={"seconds": seconds, "how": how},
            job_variables=job_variables,
        ).id


def burst(
    pool: str, deployment: UUID, count: int, seconds: float = 0, **job_variables: Any
) -> list[UUID]:
    """Runs of ``counted`` that become ready at the same moment."""
    with server_client() as client:
        client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
        try:
            return [create_run(deployment, seconds, **job_variables) for _ in range(count)]
        finally:
            client.update_work_pool(pool, WorkPoolUpdate(is_paused=False))


def read(flow_run_id: UUID) -> Any:
    """The flow run as the server knows it."""
    with server_client() as client:
        return client.read_flow_run(flow_run_id)


def history(flow_run_id: UUID) -> list[Any]:
    """All states that a flow run has had, in order."""
    with server_client() as client:
        states = client.read_flow_run_states(flow_run_id)
    return sorted(states, key=lambda state: state.timestamp)


def ends(flow_run_id: UUID) -> list[str]:
    """Names of the final states that a flow run has had; one, when all is well."""
    return [state.name for state in history(flow_run_id) if state.is_final()]


def job_of(flow_run_id: UUID, seconds: float = 60) -> str:
    """The scheduler's id of a flow run's job, once there is one."""
    text = until(lambda: read(flow_run_id).infrastructure_pid, seconds, "the run is submitted")
    return str(text).split(":")[1]


def processes_of(site: Site, run: UUID) -> list[str]:
    """Of a flow run, on all nodes."""
    command = f"grep -lz PREFECT__FLOW_RUN_ID={run} /proc/[0-9]*/environ | cut -d/ -f3"
    return site.run("bash", "-c", command, user="root").stdout.split()


def in_place_of_submit(site: Site, name: str, text: str) -> str:
    """A script that is called for the command that submits; gives the PATH that leads to it.

    In the text SUBMIT is the real command, and HERE the folder ``name`` in the home.
    """
    program, here = site.batch.submit_program, site.path(name)
    script = f"{name}/{Path(program).name}"
    site.put(script, "#!/bin/bash\n" + text.replace("SUBMIT", program).replace("HERE", here))
    site.shell(f"chmod +x {site.path(script)}")
    return f"{here}:{site.search_path}"


@pytest.fixture(scope="session")
def site(server: str) -> Iterator[Site]:
    """The site; it stays up when it was up before."""
    assert server
    was_up = run_site_script("enter", *OF_SITE, "true").returncode == 0
    done = run_site_script("up", *OF_SITE, "--reuse", "--python", sys.prefix)
    if done.returncode == CANNOT_HOST:
        pytest.skip(f"no Slurm test site: {done.stdout.splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    gateway = subprocess.run(
        [str(ROOT / "tests/site/enter"), *OF_SITE, "getent", "hosts", "hosthost"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[0]
    site = Site(gateway)
    for user in ("researcher", "colleague"):
        site.put("jobs.py", (ROOT / "tests/flows/jobs.py").read_text(), user)
    try:
        yield site
    finally:
        if not was_up:
            run_site_script("down", *OF_SITE)


@pytest.fixture(scope="session")
def site_worker(site: Site) -> Iterator[str]:
    """The researcher's own worker on the personal pool."""
    log = site.home() / "worker.log"
    site.run("rm", "-f", "worker.log")
    process = site.start(
        "bash",
        "-c",
        f"exec {sys.executable} -m prefect worker start --pool slurm-researcher --type slurm"
        " > worker.log 2>&1",
        variables={"PREFECT_WORKER_QUERY_SECONDS": "1"},
        start_new_session=True,
    )
    try:
        until(
            lambda: process.poll() is None and log.exists() and "started!" in log.read_text(),
            60,
            "the worker starts",
        )
        yield "slurm-researcher"
    finally:
        process.terminate()
        process.wait(HUNG)
