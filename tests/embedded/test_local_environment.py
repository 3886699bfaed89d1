"""What a job of the embedded scheduler gets from its submitter, and what not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_bridge.jobs import JobId, JobState
from tests.embedded.local_site import GATED, Site


def test_nothing_of_the_submitter_leaks_into_the_job(site: Site) -> None:
    inherited = os.open(site.work, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    argv = site.scheduler.submit_command("hbname")
    script = (
        "#!/bin/bash\n#SBATCH --ntasks=1 -c 2 -t 5 --chdir=.\n"
        "env -0 > environment; umask > umask; ls -l /proc/$$/fd > descriptors;"
        " trap > traps; cat; pwd"
    )
    done = subprocess.run(
        argv,
        input=script,
        text=True,
        capture_output=True,
        cwd=site.work,
        pass_fds=[inherited],
        umask=0o027,
        env={**os.environ, "MARKER": "leak", "SLURM_JOB_ID": "outer", "LANG": "C.UTF-8"},
        check=True,
    )
    os.close(inherited)
    job = JobId(done.stdout.strip())
    assert site.end(job).state is JobState.COMPLETED
    entries = (site.work / "environment").read_text().rstrip("\0").split("\0")
    found = dict(entry.split("=", 1) for entry in entries)
    node = os.uname().nodename.split(".")[0]
    assert found["SLURM_JOB_ID"] == found["SLURM_JOBID"] == job.value
    assert {name: found[name] for name in sorted(found) if name.startswith("SLURM_J")} | {
        "SLURM_JOB_START_TIME": "",
        "SLURM_JOB_END_TIME": "",
    } == {
        "SLURM_JOBID": job.value,
        "SLURM_JOB_CPUS_PER_NODE": "2",
        "SLURM_JOB_END_TIME": "",
        "SLURM_JOB_ID": job.value,
        "SLURM_JOB_NAME": "sbatch",
        "SLURM_JOB_NODELIST": node,
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_PARTITION": "local",
        "SLURM_JOB_START_TIME": "",
        "SLURM_JOB_UID": str(os.getuid()),
    }
    assert int(found["SLURM_JOB_END_TIME"]) - int(found["SLURM_JOB_START_TIME"]) == 300
    assert (found["SLURM_NTASKS"], found["SLURM_CPUS_PER_TASK"]) == ("1", "2")
    assert found["SLURM_CLUSTER_NAME"] == "local"
    assert found["SLURM_SUBMIT_DIR"] == str(site.work)
    assert "SLURM_RESTART_COUNT" not in found
    rest = {name for name in found if not name.startswith("SLURM")}
    assert rest == {
        "ENVIRONMENT", "HOME", "HPC_BRIDGE_LOCAL_JOB", "LANG", "LOGNAME", "PATH", "PWD", "SHELL",
        "SHLVL", "TERM", "TMPDIR", "USER", "_",
    }  # fmt: skip
    assert (site.work / "umask").read_text() == "0027\n"
    assert (site.work / "traps").read_text() == ""
    opened = (site.work / "descriptors").read_text()
    assert "pipe" not in opened
    assert str(site.state) + "/slots" not in opened
    assert f"-> {site.work}\n" not in opened
    assert site.output(job).rstrip("\n") == str(site.work)


def test_the_keeper_holds_nothing_of_the_submitter(site: Site) -> None:
    argv = site.scheduler.submit_command("hbname")
    job = site.scheduler.parse_submit(site.run(argv, "#!/bin/bash\n" + GATED, MARKER="leak"))
    site.wait(job, JobState.RUNNING)
    keeper = Path("/proc", str(site.keeper(job)))
    assert b"MARKER" not in (keeper / "environ").read_bytes()
    assert (keeper / "cwd").readlink() == Path("/")
    site.open_gate()
    site.end(job)


def test_the_whole_environment_travels_when_it_is_asked_for(site: Site) -> None:
    script = "#!/bin/bash\n#SBATCH --export=ALL\necho $MARKER $SLURM_JOB_ID $SLURM_STALE"
    argv = site.scheduler.submit_command("hbname")
    answer = site.run(argv, script, MARKER="a b", SLURM_JOB_ID="7", SLURM_STALE="x")
    job = site.scheduler.parse_submit(answer)
    site.end(job)
    assert site.output(job) == f"a b {job}\n"


def test_output_is_truncated_or_appended_as_asked(site: Site) -> None:
    for directives in (["-o out", "--open-mode=append"], ["-o out", "--open-mode=append"]):
        site.end(site.submit("echo out; echo err >&2", *directives))
    assert (site.work / "out").read_text() == "out\nerr\nout\nerr\n"
    site.end(site.submit("echo new; echo err >&2", "-o out", "-e err-%x-%j", "-J name"))
    assert (site.work / "out").read_text() == "new\n"
    assert (site.work / "err-name-3").read_text() == "err\n"


@pytest.mark.parametrize(
    ("directive", "words"),
    [
        ("--output=missing/out", "the output file missing/out cannot be opened"),
        ("--chdir=missing", "the working directory .*/missing cannot be entered"),
    ],
)
def test_a_missing_directory_fails_the_job(site: Site, directive: str, words: str) -> None:
    ended = site.end(site.submit("touch ran", directive))
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 1)
    assert ended.reason is not None
    assert re.match(words, ended.reason)
    assert not (site.work / "ran").exists()


def test_the_shebang_chooses_the_interpreter(site: Site) -> None:
    python = site.submit("import sys; print(sys.argv)", shebang=f"#!{sys.executable} -I")
    bare = site.submit("echo $BASH", shebang="# no interpreter")
    missing = site.submit("true", shebang="#!/missing/interpreter")
    assert site.end(python).state is JobState.COMPLETED
    assert site.output(python) == f"['{site.state}/jobs/{python}/script']\n"
    assert site.end(bare).state is JobState.COMPLETED
    assert site.output(bare).endswith("/bash\n")
    failed = site.end(missing)
    assert (failed.state, failed.exit_code) == (JobState.FAILED, 2)
    assert "/missing/interpreter: No such file" in site.output(missing)
