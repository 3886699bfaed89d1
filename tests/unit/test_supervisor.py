"""The supervisor: how a flow's process starts and ends, and what is recorded and reported of it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from datetime import datetime
from pathlib import Path

import pytest

from hpc_bridge.node.reports import report
from tests.unit.supervised import DEADLINE, DONE, POISON, Node, given, say

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"


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


def test_an_arrays_element_is_named_as_squeue_does(tmp_path: Path) -> None:
    node = Node(tmp_path, DONE)
    node.job |= {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "2"}
    node.run()
    assert node.record().job_id == "40_2"


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


def test_a_report_that_is_no_object_hides_no_later_one(tmp_path: Path) -> None:
    node = Node(tmp_path, f'echo 17 > "$HPC_BRIDGE_REPORTS"; {DONE}')
    assert node.run()[0] == 0
    assert node.record().flow_state == "COMPLETED"


# the environment


def test_a_flow_that_reads_its_input_finds_it_empty(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{DONE}; cat; echo end")
    assert node.run()[:2] == (0, "end\n")


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


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    node = Node(tmp_path, DONE)
    (node.attempt.folder / "work").write_text("in the way\n")
    assert node.run()[0] == 71
    assert (node.record().cause, node.record().exit_code) == ("NodeNotUsable", 71)
    assert "cannot be started" in node.record().message
