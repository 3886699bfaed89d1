"""Going on after the walltime, whatever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.jobs import JobId
from hpc_bridge.journal import RunDirectory, prepare_shared_directory
from tests.unit.continuing import WALLTIME, Killed, Server, a_job, go_on, submissions
from tests.unit.fake_cluster import connected


class Clock:
    """Kills at the given step; each thing that leaves the process is one."""

    def __init__(self, last: int) -> None:
        self.left = last
        self.happened: list[str] = []

    def __call__(self, what: str) -> None:
        self.happened.append(what)
        self.left -= 1
        if self.left == 0:
            raise Killed(what)


@pytest.mark.parametrize("forgets", [False, True], ids=["queued", "ended"])
def test_killed_at_any_step_and_repeated_it_makes_one_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    write = RunDirectory.write
    steps: list[str] = []
    for last in range(1, 100):
        shared = prepare_shared_directory(tmp_path / str(last))
        cluster, server, job = connected(shared, monkeypatch), Server(WALLTIME), a_job(shared)
        clock = Clock(last)

        def slow_write(run: RunDirectory, name: str, content: bytes, clock: Clock = clock) -> None:
            clock(f"before {name} is written")
            write(run, name, content)
            clock(f"after {name} is written")

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "write", slow_write)
            server.step = cluster.step = clock
            try:
                go_on(server, job)
            except Killed as killed:
                steps.append(str(killed))
            else:
                break
        server.step = cluster.step = lambda _: None
        if forgets:
            cluster.ended()
        settled = job.run.settled()
        if settled is None:
            following = go_on(server, job)
            assert following is not None, steps[-1]
            settled = job.run.settled()
            assert following.job_id == JobId("100"), steps[-1]
        assert len(cluster.scripts) == 1, steps[-1]
        assert submissions(shared) == 2, steps[-1]
        assert settled is not None
        run = RunDirectory(shared / "runs" / settled["continued"])
        assert run.read_submission()["job_id"] == "100", steps[-1]
        assert (shared / "live" / run.submission_id).exists(), steps[-1]
        assert server.state is not None
        assert server.state.name == "Queued", steps[-1]
    else:
        raise AssertionError("it never came to its end")
    assert steps.index("after 0/continued.json is written") < steps.index("before the submission")
    assert len(steps) > 15
