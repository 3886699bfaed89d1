"""Torque-style wrappers of Slurm (Debian's ``slurm-wlm-torque``): the dialect ``torque`` of PBS.

Read on those of Slurm 24.11: Perl programs that take Torque's options, call sbatch or Slurm's
library, and print Slurm's jobs in Torque's forms. Of a job that is over they say that it is, while
Slurm keeps it (``MinJobAge``), and never how it ended.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    InvalidJobSpec,
    SchedulerUnavailable,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers import torque_programs as programs
from hpc_bridge.schedulers.base import Answer, Commands, Demand, Queue, Scheduler, newest_first
from hpc_bridge.schedulers.pbs_fields import seconds

_AS_ON_PATH = Commands()
COMMANDS = ("qsub", "qstat", "qdel")
"""Those that a site may have a path or wrapper for."""

# qstat -u: id, user, queue, name, session, nodes, tasks, memory, walltime, state, elapsed.
_JOB = re.compile(r"(\d+) +\S+ +\S+ +(.*?) +--(?: +\S+){4} +([A-Z]) \S+ *", re.ASCII)
# qstat -q: name, memory, CPU time, walltime, nodes, running, waiting, limit, enabled, started.
_QUEUE = re.compile(
    r"(?P<name>.{16})   --      --  +(?P<walltime>[\d:]+|--) +(?:\d+|--) +(?P<running>\d+)"
    r" +(?P<waiting>\d+) --  (?P<state>\w \w) *",
    re.ASCII,
)
_LIVE = {"Q": JobState.PENDING, "R": JobState.RUNNING, "S": JobState.SUSPENDED}
_OVER = frozenset("CU")
"""U: out of memory, or past its deadline."""
_NOT_TOLD = "over, and qstat does not say how it ended"

# The wrapper hands what it is given to a shell, as it is.
_SAFE = re.compile(r"(-[mMpP]) *([A-Za-z0-9_@%+=:,./-]+)", re.ASCII)
_UNAVAILABLE = re.compile(r"Problem loading|Unable to contact slurm controller|timed out", re.I)
_NOT_FOUND = re.compile(r"not found|No such file|Permission denied|cannot execute", re.I)
_PINNED = ("env", "LC_ALL=C", "TZ=UTC")
# Of what sbatch, which qsub calls, takes from no option: the job has nothing of the submitter's
# environment, and a requeued one goes on in the same output.
_FOR_SBATCH = ("SBATCH_IGNORE_PBS=1", "SBATCH_EXPORT=NONE", "SBATCH_OPEN_MODE=append")


class TorqueScheduler(Scheduler):
    """Slurm as its Torque-style wrappers show it: no arrays, no records, no reasons."""

    name = "pbs"
    template = "torque.sh.j2"
    directive_prefix = "#PBS "
    has_records = False
    leaked_variables = ("SLURM_*", "SLURMD_*", "SBATCH_*", "PBS_*", "PMI_*", "PMIX_*")

    def __init__(self, commands: Commands = _AS_ON_PATH) -> None:
        """``commands`` are a site's. Raises SettingsError for one that there is not."""
        commands.check(COMMANDS)
        self.commands = commands

    def command(self, name: str) -> list[str]:
        """argv of one of the wrappers as the site wants it called, without its arguments."""
        pinned = ("env", "LC_ALL=C", *_FOR_SBATCH) if name == "qsub" else _PINNED
        return [*pinned, *self.commands.argv(name)]

    def submit_command(self, name: str) -> list[str]:
        return programs.submit(self.command("qsub"), name)

    def check_directives(self, directives: Sequence[str]) -> None:
        for line in directives:
            if not _SAFE.fullmatch(line.strip()):
                raise InvalidJobSpec(
                    f"directives: {line!r}: of a site that is asked through Torque-style wrappers"
                    " (scheduler.dialect) there are -m, -M, -p and -P, with one plain word each;"
                    " resources have options of their own"
                )

    def check_skipped(self, options: Sequence[str]) -> None:
        for option in options:
            if self.directive_option(option) in ("-N", "-o", "-j"):
                raise InvalidJobSpec(
                    f"directives: {option!r} is decided by hpc-bridge, which finds the job and its"
                    " output by it; leave it out"
                )

    def directive_option(self, directive: str) -> str:
        match = re.match(r"(-[lW]) *(\w+)", directive, re.ASCII)
        return f"{match[1]} {match[2]}" if match else directive[:2]

    def parse_submit(self, answer: Answer) -> JobId:
        if answer.exit_code != 0:
            raise self._error(answer, "qsub", SubmissionRefused, "Slurm refused the job")
        lines = answer.stdout.split()
        if not lines or not re.fullmatch(r"\d+", lines[-1], re.ASCII):
            raise UnexpectedOutput(f"qsub printed no job id but {answer.stdout[-200:]!r}")
        return JobId(lines[-1])

    def status_command(self, user: str) -> list[str]:
        return [*self.command("qstat"), "-u", user]

    def parse_status(self, answer: Answer) -> dict[JobId, JobStatus]:
        """Of the live jobs alone: one that is over may still have processes (``KillWait``)."""
        found = self._jobs(answer)
        return {job: status for job, status in found.items() if not status.state.is_terminal}

    # The contract's arguments: the wrappers tell no reason, and are never asked for records.
    def explain_reason(self, status: JobStatus) -> QueueReason | None:  # noqa: ARG002
        return None

    def history_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:  # noqa: ARG002
        self._has_no_records()

    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:  # noqa: ARG002
        self._has_no_records()

    def find_history_command(self, name: str, user: str, since: datetime) -> list[str]:  # noqa: ARG002
        self._has_no_records()

    def usage_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:  # noqa: ARG002
        self._has_no_records()

    def parse_usage(self, answer: Answer) -> dict[JobId, JobUsage]:  # noqa: ARG002
        self._has_no_records()

    def _has_no_records(self) -> NoReturn:
        raise NotImplementedError("Torque-style wrappers have no records of jobs that are over")

    def cancel_command(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> list[str]:
        ids = [job.value for job in jobs]
        if only_waiting:
            return programs.cancel_waiting(self.command("qstat"), self.command("qdel"), ids)
        return [*self.command("qdel"), *ids]

    def parse_cancel(self, answer: Answer) -> None:
        """Of a job that is over, or is not known, qdel says nothing."""
        if answer.exit_code != 0 and (answer.stdout.strip() or answer.stderr.strip()):
            raise self._error(answer, "qdel", CommandError, "qdel failed")

    def find_command(self, name: str, user: str) -> list[str]:
        return programs.named(self.command("qstat"), user, name)

    def parse_find(self, answer: Answer) -> list[JobStatus]:
        return newest_first(self._jobs(answer).values())

    def queue_command(self) -> list[str]:
        return [*self.command("qstat"), "-q"]

    def parse_queues(self, answer: Answer) -> Mapping[str, Queue]:
        """Without nodes: which queue has which is told nowhere."""
        return {
            name: Queue(
                name=name,
                is_default=False,
                state="up" if line["state"] == "E R" else "down",
                walltime_seconds=seconds(line["walltime"]),
            )
            for name, line in self._queues(answer).items()
        }

    def demand_command(self) -> list[str]:
        return self.queue_command()

    def parse_demand(self, answer: Answer) -> Mapping[str, Demand]:
        """Without CPUs."""
        return {
            name: Demand(running=int(line["running"]), waiting=int(line["waiting"]))
            for name, line in self._queues(answer).items()
        }

    def _jobs(self, answer: Answer) -> dict[JobId, JobStatus]:
        if answer.exit_code != 0:
            raise self._error(answer, "qstat", CommandError, "qstat failed")
        found: dict[JobId, JobStatus] = {}
        unknown: list[str] = []
        for line in answer.stdout.split("\n"):
            if not line[:1].isdigit():
                continue
            match = _JOB.fullmatch(line)
            word = match[3] if match else ""
            if match is None or (word not in _LIVE and word not in _OVER):
                unknown.append(line)
                continue
            job_id = JobId(match[1])
            found[job_id] = JobStatus(
                job_id=job_id,
                name=match[2],
                state=_LIVE.get(word, JobState.LOST),
                scheduler_state=word,
                reason=_NOT_TOLD if word in _OVER else None,
            )
        if unknown:
            raise UnexpectedOutput(f"qstat -u printed {unknown[0]!r}", readable=found)
        return found

    def _queues(self, answer: Answer) -> dict[str, re.Match[str]]:
        if answer.exit_code not in (0, programs.NO_JOBS):
            raise self._error(answer, "qstat", CommandError, "qstat failed")
        lines = map(_QUEUE.fullmatch, answer.stdout.split("\n"))
        found = {line["name"].strip(): line for line in lines if line is not None}
        if not found:
            raise UnexpectedOutput(f"qstat -q printed no queue but {answer.stdout[-200:]!r}")
        return found

    def _error(
        self, answer: Answer, name: str, kind: type[CommandError], what: str
    ) -> CommandError:
        words = answer.stderr.strip() or _output_of(answer.stdout) or "no message"
        message = f"{what}: {words}"
        if answer.exit_code in (126, 127) and _NOT_FOUND.search(words):
            entry = self.commands.entry(name)
            how = f"the profile says {entry}" if entry else "Debian's slurm-wlm-torque has them"
            kind, message = (
                CommandNotFound,
                f"a Torque-style wrapper was not found ({words}); {how}",
            )
        elif _UNAVAILABLE.search(words):
            kind, message = SchedulerUnavailable, f"Slurm does not answer: {words}"
        return kind(
            message, command=answer.command, exit_code=answer.exit_code, stderr=answer.stderr
        )


def _output_of(stdout: str) -> str:
    """What sbatch said, without what the wrapper says of it."""
    match = re.search(r"and the output was:\n'(.*)'", stdout, re.DOTALL)
    return " ".join((match[1] if match else stdout).split())
