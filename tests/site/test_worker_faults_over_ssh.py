"""A worker off the cluster whose login host fails it, on a real Slurm over real sshd.

Jobs are unharmed, no run has two, the worker lives, and what waits is told so and goes on later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from prefect.client.schemas.actions import WorkPoolUpdate

from tests.conftest import SITE
from tests.server import server_client
from tests.site.afar import Afar, Road, comes_up, goes_down, laptop_afar
from tests.site.conftest import Site, Worker, side_by_side
from tests.site.laptop import HOST
from tests.site.sshd import Sshd
from tests.site.test_faults_over_ssh import LOGINS_A_MINUTE, text_of
from tests.waiting import until

Start = Callable[..., Sshd]


def states(laptop: Afar) -> list[str]:
    """Names of those of all runs, in order."""
    return sorted(run.state.name for run in laptop.runs())


def all_have_run_once(laptop: Afar, worker: Worker, runs: int) -> None:
    """And the worker, which lives, has told their ends."""
    live = f"ls {laptop.shared}/live"
    until(lambda: laptop.shell_there(live) == "", 120, "the ends are told")
    assert not worker.is_over
    assert states(laptop) == ["Completed"] * runs
    assert len(laptop.submissions()) == len(laptop.jobs()) == laptop.starts() == runs
    until(lambda: not laptop.litter(), 30, "what was under way there has ended")


@contextlib.contextmanager
def held_back(laptop: Afar) -> Iterator[None]:
    """The pool is paused meanwhile: what is given to it comes to the worker afterwards."""
    with server_client() as client:
        client.update_work_pool(laptop.pool, WorkPoolUpdate(is_paused=True))
        yield
        client.update_work_pool(laptop.pool, WorkPoolUpdate(is_paused=False))


def network_is_away_while_a_job_runs(site: Site, start: Start) -> None:
    """The job ends meanwhile; a script that submits then waits."""
    server = start()
    road = Road(server)
    with laptop_afar(site, "away", "paramiko", server) as laptop:
        laptop.knows(server, address=road.address)
        with laptop.worker("w") as worker:
            given = laptop.call("submit_to_work_pool", 0, "gated")
            until(lambda: laptop.starts() == 1, 90, "the flow runs")
            road.cut()
            try:
                late = laptop.call("call")
                laptop.go()
                until(lambda: "Completed" in states(laptop), 60, "the flow ends")
            finally:
                road.join()
            assert [text_of(script).splitlines()[-1] for script in (given, late)] == ["0.0"] * 2
            all_have_run_once(laptop, worker, 2)
            assert server.logins <= LOGINS_A_MINUTE


def login_node_reboots_and_only_its_user_can_log_in(site: Site, start: Start) -> None:
    """Runs wait and say which command its user should run; nobody else logs in."""
    server = start()
    with laptop_afar(site, "reuse", "openssh", server, master="reuse") as laptop:
        assert laptop.run("ssh", "-fNM", HOST).returncode == 0
        with laptop.worker("w") as worker:
            with held_back(laptop):
                running = laptop.call("submit", 0, "gated")
                until(lambda: laptop.starts() == 1, 90, "a flow runs")
                waiting = laptop.call("submit_to_work_pool")
                until(lambda: "Scheduled" in states(laptop), 60, "a run waits for the worker")
                goes_down(server)
            until(lambda: "SubmissionDelayed" in states(laptop), 60, "the run is told to wait")
            (delayed,) = [run for run in laptop.runs() if run.state.name == "SubmissionDelayed"]
            assert f"run `ssh -fNM {HOST}`, log in there, and leave it open" in (
                delayed.state.message
            )
            refused = text_of(laptop.call("call"), code=1).strip()
            assert f"Unreachable: no open connection to {HOST}: run `ssh -fNM {HOST}`" in refused
            assert len(laptop.runs()) == 2
            comes_up(server)
            assert server.logins == 1
            assert laptop.run("ssh", "-fNM", HOST).returncode == 0
            laptop.go()
            assert text_of(waiting).splitlines()[-1] == "0.0"
            assert text_of(running).splitlines()[-1] == "0.0"
            all_have_run_once(laptop, worker, 2)
            assert server.logins == 2
        laptop.run("ssh", "-O", "exit", HOST)


def host_key_changes_under_a_worker(site: Site, start: Start) -> None:
    """Nobody logs in to what may be another host; the job goes on."""
    server = start()
    key = f"/etc/site/{server.name}.key"
    site.shell(f"ssh-keygen -qt ed25519 -N '' -f {key}", "root")
    configuration = SITE / f"root/etc/site/{server.name}"
    usual = configuration.read_text()
    with laptop_afar(site, "key", "openssh", server) as laptop, laptop.worker("w") as worker:
        given = laptop.call("submit_to_work_pool", 0, "gated")
        until(lambda: laptop.starts() == 1, 90, "the flow runs")
        configuration.write_text(usual.replace("/etc/site/ssh_host_ed25519_key", key))
        before = server.logins
        goes_down(server)
        comes_up(server)
        until(lambda: "HOST IDENTIFICATION HAS CHANGED" in worker.text, 60, "the worker says so")
        assert server.logins == before
        configuration.write_text(usual)
        goes_down(server)
        comes_up(server)
        laptop.go()
        assert text_of(given).splitlines()[-1] == "0.0"
        all_have_run_once(laptop, worker, 1)
        assert server.logins <= LOGINS_A_MINUTE


def test_a_worker_outlives_its_login_host(site: Site, servers: Start) -> None:
    side_by_side(
        partial(network_is_away_while_a_job_runs, site, servers),
        partial(login_node_reboots_and_only_its_user_can_log_in, site, servers),
        partial(host_key_changes_under_a_worker, site, servers),
    )
