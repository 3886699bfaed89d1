"""Controller, accounting, network and server go away under jobs, on a real Slurm.

Whatever was away, each run is afterwards in the state that its job's records say, once.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
from prefect.states import Cancelling

from tests.conftest import PORT, ROOT, run_site_script
from tests.server import server_client
from tests.site.conftest import (
    OF_SITE,
    Caller,
    Site,
    Worker,
    counted_deployment,
    create_run,
    ends,
    history,
    job_of,
    processes_of,
    read,
)
from tests.waiting import HUNG, until

POOL = "faults"
JOB = {"memory": "300M", "requeue": False}


class Gate:
    """A door to the Prefect server that can be shut: connections are then refused."""

    def __init__(self) -> None:
        self._shut = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("0.0.0.0", port))
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
        return listener

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", PORT))
                self._open |= {client, server}
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Nobody gets through, and whoever was through is thrown out."""
        self._close()
        try:
            yield
        finally:
            self._listener = self._listen(self.port)

    def _close(self) -> None:
        # A thread that waits in accept holds the port until it is woken.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def gate(server: str) -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate._close()


@pytest.fixture(scope="module")
def address(site: Site, gate: Gate) -> str:
    """Of the server, for worker and jobs."""
    return f"http://{site.address}:{gate.port}/api"


@pytest.fixture(scope="module")
def worker(site: Site, address: str) -> Iterator[Worker]:
    site.put("jobs.py", (ROOT / "tests/flows/jobs.py").read_text())
    site.shell("rm -rf faults && mkdir -p faults")
    with Worker(site, POOL, "faults", PREFECT_API_URL=address) as worker:
        yield worker
    site.batch.cancel_all()


@pytest.fixture(scope="module")
def deployment(site: Site, worker: Worker) -> UUID:
    return counted_deployment(POOL, site.path("faults"), job_variables=JOB)


@contextmanager
def trouble(name: str, how: str) -> Iterator[None]:
    """A daemon of Slurm hangs or is dead."""
    end = {"hang": "resume", "kill": "start"}[how]
    if (name, how) == ("slurmctld", "kill"):
        done = run_site_script("daemon", "save", name, *OF_SITE)
        assert done.returncode == 0, done.stderr
    done = run_site_script("daemon", how, name, *OF_SITE)
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        done = run_site_script("daemon", end, name, *OF_SITE)
        assert done.returncode == 0, done.stdout


def has_run(site: Site, run: UUID) -> int:
    """How often the flow has begun."""
    path = site.home() / "faults" / f"{run}.starts"
    return len(path.read_text().split()) if path.exists() else 0


def until_running(*runs: UUID) -> None:
    until(lambda: all(read(run).state.is_running() for run in runs), 90, "the flows run")


def gated(deployment: UUID) -> tuple[UUID, UUID]:
    """Two runs that go on until they are let go: then one completes, and one dies."""
    return create_run(deployment, how="gated"), create_run(deployment, how="gated _exit")


def until_in(run: UUID, name: str, seconds: float = 60) -> Any:
    return until(lambda: (s := read(run).state).name == name and s, seconds, f"it is {name}")


def let_go(site: Site, *runs: UUID) -> None:
    """What is gated goes on to its end."""
    for run in runs:
        site.shell(f"touch faults/{run}.go")


def cancel(run: UUID) -> None:
    with server_client() as client:
        client.set_flow_run_state(run, Cancelling())


# the controller


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_a_controller_that_is_away_loses_and_doubles_nothing(
    site: Site, deployment: UUID, address: str, how: str
) -> None:
    scheduler_is_away(site, deployment, how, trouble("slurmctld", how))


def scheduler_is_away(
    site: Site, deployment: UUID, how: str, away: AbstractContextManager[None]
) -> None:
    """While jobs wait, run and end, while some are submitted and one is cancelled."""
    waits, cancelled = (create_run(deployment, **site.batch.later()) for _ in range(2))
    completes, dies = gated(deployment)
    job_of(waits), job_of(cancelled)
    until_running(completes, dies)
    with away:
        cancel(cancelled)
        late = create_run(deployment)
        refused = Caller(site, "submit", f"refused-{how}", 0, folder=site.path("faults"), **JOB)
        let_go(site, completes, dies)
        until_in(completes, "Completed")
        until(lambda: read(dies).state.is_crashed(), 60, "the node has told the end")
        until_in(late, "SubmissionDelayed")
        words = refused.process.communicate(timeout=HUNG)[1]
        assert "SchedulerUnavailable" in words
    until_in(late, "Completed", 90)
    until_in(cancelled, "Cancelled")
    assert "ended as FAILED" in until_in(dies, "JobFailed").message
    assert read(waits).state.name == "Queued"
    runs = late, completes, dies, cancelled, refused.flow_run_id
    assert [has_run(site, run) for run in runs] == [1, 1, 1, 0, 0]
    assert [ends(run)[-1:] for run in (late, cancelled)] == [["Completed"], ["Cancelled"]]
    assert ends(refused.flow_run_id) == ["SubmissionFailed"]
    cancel(waits)
    until_in(waits, "Cancelled")


# the accounting


