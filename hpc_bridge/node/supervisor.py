"""The small process between the job script and the flow. Standard library only.

It starts the flow's process, hands signals on, ends what does not end itself, and writes the exit
record. The flow's process imports Prefect once; this one never does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from hpc_bridge.node.attempt import REPORTS, Attempt
from hpc_bridge.node.records import WALLTIME_EXCEEDED, ExitRecord, write_exit_record
from hpc_bridge.node.walltime import Notice, Walltime

CANCEL_GRACE_SECONDS = 30.0
_FORWARDED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_REPORT_TIMEOUT = 60.0
_SHARE_OF_THE_FLOW = 2 / 3
"""Of the time between the warning and the end; the rest is for saying how it ended."""
_NO_MORE = b"no more\n"  # after a line of its own, since the last report may have broken off


class _CannotStart(Exception):
    def __init__(self, cause: str, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.cause = cause
        self.exit_code = exit_code


class Supervisor:
    """Runs one attempt; ``run`` returns the job's exit code."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        early: Sequence[int] = (),
        cancel_grace: float = CANCEL_GRACE_SECONDS,
    ) -> None:
        self._attempt = attempt
        self._submission = attempt.submission()
        self._record = ExitRecord(
            job_id=job_id(os.environ),
            node=socket.gethostname(),
            stage="python",
            started=_now(),
        )
        self._environment: dict[str, str] = dict(os.environ)
        self._child: subprocess.Popen[bytes] | None = None
        self._cancel_grace = cancel_grace
        self._early_signals: list[int] = list(early)
        self._walltime = Walltime(self._submission, os.environ)
        self._reports: Path | None = None
        self._held_back: threading.Timer | None = None
        self._notice: Notice | None = None
        self._told = False

    def run(self) -> int:
        """Run the flow's process to its end and leave the exit record."""
        for number in (signal.SIGTERM, *_FORWARDED):
            signal.signal(number, self._on_signal)
        try:
            self._environment |= self._attempt.variables() | self._attempt.environment()
            self._check_python()
            code = self._run_child(self._argv(), self._folder())
        except _CannotStart as error:
            _say(str(error))
            self._record.cause, self._record.message = error.cause, str(error)
            code = error.exit_code
        except OSError as error:  # no room below TMPDIR or in the run directory, for instance
            self._record.cause = "NodeNotUsable"
            self._record.message = f"the flow cannot be started on {self._record.node}: {error}"
            _say(self._record.message)
            code = 71
        self._conclude()
        self._record.exit_code = code
        self._record.ended = _now()
        try:
            write_exit_record(self._attempt.exit_record, self._record)
        except OSError as error:
            _say(f"the exit record cannot be written: {error}")
        if not self._told and (not self._record.flow_state or self._record.cause):
            self._report()
        return code

    def _conclude(self) -> None:
        """What the warning has meant in the end."""
        if self._record.cause != WALLTIME_EXCEEDED:
            return
        if self._record.flow_state in ("COMPLETED", "FAILED", "CANCELLED"):
            self._record.cause = self._record.message = ""  # done in time
        elif not self._record.flow_state and self._notice is not None and not self._notice.caught:
            self._record.resubmit = self._notice.resubmit

    def _check_python(self) -> None:
        """Code objects in a bundle are only good for the minor version that wrote them."""
        theirs = self._submission.get("bundle_python")
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        if theirs and theirs != ours:
            raise _CannotStart(
                "VersionMismatch",
                f"the flow was packed by Python {theirs} but {sys.executable} on"
                f" {self._record.node} is Python {ours}; set 'python' to an environment with"
                f" Python {theirs} on the node, or submit with Python {ours}",
                78,
            )

    def _argv(self) -> list[str]:
        """The flow's process: ours by the flow's launcher, or a command of the user's."""
        command = self._submission.get("command")
        if command is None:
            return [sys.executable, "-P", "-m", "hpc_bridge.node.execute"]
        argv = shlex.split(command)
        if "hpc_bridge.node.execute" not in argv:
            return ["/bin/bash", "-c", command]
        if argv[0] == "python":
            return [sys.executable, "-P", *argv[1:]]
        return argv

    def _folder(self) -> Path:
        """Where the flow runs; a fresh folder of the attempt unless one was asked for."""
        asked = self._submission.get("working_directory")
        if asked and Path(asked).is_dir():
            return Path(asked)
        if asked and not self._submission.get("working_directory_implied"):
            raise _CannotStart(
                "WorkingDirectoryMissing",
                f"the working directory {asked} does not exist on {self._record.node}; name a"
                " folder that compute nodes see, or leave working_directory out",
                72,
            )
        fresh = self._attempt.folder / "work"
        fresh.mkdir(exist_ok=True)
        if asked:
            _say(
                f"{asked}, where the flow was called, does not exist on {self._record.node};"
                f" running in {fresh}"
            )
        return fresh

    def _run_child(self, argv: list[str], folder: Path) -> int:
        with tempfile.TemporaryDirectory(prefix="hpc-bridge-") as private:
            # By name, not by descriptor: launchers close what they do not know.
            reports = self._reports = Path(private) / "reports"
            os.mkfifo(reports, 0o600)
            with reports.open("r+b", buffering=0) as pipe:
                reader = threading.Thread(target=self._read_reports, args=(pipe,), daemon=True)
                _start(reader)
                try:
                    code = self._wait_for_child(argv, folder, reports)
                finally:
                    pipe.write(b"\n" + _NO_MORE)
                    reader.join()
        if code < 0:
            self._record.signal = -code
            return 128 - code
        return code

    def _wait_for_child(self, argv: list[str], folder: Path, reports: Path) -> int:
        try:
            self._child = subprocess.Popen(
                argv,
                cwd=folder,
                env=self._environment | {REPORTS: str(reports)},
                process_group=0,
            )
        except OSError as error:
            raise _CannotStart(
                "LauncherFailed", f"{argv[0]} cannot be started: {error.strerror}", 126
            ) from error
        self._record.stage = "flow"
        for number in self._early_signals:
            self._hand_on(number)
        code = self._child.wait()
        self._end_group()
        if self._held_back is not None:
            self._held_back.cancel()
        return code

    def _read_reports(self, pipe: IO[bytes]) -> None:
        """Lines of JSON from the flow's process; unknown ones are for a newer supervisor."""
        rest = b""
        while True:
            *lines, rest = (rest + pipe.read(4096)).split(b"\n")
            for line in lines:
                if line + b"\n" == _NO_MORE:
                    return
                with contextlib.suppress(ValueError):
                    report = json.loads(line)
                    if isinstance(report, dict):
                        self._take_report(report)

    def _take_report(self, report: dict[str, Any]) -> None:
        if "flow_state" in report:
            self._record.flow_state = report["flow_state"]
        if "cause" in report:
            self._record.cause = report["cause"]
            self._record.message = report.get("message", "")
        if "resubmit" in report:
            self._record.resubmit = report["resubmit"]
        if report.get("told"):  # the server knows it, cause and all
            self._told = True
        if report.get("cancelling"):
            _after(self._cancel_grace, self._kill, self._cancel_grace, "cancellation", "Cancelled")

    def _kill(self, seconds: float, what: str, cause: str) -> None:
        if self._child is not None and self._child.poll() is None:
            _say(f"the flow did not end within {seconds:.0f} s of its {what}; killing it")
            self._record.cause = cause
            self._end_group()

    def _end_group(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            self._record.terminated = True
            now = time.time()
            if self._walltime.is_warned_by(number, now):
                notice = self._walltime.notice(now, caught=False)
                self._record.cause, self._record.message = WALLTIME_EXCEEDED, notice.message
        if self._child is None:
            self._early_signals.append(number)
        else:
            self._hand_on(number)

    def _hand_on(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._forget_the_warning()
        elif number == self._walltime.signal:
            seconds = self._walltime.hold_back(time.time())
            if seconds and self._held_back is None:
                self._held_back = _after(seconds, self._warn)
            elif not seconds:
                self._warn()
            return
        if self._child is not None:
            self._child.send_signal(number)  # which does nothing when it is over

    def _warn(self) -> None:
        """Hand the warning on: to the flow when it catches it, else as a termination."""
        number = self._walltime.signal
        if self._child is None or self._reports is None or number is None or self._notice:
            return
        now = time.time()
        caught = _catches(self._child.pid, number)
        self._notice = self._walltime.notice(now, caught=caught)
        self._record.cause, self._record.message = WALLTIME_EXCEEDED, self._notice.message
        with contextlib.suppress(OSError):  # a full disk: then the report says it
            self._notice.write(self._reports)
        if not caught:
            _say(self._notice.message)
            # What does not end by itself must leave time to report it.
            grace = self._walltime.left(now) * _SHARE_OF_THE_FLOW
            _after(grace, self._kill, grace, "warning before the walltime", WALLTIME_EXCEEDED)
        self._child.send_signal(number if caught else signal.SIGTERM)

    def _forget_the_warning(self) -> None:
        """A termination before the end is somebody's cancel, and a cancelled run is not gone on."""
        if self._held_back is not None:
            self._held_back.cancel()
        if self._notice is not None and not self._notice.is_at_end(time.time()):
            self._notice = None

    def _report(self) -> None:
        """Let a process with Prefect say what the flow's own process no longer could."""
        argv = [sys.executable, "-P", "-m", "hpc_bridge.node.report"]
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            subprocess.run(
                argv,
                env=self._environment,
                input=json.dumps(asdict(self._record)).encode(),
                timeout=_REPORT_TIMEOUT,
                check=False,
            )


def _say(text: str) -> None:
    # Also from a signal handler, where print could find itself interrupted.
    os.write(2, f"hpc-bridge: {text}\n".encode(errors="replace"))


def _after(seconds: float, call: Callable[..., None], *arguments: Any) -> threading.Timer:
    timer = threading.Timer(seconds, call, arguments)
    timer.daemon = True
    _start(timer)
    return timer


def _start(thread: threading.Thread) -> None:
    """With all signals blocked in it: one that is given to it would not end the main one's wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def job_id(variables: Mapping[str, str]) -> str:
    """The job's id as the scheduler shows it: ``123``, of an array's element ``123_4``.

    PBS has ``123.host`` and ``123[4].host``.
    """
    array, element = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    if array and element:
        return f"{array}_{element}"
    return variables.get("SLURM_JOB_ID") or variables.get("PBS_JOBID", "")


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for the signal (proc(5), SigCgt)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
