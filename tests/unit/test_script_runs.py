"""What the job script does when it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.node.records import ExitRecord
from tests.unit.rendered_scripts import FIELDS, HOSTILE, Job, rendered


def test_the_supervisor_is_started_for_the_attempt(tmp_path: Path) -> None:
    job = Job(tmp_path, r'printf "%s\n" "$@"')
    code, stdout, stderr = job.run()
    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == ["-P", "-m", "hpc_bridge.node", str(job.run_dir), "0", "0"]


def test_an_array_element_that_was_requeued_makes_its_own_claim(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo "$5 $6"')
    code, stdout, _ = job.run(SLURM_ARRAY_TASK_ID="3", SLURM_RESTART_COUNT="2")
    assert (code, stdout) == (0, "3 2\n")
    assert job.claim(3, 2).is_dir()


def test_a_claim_says_at_once_which_job_has_made_it(tmp_path: Path) -> None:
    job = Job(tmp_path, 'cat "$4/$5/$6/job"; exit 3')
    assert job.run()[1] == "42\n"
    assert job.record().job_id == "42"


def test_a_claim_of_an_arrays_element_names_it_as_squeue_does(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 3")
    job.run(SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="2")
    assert (job.claim(2) / "job").read_text() == "40_2\n"
    assert job.record(2).job_id == "40_2"


def test_the_supervisor_learns_when_the_job_began(tmp_path: Path) -> None:
    before = int(time.time())
    code, stdout, _ = Job(tmp_path, 'echo "$HPC_BRIDGE_STARTED"').run()
    assert code == 0
    assert before <= int(stdout) <= time.time()


def test_the_claim_belongs_to_the_account_alone(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 3")
    job.run()
    modes = [path.stat().st_mode & 0o777 for path in (job.claim(), job.claim() / "exit.json")]
    assert modes == [0o700, 0o600]


def test_the_script_leaves_an_exit_record_when_the_supervisor_left_none(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 3")
    assert job.run()[0] == 3
    record = job.record()
    assert (record.format, record.job_id, record.stage, record.exit_code) == (1, "42", "python", 3)
    assert (record.cause, record.message) == ("", "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.ended)
    assert sorted(path.name for path in job.claim().iterdir()) == ["exit.json", "job"]


def test_the_supervisors_own_record_stays(tmp_path: Path) -> None:
    job = Job(tmp_path, """echo '{"stage": "flow"}' > "$4/$5/$6/exit.json"; exit 3""")
    assert job.run()[0] == 3
    assert job.record() == ExitRecord(stage="flow")


def test_a_missing_python_is_said_in_the_exit_record(tmp_path: Path) -> None:
    python = '/no/such "py\\thon" it\'s\there'
    job = Job(tmp_path, python=python)
    code, _, stderr = job.run()
    record = job.record()
    assert (code, record.exit_code) == (127, 127)
    assert (record.stage, record.cause) == ("python", "PythonNotFound")
    assert python.replace("\t", " ") in record.message
    assert "set 'python' to an interpreter or environment" in record.message
    assert stderr.startswith("hpc-bridge: there is no Python at ")


def test_a_python_without_this_package_is_said_in_the_exit_record(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 1", has_package=1)
    code, _, stderr = job.run()
    record = job.record()
    assert (code, record.exit_code, record.stage) == (1, 1, "python")
    assert record.cause == "HPCBridgeMissing"
    assert f"{job.python} on " in record.message
    assert "has no hpc-bridge; install it there" in record.message
    assert "has no hpc-bridge" in stderr


def test_an_environments_folder_stands_for_its_python(tmp_path: Path) -> None:
    environment = tmp_path / "my env"
    (environment / "bin").mkdir(parents=True)
    job = Job(tmp_path, "exit 5", python=str(environment))
    shutil.move(job.python, environment / "bin" / "python")
    assert job.run()[0] == 5


def test_a_python_of_the_path_is_found(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 5", python="py thon")
    assert job.run(PATH=f"{job.folder}:{os.environ['PATH']}")[0] == 5


def test_setup_lines_prepare_the_supervisors_environment(tmp_path: Path) -> None:
    setup = ["set -eu", "export GREETING='hello world'"]
    job = Job(tmp_path, 'echo "$GREETING $SLURM_EXPORT_ENV"', setup=setup)
    assert job.run()[:2] == (0, "hello world ALL\n")


@pytest.mark.parametrize(
    ("setup", "code", "words"),
    [
        (["echo no such module >&2", "exit 4"], 4, "a setup line ended the job with exit code 4"),
        (["exit 0"], 0, "a setup line ended the job with exit code 0"),
        (["(exit 5)", "echo not reached"], 5, "a setup line failed: ( exit 5 )"),
        (["no-such-command 'a \"b\"'"], 127, "a setup line failed: no-such-command 'a \"b\"'"),
        (["set -eu", 'echo "$NO_SUCH_VARIABLE"'], 1, "a setup line ended the job"),
    ],
)
def test_a_setup_that_ends_the_job_is_named(
    tmp_path: Path, setup: list[str], code: int, words: str
) -> None:
    job = Job(tmp_path, "echo started", setup=setup)
    assert job.run()[:2] == (code, "")
    record = job.record()
    assert (record.stage, record.exit_code, record.cause) == ("setup", code, "SetupFailed")
    assert words in record.message


def test_what_a_setup_line_tries_may_fail(tmp_path: Path) -> None:
    setup = ["false || true", "if grep -q x /dev/null; then exit 1; fi"]
    assert Job(tmp_path, "exit 0", setup=setup).run()[0] == 0


def test_a_second_start_of_the_same_attempt_leaves_everything_alone(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo started >> "$4/starts"; exit 3')
    job.run()
    before = {path: path.read_bytes() for path in job.run_dir.rglob("*") if path.is_file()}
    code, _, stderr = job.run()
    assert code == 75
    assert "attempt 0 is claimed already" in stderr
    assert {path: path.read_bytes() for path in job.run_dir.rglob("*") if path.is_file()} == before


def test_two_starts_at_once_run_it_once(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo started >> "$4/starts"')
    with ExitStack() as stack:
        processes = [stack.enter_context(job.started()) for _ in range(4)]
        for process in processes:
            process.communicate(timeout=20)
    assert sorted(process.returncode for process in processes) == [0, 75, 75, 75]
    assert (job.run_dir / "starts").read_text() == "started\n"


def test_a_run_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run_dir.rmdir()
    job.run_dir.write_text("a file\n")
    code, _, stderr = job.run()
    assert code == 75
    assert f"{job.run_dir} cannot be written; leaving" in stderr


FULL: dict[str, Any] = {
    field: value for field, value, _ in FIELDS if field not in ("memory_per_cpu", "gpus_per_node")
}


def test_hostile_text_runs_nowhere(tmp_path: Path) -> None:
    for number, hostile in enumerate(HOSTILE):
        spec = {"comment": hostile, "account": hostile}
        job = Job(tmp_path / str(number), 'echo "$4"', spec=spec)
        checked = subprocess.run(["bash", "-n", job.script], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert job.run()[:2] == (0, f"{job.run_dir}\n"), hostile


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("spec", [{}, FULL])
def test_shellcheck_has_nothing_to_say(tmp_path: Path, spec: dict[str, Any]) -> None:
    script = tmp_path / "job.sh"
    script.write_text(rendered(spec, setup=["module load cuda"]), encoding="utf-8")
    # It does not see that a trap calls a function, nor what lies in /etc/profile.
    command = ["shellcheck", "--shell=bash", "--norc", "--exclude=SC1091,SC2317", str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_record_is_json_whatever_the_message_holds(tmp_path: Path) -> None:
    for number, python in enumerate(["/\\", '/"', "/\x01\x1f", "/ü✓", "/$x`y`", "/%s%n", "/a\nb"]):
        job = Job(tmp_path / str(number), python=python)
        assert job.run()[0] == 127
        stored = json.loads((job.claim() / "exit.json").read_text(encoding="utf-8"))
        assert stored["cause"] == "PythonNotFound"