@contextmanager
def without_accounting(site: Site) -> Iterator[None]:
    """The controller keeps no records and says so."""
    conf = "/etc/slurm/slurm.conf"
    for command in (f"cp {conf} {conf}.kept", f"sed -i /^AccountingStorage/d {conf}"):
        site.shell(command, user="root")
    with trouble("slurmctld", "kill"):
        pass
    try:
        yield
    finally:
        site.shell(f"mv {conf}.kept {conf}", user="root")
        with trouble("slurmctld", "kill"):
            pass


FAULTS: dict[str, tuple[Callable[[Site], AbstractContextManager[None]], float]] = {
    # sacct gives up after 45 s, and one look at the queue waits for it.
    "hanging": (lambda _: trouble("slurmdbd", "hang"), 75),
    "dead": (lambda _: trouble("slurmdbd", "kill"), 20),
    "switched off": (without_accounting, 20),
}


@pytest.fixture(scope="module")
def cut(site: Site, deployment: UUID) -> Iterator[Future[None]]:
    """What becomes of an attempt behind a cut network, found out while other tests run."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(replace_an_attempt_behind_a_cut_network, site, deployment)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("fault", FAULTS)
def test_ends_are_told_without_the_accounting(site: Site, deployment: UUID, fault: str) -> None:
    # Begun for each fault: what has lived through another one may not have survived it.
    on_g1: dict[str, Any] = {"partition": "gpu", "warning": "off"}
    timeout, cancelled = (create_run(deployment, 600, **on_g1) for _ in range(2))
    until_running(timeout, cancelled)
    make, seconds = FAULTS[fault]
    with make(site):
        site.shell(f"scancel {job_of(cancelled)}", user="root")
        site.shell(f"scontrol update jobid={job_of(timeout)} EndTime=now+1", user="root")
        until(lambda: is_over(site, job_of(cancelled), job_of(timeout)), 60, "the jobs end")
        for run, name in ((cancelled, "Cancelled"), (timeout, "WalltimeExceeded")):
            message = until_in(run, name, seconds).message
            assert "the scheduler's records could not be had" in message


def is_over(site: Site, *jobs: str) -> bool:
    """Whether the queue says so of all of them."""
    states = site.shell(f"squeue --noheader --states=all --jobs={','.join(jobs)} --format=%T")
    return not {"PENDING", "RUNNING", "COMPLETING"} & set(states.split())


# the network


def test_an_attempt_behind_a_cut_network_ends_itself_when_it_is_replaced(
    cut: Future[None],
) -> None:
    cut.result()


def replace_an_attempt_behind_a_cut_network(site: Site, deployment: UUID) -> None:
    run = create_run(deployment, 60, nodelist="c1", requeue=True)
    until_running(run)
    job = job_of(run)
    node = ["c1", *OF_SITE]
    output = site.home() / ".hpc-bridge/runs" / read(run).infrastructure_pid.split(":")[2]
    run_site_script("node", "cut", *node)
    try:
        until_in(run, "Requeued", 90)
        assert len(flows_of(site, run)) == 1  # which nobody can reach
        site.shell(f"scontrol update jobid={job} reqnodelist=c2 starttime=now", user="root")
        until(lambda: has_run(site, run) == 2, 60, "it runs again")
        until(lambda: len(flows_of(site, run)) == 1, 60, "the old attempt ends itself")
        assert read(run).state.is_running()
    finally:
        run_site_script("node", "join", *node)
    until_in(run, "Completed", 90)
    assert ends(run) == ["Completed"]
    assert "a later start of this job has taken over" in (output / "job.out").read_text()
    assert [state.name for state in history(run)].count("Running") == 2


def flows_of(site: Site, run: UUID) -> list[str]:
    """Processes on all nodes that run the flow run."""
    of_flow = "grep -qz hpc_bridge.node.execute /proc/{}/cmdline"
    return [
        pid
        for pid in processes_of(site, run)
        if not site.run("bash", "-c", of_flow.format(pid), user="root").returncode
    ]


# the Prefect server


def test_ends_while_the_server_is_away_are_told_afterwards(
    site: Site, deployment: UUID, gate: Gate
) -> None:
    completes, dies = gated(deployment)
    cancelled, waits = create_run(deployment, 300), create_run(deployment, **site.batch.later())
    until_running(completes, dies, cancelled)
    # The flow's own first line comes a moment after its state.
    until(lambda: all(has_run(site, run) for run in (completes, dies, cancelled)), 60, "they run")
    job = job_of(waits)
    with gate.shut():
        let_go(site, completes, dies)
        site.batch.cancel(job_of(cancelled), job)
        time.sleep(30)  # many polls, in which nothing may be decided
        assert read(waits).state.is_pending()
    # Whoever was refused several times asks again after a minute.
    until_in(completes, "Completed", 120)
    assert "exit code 3" in until_in(dies, "JobFailed", 120).message
    for run, by in ((cancelled, f" by {site.account}"), (waits, site.batch.by_owner)):
        assert f"at the scheduler{by}" in until_in(run, "Cancelled", 120).message
    assert [has_run(site, run) for run in (completes, dies, cancelled, waits)] == [1, 1, 1, 0]
