"""The doctor's probe job, whose script runs here as it would on a node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from hpc_bridge.doctor.probe import ask_node
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import SettingsError
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.settings import load_settings
from hpc_bridge.workers import submission
from hpc_bridge.workers.configuration import BatchJobConfiguration
from tests.unit.fake_cluster import FakeCluster

NOBODY = "http://127.0.0.1:9/api"


class Node(FakeCluster):
    """Starts each job at once, unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = True
        self.end: JobStatus | None = None
        self.interrupted_in = ""
        self.cancelled: list[JobId] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def submit(self, script: str, name: str) -> JobId:
        job_id = super().submit(script, name)
        if self.interrupted_in == "submit":
            raise KeyboardInterrupt
        if self.starts:
            process = subprocess.Popen(
                ["bash", "-s"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            assert process.stdin is not None
            process.stdin.write(script.encode())
            process.stdin.close()
            self.processes.append(process)
        return job_id

    def find(self, name: str) -> list[JobStatus]:
        if self.interrupted_in == "find":
            self.interrupted_in = ""
            raise KeyboardInterrupt
        return super().find(name) if self.end is None else []

    def history(self, jobs: Collection[JobId], since: datetime) -> dict[JobId, JobStatus]:
        return {} if self.end is None else {job: replace(self.end, job_id=job) for job in jobs}

    def cancel(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> None:
        self.cancelled += jobs


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """What the subject's jobs go to."""
    node = Node()
    monkeypatch.setattr(Subject, "cluster", property(lambda _: node))
    yield node
    for process in node.processes:
        process.wait(20)


@pytest.fixture
def subject(shared: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A user with a shared directory and a server that does not answer."""
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", str(shared))
    monkeypatch.setenv("HPC_BRIDGE_API_URL", NOBODY)
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", sys.executable)
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "slurm")
    return Subject(load_settings())


def leftovers(shared: Path) -> list[str]:
    return [path.name for folder in ("runs", "live") for path in (shared / folder).iterdir()]


def test_a_node_that_works_answers_everything(subject: Subject, node: Node, shared: Path) -> None:
    answers = ask_node(subject, 20)
    assert answers.started
    assert answers.round_trip is not None
    assert answers.said["python"] == sys.executable == answers.said["own_python"]
    assert answers.python is not None
    assert answers.python["version"] == ".".join(map(str, sys.version_info[:3]))
    assert all(answers.python["packages"].values()), answers.python["errors"]
    assert answers.server is not None
    assert (answers.server["url"], answers.server["problem"]) == (NOBODY, "refused")
    assert answers.exit_record is not None
    assert node.cancelled == []
    assert leftovers(shared) == []


def test_an_environment_stands_for_its_interpreter(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").write_text("#!/bin/sh\necho Python 2.7 >&2; exit 3\n")
    (tmp_path / "env" / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", str(tmp_path / "env"))
    answers = ask_node(Subject(load_settings()), 20)
    assert answers.said["python"] == str(tmp_path / "env/bin/python")
    assert answers.said["python_version"] == "Python 2.7"
    assert (answers.python, answers.python_error) == (None, "Python 2.7")
    assert answers.server is not None  # another Python has asked


def test_no_python_is_no_answer(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "/nowhere/python")
    answers = ask_node(Subject(load_settings()), 20)
    assert answers.finished
    assert "python" not in answers.said


def test_settings_that_are_missing_do_not_keep_it_from_starting(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a cluster elsewhere, where neither this Python nor this server's address counts."""

    def missing(configuration: BatchJobConfiguration, *_: object) -> str:
        if configuration.python:
            return configuration.python
        raise SettingsError("it is not known")

    monkeypatch.delenv("HPC_BRIDGE_PYTHON")
    monkeypatch.setattr(BatchJobConfiguration, "interpreter", property(missing))
    monkeypatch.setattr(submission, "api_url", missing)
    answers = ask_node(Subject(load_settings()), 20)
    assert answers.finished
    assert "python" not in answers.said
    assert answers.server is None


def test_a_setup_line_that_fails_ends_it_in_words(
    subject: Subject, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SETUP", '["ls /not/there"]')
    answers = ask_node(Subject(load_settings()), 20)
    assert answers.exit_record is not None
    assert answers.exit_record.cause == "SetupFailed"
    assert "ls /not/there" in answers.exit_record.message
    assert not answers.started
    assert leftovers(shared) == []


def test_a_job_that_does_not_start_in_time_is_cancelled(
    subject: Subject, node: Node, shared: Path
) -> None:
    node.starts = False
    answers = ask_node(subject, 0.3)
    assert not answers.started
    assert answers.status is not None
    assert answers.status.state is JobState.PENDING
    assert answers.waited >= 0.3
    assert node.cancelled == [JobId("100")]
    assert leftovers(shared) == []


def test_a_job_that_could_not_open_its_output_is_not_waited_for(
    subject: Subject, node: Node, shared: Path
) -> None:
    node.starts = False
    node.end = JobStatus(JobId("0"), "hb", JobState.FAILED, "FAILED", signal=53, nodes="c1")
    answers = ask_node(subject, 60)
    assert answers.status is not None
    assert (answers.status.signal, answers.node) == (53, "c1")
    assert answers.waited < 10
    assert node.cancelled == []
    assert leftovers(shared) == []


@pytest.mark.parametrize("where", ["submit", "find"])
def test_an_interrupted_doctor_leaves_nothing_behind(
    where: str, subject: Subject, node: Node, shared: Path
) -> None:
    node.starts, node.interrupted_in = False, where
    with pytest.raises(KeyboardInterrupt):
        ask_node(subject, 60)
    assert node.cancelled == [JobId("100")]
    assert leftovers(shared) == []


def test_the_credentials_are_not_in_the_script(subject: Subject, node: Node) -> None:
    node.starts = False
    with temporary_settings({PREFECT_API_AUTH_STRING: "admin:topsecret"}):
        ask_node(subject, 0)
    assert "topsecret" not in node.scripts[0]
