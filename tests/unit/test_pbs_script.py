"""The job script of PBS, run for real with a stand-in for Python."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

from hpc_bridge.jobs import JobSpec
from hpc_bridge.script import render
from tests.unit import rendered_scripts
from tests.unit.rendered_scripts import Job as SlurmJob
from tests.waiting import until


class Job(SlurmJob):
    """As PBS starts it: in the home directory, with its own variables."""

    def __init__(
        self, folder: Path, supervisor: str = "exit 0", *, has_package: int = 0, **values: object
    ) -> None:
        spec = JobSpec(name="hbabc", **values.pop("spec", {}))
        super().__init__(folder, supervisor, has_package=has_package)
        run_dir = folder / "run"
        run_dir.mkdir(parents=True)
        self.run_dir = run_dir
        context = rendered_scripts.CONTEXT | {
            "run_dir": str(run_dir),
            "output": str(run_dir / "job.out"),
            "python": str(self.python),
        }
        script = render(spec, context | values, packaged="pbs.sh.j2")
        self.script.write_text(script, encoding="utf-8")
        self.environment = {"PATH": os.environ["PATH"], "PBS_JOBID": "42.server"}


def test_a_start_claims_and_says_whose_it_is(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo "$*"; pwd; exit 3')
    code, stdout, _ = job.run()
    assert code == 3
    assert f"hpc_bridge.node {job.run_dir} 0 0" in stdout
    assert str(job.run_dir) in stdout.splitlines()
    assert (job.claim() / "job").read_text() == "42.server\n"
    assert (job.record().exit_code, job.record().job_id) == (3, "42.server")


def test_a_rerun_of_the_job_is_the_next_attempt(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo "$*"')
    for attempt in range(3):
        code, stdout, _ = job.run()
        assert code == 0
        assert stdout.rstrip().endswith(f" 0 {attempt}")
        assert job.record(attempt=attempt).job_id == "42.server"


def test_a_second_job_for_the_same_run_leaves_it_alone(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run()
    code, _, stderr = job.run(PBS_JOBID="43.server")
    assert code == 75
    assert "claimed by job 42.server" in stderr
    assert not job.claim(attempt=1).exists()


def test_a_claim_that_does_not_say_whose_it_is_is_an_earlier_start(tmp_path: Path) -> None:
    """Of this job, which broke off right then; another's would have said so within seconds."""
    job = Job(tmp_path, 'echo "$*"')
    job.claim().mkdir(parents=True)
    code, stdout, _ = job.run()
    assert (code, stdout.rstrip()[-4:]) == (0, " 0 1")


def test_a_run_directory_that_the_node_does_not_see_is_said(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run_dir.rename(tmp_path / "elsewhere")
    code, _, stderr = job.run()
    assert code == 75
    assert "cannot be reached or written" in stderr
    assert not job.run_dir.exists()


def test_an_element_has_a_folder_of_its_own(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo "$*"', array="0-3")
    _, stdout, _ = job.run(PBS_ARRAY_INDEX="2", PBS_JOBID="42[2].server")
    assert stdout.rstrip().endswith(" 2 0")
    assert job.record(element=2).job_id == "42[2].server"


def test_gpus_without_the_sites_hook_are_warned_of(tmp_path: Path) -> None:
    job = Job(tmp_path, spec={"gpus": 1})
    assert "CUDA_VISIBLE_DEVICES is not set" in job.run()[2]
    assert "CUDA" not in job.run(CUDA_VISIBLE_DEVICES="0")[2]
    assert "CUDA" not in Job(tmp_path / "other", spec={"nodes": 1}).run()[2]


def test_the_end_of_the_walltime_is_told(tmp_path: Path) -> None:
    job = Job(tmp_path, "echo $((HPC_BRIDGE_ENDS - HPC_BRIDGE_STARTED))", spec={"walltime": "90s"})
    assert 85 <= int(job.run()[1]) <= 90


# Not in shell: what is ignored when one begins, it cannot trap.
_WAITS = """\
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit("warned"))
time.sleep(15)
"""


def test_the_script_gives_the_warning_before_the_walltime(tmp_path: Path) -> None:
    waits = f"exec {sys.executable} -c {shlex.quote(_WAITS)}"
    job = Job(tmp_path, waits, spec={"walltime": "32s", "warning": "USR1@30"})
    code, _, stderr = job.run()
    assert (code, stderr) == (1, "warned\n")


def test_nothing_waits_for_a_warning_that_is_not_needed_any_more(tmp_path: Path) -> None:
    seconds = 77771
    job = Job(tmp_path, spec={"walltime": f"{seconds + 9}s", "warning": "USR1@9"})
    job.run()
    sleeping = f"sleep\0{seconds}\0".encode()

    def gone() -> bool:
        commands = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                commands.append(path.read_bytes())
            except OSError:
                continue
        return sleeping not in commands

    until(gone, 5, "the end of the timer")


def test_a_termination_reaches_the_supervisor(tmp_path: Path) -> None:
    job = Job(
        tmp_path,
        "trap 'exit 5' TERM; touch ready; while :; do sleep 0.1; done",
        spec={"walltime": "1h", "warning": "USR1@60"},
    )
    with job.started() as process:
        until((job.run_dir / "ready").exists, 10, "a supervisor")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 5
    assert job.record().exit_code == 5
