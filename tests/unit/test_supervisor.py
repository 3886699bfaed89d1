"""The supervisor as the job script starts it, on a hand-made run directory.

A ``prefect`` that cannot be imported stands first on the path: the supervisor must not notice, and
the process that reports to the server says what it was given and ends at once.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.journal import environment_file
from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.records import WARNED, ExitRecord, read_exit_record
from hpc_bridge.node.reports import report

POISON = "prefect has been imported"
PREFECT = f"""
import sys
print("given:", sys.stdin.readline(), file=sys.stderr)
raise ImportError({POISON!r})
"""
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"


def say(**what: Any) -> str:
    """A shell command that tells the supervisor something, as the flow's process does."""
    return f'echo {shlex.quote(json.dumps(what))} > "$HPC_BRIDGE_REPORTS"'


DONE = say(flow_state="COMPLETED")
FINISH = f"finish() {{ {DONE}; }}"
WAIT = "sleep 20 & echo ready; wait"
DEADLINE = 15


class Node:
    """A claimed attempt whose flow is a shell command."""

    def __init__(self, folder: Path, command: str, **submission: Any) -> None:
        self.run_dir = folder / "run dir"
        self.attempt = Attempt(self.run_dir, 0, 0)
        self.attempt.folder.mkdir(parents=True)
        self.write("submission.json", json.dumps({"command": command} | submission).encode())
        self.variables()
        self.job: dict[str, str] = {"SLURM_JOB_ID": "42"}
        self.arguments: list[str] = []
        self.poison = folder / "poison"
        (self.poison / "prefect").mkdir(parents=True)
        (self.poison / "prefect" / "__init__.py").write_text(PREFECT)

    def write(self, name: str, content: bytes) -> None:
        (self.run_dir / name).write_bytes(content)

    def variables(self, **variables: str) -> None:
        self.write("env", environment_file(variables))

    @contextmanager
    def started(self, *wrapper: str) -> Iterator[subprocess.Popen[str]]:
        argv = [sys.executable, "-P", "-m", "hpc_bridge.node", str(self.run_dir), "0", "0"]
        argv += self.arguments
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.poison)}
        process = subprocess.Popen(
            [*wrapper, *argv],
            cwd=self.run_dir,
            env=environment | self.job,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:  # the test has failed
                    process.kill()

    def run(self, *wrapper: str) -> tuple[int, str, str]:
        with self.started(*wrapper) as process:
            stdout, stderr = process.communicate(timeout=DEADLINE)
        return process.returncode, stdout, stderr

    def run_signalled(self, *signals: signal.Signals) -> tuple[int, str, str]:
        """Run until the flow says that it is ready, then send the signals."""
        with self.started() as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for number in signals:
                process.send_signal(number)
            stdout, stderr = process.communicate(timeout=DEADLINE)
        return process.returncode, stdout, stderr

    def record(self) -> ExitRecord:
        record = read_exit_record(self.attempt.exit_record)
        assert record is not None
        return record


# how it ends


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_that_of_the_flows_process(tmp_path: Path, code: int) -> None:
    node = Node(tmp_path, f"{DONE}; exit {code}")
    assert node.run() == (code, "", "")
    assert (node.record().exit_code, node.record().signal) == (code, None)


def test_the_exit_record_says_what_the_job_saw(tmp_path: Path) -> None:
    node = Node(tmp_path, DONE)
    node.run()
    record = node.record()
    assert (record.format, record.job_id, record.stage) == (1, "42", "flow")
    assert (record.flow_state, record.cause, record.message) == ("COMPLETED", "", "")
    assert record.node == os.uname().nodename
    assert not record.terminated
    started, ended = (datetime.fromisoformat(text) for text in (record.started, record.ended))
    assert started <= ended
    assert started.tzinfo is not None
    assert sorted(path.name for path in node.attempt.folder.iterdir()) == ["exit.json", "work"]


@pytest.mark.parametrize("name", ["SEGV", "KILL", "ABRT"])
def test_a_death_by_signal_is_recorded(tmp_path: Path, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    node = Node(tmp_path, f"{say(flow_state='FAILED')}; kill -{name} $$")
    assert node.run()[0] == 128 + number
    assert (node.record().exit_code, node.record().signal) == (128 + number, number)


def test_a_cause_that_the_flow_knows_is_recorded(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{say(cause='FlowRunGone', message='it was deleted')}; exit 1")
    assert node.run()[0] == 1
    assert (node.record().cause, node.record().message) == ("FlowRunGone", "it was deleted")


def test_reports_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    odd = 'echo "{no json" > "$HPC_BRIDGE_REPORTS"'
    node = Node(tmp_path, f"{say(memory=17)}; {odd}; {DONE}")
    assert node.run() == (0, "", "")
    assert node.record().flow_state == "COMPLETED"


def test_the_flows_own_process_reports_through_any_launcher(tmp_path: Path) -> None:
    """It goes by name: a launcher closes descriptors that it does not know."""
    call = "from hpc_bridge.node.reports import report; report(flow_state='COMPLETED')"
    python = f"{shlex.quote(sys.executable)} -c {shlex.quote(call)}"
    closing = " ".join(f"{number}>&-" for number in range(3, 10))
    node = Node(tmp_path, f"exec {python} {closing}")
    assert node.run() == (0, "", "")
    assert node.record().flow_state == "COMPLETED"


@pytest.mark.parametrize("path", [None, "/no/such/reports", "fifo"])
def test_a_supervisor_that_cannot_be_told_is_no_failure_of_the_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    os.mkfifo(tmp_path / "fifo")  # which nobody reads
    if path is not None:
        monkeypatch.setenv("HPC_BRIDGE_REPORTS", str(tmp_path / path))
    report(flow_state="COMPLETED")


def test_what_the_flow_leaves_running_is_ended(tmp_path: Path) -> None:
    # It holds the output open: without an end the reading of it would not end either.
    node = Node(tmp_path, f"sleep 20 & {DONE}; exit 4")
    assert node.run()[0] == 4


def test_what_leaves_the_flows_process_group_does_not_hold_the_job(tmp_path: Path) -> None:
    left, leave = tmp_path / "left", tmp_path / "leave"
    outside = f"touch {left}; until [ -e {leave} ]; do sleep 0.1; done"
    daemon = f"setsid bash -c {shlex.quote(outside)} > /dev/null 2>&1 &"
    node = Node(tmp_path, f"{daemon} until [ -e {left} ]; do sleep 0.02; done; {DONE}; exit 4")
    assert node.run()[0] == 4
    leave.touch()


def test_a_report_that_breaks_off_does_not_hold_the_job(tmp_path: Path) -> None:
    node = Node(tmp_path, f"""{DONE}; printf '{{"cause": ' > "$HPC_BRIDGE_REPORTS"; exit 4""")
    with node.started() as process:
        assert process.wait(DEADLINE) == 4


# reporting


def test_prefect_is_never_imported_by_the_supervisor(tmp_path: Path) -> None:
    node = Node(tmp_path, DONE)
    assert POISON not in node.run()[2]


@pytest.mark.parametrize(
    "command", ["exit 3", "exit 0", "kill -KILL $$", f"{say(cause='FlowRunGone')}; exit 1"]
)
def test_an_end_that_the_flow_has_not_said_is_reported_by_another_process(
    tmp_path: Path, command: str
) -> None:
    node = Node(tmp_path, command)
    code, _, stderr = node.run()
    assert POISON in stderr
    assert node.record().exit_code == code  # written before, and whatever becomes of the report


def given(stderr: str) -> ExitRecord:
    """The record that the reporting process got on its standard input."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("given: ")]
    return ExitRecord(**json.loads(line.removeprefix("given: ")))


def test_the_report_is_given_the_record(tmp_path: Path) -> None:
    node = Node(tmp_path, "kill -SEGV $$")
    _, _, stderr = node.run()
    assert given(stderr) == node.record()
    assert (given(stderr).signal, given(stderr).exit_code) == (11, 139)


def test_a_record_that_cannot_be_written_does_not_stop_the_report(tmp_path: Path) -> None:
    node = Node(tmp_path, "exit 3")
    node.attempt.exit_record.mkdir()  # as on a full disk
    code, _, stderr = node.run()
    assert code == 3
    assert "hpc-bridge: the exit record cannot be written: " in stderr
    assert (given(stderr).exit_code, given(stderr).stage) == (3, "flow")


# signals


def test_a_termination_is_forwarded_and_recorded(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{FINISH}; trap 'finish; exit 9' TERM; {WAIT}")
    assert node.run_signalled(signal.SIGTERM)[0] == 9
    assert (node.record().exit_code, node.record().terminated) == (9, True)


@pytest.mark.parametrize("name", ["INT", "HUP", "USR1", "USR2"])
def test_other_signals_are_forwarded_too(tmp_path: Path, name: str) -> None:
    node = Node(tmp_path, f"{FINISH}; trap 'finish; exit 9' {name}; {WAIT}")
    assert node.run_signalled(signal.Signals[f"SIG{name}"])[0] == 9
    assert not node.record().terminated


def test_a_flow_that_dies_of_the_termination_is_recorded_as_terminated(tmp_path: Path) -> None:
    node = Node(tmp_path, "echo ready; exec sleep 20")
    assert node.run_signalled(signal.SIGTERM)[0] == 143
    assert (node.record().signal, node.record().terminated) == (15, True)


def test_the_warning_reaches_a_flow_that_catches_it(tmp_path: Path) -> None:
    command = f"{FINISH}; trap 'echo warned; finish; exit 5' USR1; {WAIT}"
    node = Node(tmp_path, command, spec={"warning": "USR1@60"})
    assert node.run_signalled(signal.SIGUSR1)[:2] == (5, "warned\n")
    assert not node.record().terminated


# bash may keep a signal that comes just before its `wait`; Python does not.
_ENDING = """
import os, signal, sys, time
from hpc_bridge.node.reports import report
def end(*_):
    os.write(1, b"ended\\n")
    report(flow_state="CRASHED")
    sys.exit(6)
signal.signal(signal.SIGTERM, end)
os.write(1, b"ready\\n")
time.sleep(20)
"""
ENDING = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(_ENDING)}"
HOUR = {"warning": "USR1@60", "walltime": "01:00:00"}


def test_the_warning_ends_a_flow_that_does_not_catch_it(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec={"warning": "USR1@60"})
    assert node.run_signalled(signal.SIGUSR1)[:2] == (6, "ended\n")
    assert node.record().cause == "WalltimeExceeded"
    assert "warning signal" in node.record().message  # whose end nobody has told it


def test_a_warning_at_its_time_says_what_was_asked_for(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 60)
    code, _, stderr = node.run_signalled(signal.SIGUSR1)
    record = node.record()
    assert (code, record.cause, record.resubmit) == (6, "WalltimeExceeded", False)
    assert "s before the end of the walltime of 01:00:00. Ask for a longer" in record.message
    assert given(stderr).message == record.message
    assert f"hpc-bridge: {record.message}" in stderr


def test_a_warning_that_comes_too_early_is_kept_until_its_time(tmp_path: Path) -> None:
    """Slurm sends it up to a minute before it is due."""
    end = int(time.time()) + 63
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(end)
    assert node.run_signalled(signal.SIGUSR1)[0] == 6
    assert time.time() >= end - 60


def test_a_flow_that_is_done_before_a_kept_warning_is_due_never_gets_it(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{DONE}; echo ready; read -t 0.5 < <(sleep 1); exit 0", spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 120)
    assert node.run_signalled(signal.SIGUSR1)[0] == 0
    assert (node.record().cause, node.record().signal) == ("", None)


def test_a_warning_whose_end_was_moved_forward_is_handed_on_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 3600)
    started = time.monotonic()
    assert node.run_signalled(signal.SIGUSR1)[0] == 6
    assert time.monotonic() - started < 10
    assert node.record().message == WARNED  # it may also be a preemption


def test_a_termination_is_not_kept_with_the_warning(tmp_path: Path) -> None:
    node = Node(tmp_path, ENDING, spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 120)
    assert node.run_signalled(signal.SIGUSR1, signal.SIGTERM)[0] == 6
    assert (node.record().cause, node.record().terminated) == ("", True)


def test_a_flow_that_does_not_end_when_warned_is_killed_in_time_to_say_so(tmp_path: Path) -> None:
    node = Node(tmp_path, f"trap '' TERM; {WAIT}", spec=HOUR)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 4)
    code, _, stderr = node.run_signalled(signal.SIGUSR1)
    assert time.time() < int(node.job["SLURM_JOB_END_TIME"])
    assert (code, node.record().signal, node.record().cause) == (137, 9, "WalltimeExceeded")
    assert "of its warning before the walltime; killing it" in stderr
    assert given(stderr) == node.record()


def resubmitting(tmp_path: Path, command: str, done: int = 0) -> Node:
    spec = HOUR | {"on_walltime": "resubmit", "max_resubmissions": 3}
    return Node(tmp_path, command, spec=spec, resubmissions=done)


def test_a_flow_that_dies_of_the_warning_is_to_go_on_in_a_new_job(tmp_path: Path) -> None:
    node = resubmitting(tmp_path, "echo ready; exec sleep 20", done=2)
    _, _, stderr = node.run_signalled(signal.SIGUSR1)
    record = node.record()
    assert (record.cause, record.resubmit) == ("WalltimeExceeded", True)
    assert record.message.startswith("Resubmission 3 of at most 3: the walltime of 01:00:00")
    assert given(stderr).resubmit  # for the process that reports it


def test_the_last_resubmission_ends_by_its_walltime(tmp_path: Path) -> None:
    node = resubmitting(tmp_path, "echo ready; exec sleep 20", done=3)
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 60)
    node.run_signalled(signal.SIGUSR1)
    record = node.record()
    assert (record.cause, record.resubmit) == ("WalltimeExceeded", False)
    assert "resubmitted as often as max_resubmissions=3 allows" in record.message


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
def test_a_flow_that_ended_by_itself_does_not_go_on(tmp_path: Path, state: str) -> None:
    end = f"end() {{ {say(flow_state=state)}; }}"
    node = resubmitting(tmp_path, f"{end}; trap 'end; exit 1' USR1; {WAIT}")
    _, _, stderr = node.run_signalled(signal.SIGUSR1)
    assert (node.record().cause, node.record().resubmit) == ("", False)
    assert POISON not in stderr


def test_a_flow_that_is_cancelled_after_its_warning_does_not_go_on(tmp_path: Path) -> None:
    node = resubmitting(tmp_path, "trap '' TERM; echo ready; exec sleep 20")
    node.job["SLURM_JOB_END_TIME"] = str(int(time.time()) + 9)
    node.run_signalled(signal.SIGUSR1, signal.SIGTERM)
    record = node.record()
    assert (record.signal, record.terminated, record.resubmit) == (9, True, False)


def test_what_the_flow_has_told_the_server_is_not_told_again(tmp_path: Path) -> None:
    told = {"cause": "WalltimeExceeded", "message": "m", "resubmit": True, "told": True}
    node = Node(tmp_path, f"{say(flow_state='PENDING', **told)}; exit 143")
    assert POISON not in node.run()[2]
    record = node.record()
    assert (record.flow_state, record.cause, record.resubmit) == (
        "PENDING",
        "WalltimeExceeded",
        True,
    )


def test_a_warning_that_came_before_the_supervisor_is_taken(tmp_path: Path) -> None:
    node = Node(tmp_path, "exec sleep 20", spec={"warning": "USR1@60"})
    node.arguments = ["HUP", "USR1"]
    assert node.run()[0] in (128 + signal.SIGHUP, 128 + signal.SIGTERM)
    assert node.record().cause == "WalltimeExceeded"


def test_an_arrays_element_is_named_as_squeue_does(tmp_path: Path) -> None:
    node = Node(tmp_path, DONE)
    node.job |= {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "2"}
    node.run()
    assert node.record().job_id == "40_2"


def test_a_flow_that_finishes_after_its_warning_has_no_cause_of_failure(tmp_path: Path) -> None:
    command = f"{FINISH}; trap 'finish; exit 0' USR1; {WAIT}"
    node = Node(tmp_path, command, spec={"warning": "USR1@60"})
    code, _, stderr = node.run_signalled(signal.SIGUSR1)
    assert (code, node.record().flow_state, node.record().cause) == (0, "COMPLETED", "")
    assert POISON not in stderr


def test_a_signal_that_is_not_the_warning_explains_nothing(tmp_path: Path) -> None:
    command = f"{FINISH}; trap 'finish; exit 5' USR2; {WAIT}"
    node = Node(tmp_path, command, spec={"warning": "USR1@60"})
    assert node.run_signalled(signal.SIGUSR2)[0] == 5
    assert node.record().cause == ""


def test_a_termination_is_never_taken_for_the_warning(tmp_path: Path) -> None:
    """It may be a cancellation or a preemption."""
    node = Node(
        tmp_path, f"{FINISH}; trap 'finish; exit 5' TERM; {WAIT}", spec={"warning": "TERM@60"}
    )
    assert node.run_signalled(signal.SIGTERM)[0] == 5
    assert (node.record().cause, node.record().terminated) == ("", True)


@pytest.mark.parametrize(("name", "cause"), [("TERM", ""), ("USR1", "WalltimeExceeded")])
def test_a_signal_before_the_flow_exists_is_handed_on_once_it_does(
    tmp_path: Path, name: str, cause: str
) -> None:
    node = Node(tmp_path, "exec sleep 20", spec={"warning": "USR1@60"})
    env = node.run_dir / "env"
    env.unlink()
    os.mkfifo(env)
    with node.started() as process:
        with env.open("wb"):  # it listens for signals, and reads this before the flow starts
            process.send_signal(signal.Signals[f"SIG{name}"])
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 143
    record = node.record()
    assert (record.stage, record.signal, record.cause) == ("flow", 15, cause)
    assert record.terminated is (name == "TERM")


def ignored(status: str) -> set[int]:
    """Signals that a process ignores, from its /proc/PID/status."""
    (line,) = [line for line in status.splitlines() if line.startswith("SigIgn:")]
    mask = int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_a_flow_in_a_job_of_the_shell_is_not_deaf_to_interrupts(tmp_path: Path) -> None:
    """bash starts what it puts into the background with SIGINT ignored, and children inherit it."""
    node = Node(tmp_path, f"{DONE}; exec cat /proc/self/status")
    # as the job script does it
    code, stdout, _ = node.run("bash", "-c", '"$@" & wait "$!"', "bash")
    assert code == 0
    assert not ignored(stdout) & {signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1}


def test_a_flow_that_reads_its_input_finds_it_empty(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{DONE}; cat; echo end")
    assert node.run()[:2] == (0, "end\n")


# the environment


def test_the_env_file_and_the_attempt_reach_the_flow(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{DONE}; env -0")
    odd = {"LINES": "one\ntwo", "QUOTES": 'it\'s "x" $y', "UNICODE": "ü ✓", "EMPTY": ""}
    node.variables(**odd, PATH_OF_THE_CALLER="/x")
    _, stdout, _ = node.run()
    environment = dict(entry.split("=", 1) for entry in stdout.split("\0") if entry)
    assert odd.items() <= environment.items()
    assert node.attempt.environment().items() <= environment.items()
    assert environment["SLURM_JOB_ID"] == "42"


def test_the_env_file_cannot_name_another_attempt(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{DONE}; echo $HPC_BRIDGE_ELEMENT $HPC_BRIDGE_ATTEMPT")
    node.variables(HPC_BRIDGE_ELEMENT="7", HPC_BRIDGE_ATTEMPT="7")
    assert node.run()[1] == "0 0\n"


# the working directory


def test_a_flow_runs_in_a_fresh_folder_of_its_attempt(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{DONE}; pwd")
    assert node.run()[1] == f"{node.attempt.folder / 'work'}\n"


@pytest.mark.parametrize("implied", [True, False])
def test_a_flow_runs_where_it_was_asked_for(tmp_path: Path, implied: bool) -> None:
    asked = tmp_path / "as ked"
    asked.mkdir()
    more = {"working_directory": str(asked), "working_directory_implied": implied}
    node = Node(tmp_path, f"{DONE}; pwd", **more)
    assert node.run()[:2] == (0, f"{asked}\n")


def test_a_missing_working_directory_is_named(tmp_path: Path) -> None:
    asked = tmp_path / "missing"
    node = Node(tmp_path, "echo started", working_directory=str(asked))
    code, stdout, stderr = node.run()
    record = node.record()
    assert (code, stdout) == (72, "")
    assert (record.exit_code, record.stage, record.cause) == (
        72,
        "python",
        "WorkingDirectoryMissing",
    )
    assert f"the working directory {asked} does not exist on {record.node}" in record.message
    assert record.message in stderr


def test_a_missing_folder_of_the_call_is_replaced_and_said(tmp_path: Path) -> None:
    """The flow was called on a laptop."""
    more = {"working_directory": "/home/laptop", "working_directory_implied": True}
    node = Node(tmp_path, f"{DONE}; pwd", **more)
    code, stdout, stderr = node.run()
    assert (code, stdout) == (0, f"{node.attempt.folder / 'work'}\n")
    assert "/home/laptop, where the flow was called, does not exist" in stderr


# what cannot be started


def test_a_bundle_of_this_python_is_run(tmp_path: Path) -> None:
    assert Node(tmp_path, DONE, bundle_python=OURS).run()[0] == 0


def test_a_bundle_of_another_python_is_refused_naming_both(tmp_path: Path) -> None:
    node = Node(tmp_path, "echo started", bundle_python="3.7")
    code, stdout, stderr = node.run()
    record = node.record()
    assert (code, stdout, record.exit_code, record.cause) == (78, "", 78, "VersionMismatch")
    assert f"packed by Python 3.7 but {sys.executable} on" in record.message
    assert f"is Python {OURS}" in record.message
    assert record.message in stderr
    assert POISON in stderr  # it is reported


@pytest.mark.parametrize("launcher", ["/no/such/python", "no-such-launcher --option"])
def test_a_launcher_that_cannot_be_started_is_named(tmp_path: Path, launcher: str) -> None:
    node = Node(tmp_path, f"{launcher} -m hpc_bridge.node.execute --key x")
    assert node.run()[0] == 126
    record = node.record()
    assert (record.cause, record.stage) == ("LauncherFailed", "python")
    assert record.message.startswith(f"{launcher.split()[0]} cannot be started: No such file")


def test_a_launcher_of_the_flows_own_starts_its_process(tmp_path: Path) -> None:
    node = Node(tmp_path, "echo -m hpc_bridge.node.execute --key x")
    assert node.run()[1] == "-m hpc_bridge.node.execute --key x\n"


def test_the_default_launcher_is_the_python_of_the_job(tmp_path: Path) -> None:
    """And that does import Prefect."""
    node = Node(tmp_path, "python -m hpc_bridge.node.execute --key x", flow_runs={"0": "0" * 32})
    _, _, stderr = node.run()
    assert POISON in stderr
    assert node.record().stage == "flow"


def test_a_report_that_is_no_object_hides_no_later_one(tmp_path: Path) -> None:
    node = Node(tmp_path, f'echo 17 > "$HPC_BRIDGE_REPORTS"; {DONE}')
    assert node.run()[0] == 0
    assert node.record().flow_state == "COMPLETED"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    node = Node(tmp_path, DONE)
    (node.attempt.folder / "work").write_text("in the way\n")
    assert node.run()[0] == 71
    assert (node.record().cause, node.record().exit_code) == ("NodeNotUsable", 71)
    assert "cannot be started" in node.record().message
