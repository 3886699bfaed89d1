"""PBS: argv for its commands and parsers for their answers.

Read on OpenPBS v23.06.06, and on the client tools of its development branch of 2026-04.
"""

from __future__ import annotations

import getopt
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from hpc_bridge.errors import (
    CommandError,
    InvalidJobSpec,
    SchedulerUnavailable,
    SettingsError,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobSpec, JobStatus
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers import pbs_programs as programs
from hpc_bridge.schedulers.base import Answer, Commands, Demand, Queue, Scheduler, newest_first
from hpc_bridge.schedulers.pbs_answers import Record, jobs
from hpc_bridge.schedulers.pbs_errors import (
    failure,
    has_no_history,
    is_cut_short,
    leaves_nothing_to_delete,
    says_that_jobs_are_over,
)
from hpc_bridge.schedulers.pbs_fields import element_of, number, parent_of, sequence_number
from hpc_bridge.schedulers.pbs_jobs import live_statuses, statuses
from hpc_bridge.schedulers.pbs_queues import demands, queues, server
from hpc_bridge.schedulers.pbs_reasons import explain
from hpc_bridge.schedulers.pbs_select import DEFAULT_GPU_RESOURCE
from hpc_bridge.schedulers.pbs_usage import usages

_AS_ON_PATH = Commands()
COMMANDS = ("qsub", "qstat", "qselect", "qdel", "pbsnodes")
"""Those that a site may have a path or wrapper for."""
_JOB_ID = re.compile(r"\d+(?:\[\])?(?:\.[\w.-]+)?", re.ASCII)
_ARRAY_DIRECTIVE = re.compile(r"^#PBS\s+-J\s*(\d+)-(\d+)(?::(\d+))?", re.MULTILINE)
_RESOURCE_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)

# qsub(1B). What run directories, exit records and the search for a job by its name rest on.
_OPTIONS = "a:A:c:C:e:fG:hIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:XzP:"
_OWN_OPTIONS = frozenset({f"-{letter}" for letter in "CefGIjJkNoRSuvVXz"})
_OWN_ATTRIBUTES = re.compile(r"(?:^|,)\s*(block|umask|sandbox|run_count|stage(?:in|out)|pwd)\b")

_ATTRIBUTE = re.compile(r"[\w.-]+", re.ASCII)

# Times are printed in the zone of the command, and messages in its language.
_PINNED = ("env", "--unset=PBS_DPREFIX", "LC_ALL=C")
_IN_UTC = (*_PINNED, "TZ=UTC")


class PBSScheduler(Scheduler):
    """OpenPBS and PBS Pro 19 and later."""

    name = "pbs"
    template = "pbs.sh.j2"
    directive_prefix = "#PBS "
    supports_arrays = True
    # Not PBS_CONF_FILE, PBS_SERVER and their like, which say where PBS is.
    leaked_variables = (
        "PBS_O_*",
        "PBS_ARRAY_*",
        "PBS_JOB*",
        "PBS_NODE*",
        "PBS_TASKNUM",
        "PBS_MOMPORT",
        "PBS_QUEUE",
        "PBS_ENVIRONMENT",
        "PMI_*",
        "PMIX_*",
    )

    def __init__(
        self, commands: Commands = _AS_ON_PATH, *, gpu_resource: str = DEFAULT_GPU_RESOURCE
    ) -> None:
        """``commands`` and ``gpu_resource``, the name of what counts GPUs, are a site's.

        Raises SettingsError for a command that PBS does not have, or no name of a resource.
        """
        commands.check(COMMANDS)
        if not _RESOURCE_NAME.fullmatch(gpu_resource):
            raise SettingsError(f"scheduler.gpu_resource: {gpu_resource!r} is no resource of PBS")
        self.commands = commands
        self.gpu_resource = gpu_resource

    def command(self, name: str) -> list[str]:
        """argv of one of PBS's commands as the site wants it called, without its arguments."""
        # qsub takes the times of -a as those of its own zone, which is the user's.
        return [*(_PINNED if name == "qsub" else _IN_UTC), *self.commands.argv(name)]

    def submit_command(self, name: str) -> list[str]:
        # -f: else it leaves a process behind for a minute, which holds an SSH session open.
        return [*self.command("qsub"), "-f", "-C", "#PBS", "-N", name]

    def check_directives(self, directives: Sequence[str]) -> None:
        for line in directives:
            for option, value in _options(line):
                own = option in _OWN_OPTIONS or (option == "-W" and _OWN_ATTRIBUTES.search(value))
                if own:
                    raise InvalidJobSpec(
                        f"directives: {line!r} is decided by hpc-bridge, which finds the job and"
                        " its output by it; leave it out"
                    )

    def check_skipped(self, options: Sequence[str]) -> None:
        for option in options:
            name = self.directive_option(option)
            if name in _OWN_OPTIONS or _OWN_ATTRIBUTES.search(name.removeprefix("-W ")):
                raise InvalidJobSpec(
                    f"directives: {option!r} is decided by hpc-bridge, which finds the job and its"
                    " output by it; leave it out"
                )

    def directive_option(self, directive: str) -> str:
        letter, rest = directive[:2], directive[2:].strip()
        match = _ATTRIBUTE.match(rest) if letter in ("-l", "-W") else None
        return f"{letter} {match[0]}" if match else letter

    def takes_array(self, spec: JobSpec) -> bool:
        return spec.requeue is not False  # "cannot submit non-rerunable Array Job"

    def parse_submit(self, answer: Answer) -> JobId:
        if answer.exit_code != 0:
            raise self._error(answer, "qsub", SubmissionRefused, "PBS refused the job")
        # A login script may print before qsub does.
        for line in reversed(answer.stdout.splitlines()):
            if _JOB_ID.fullmatch(line.strip()):
                return JobId(line.strip())
        raise UnexpectedOutput(f"qsub printed no job id but {answer.stdout[-200:]!r}")

    def element_id(self, job_id: JobId, element: int) -> JobId:
        return JobId(element_of(job_id.value, element))

    def array_id(self, job_id: JobId) -> JobId:
        return JobId(parent_of(job_id.value))

    def job_count(self, script: str) -> int:
        directive = _ARRAY_DIRECTIVE.search(script)
        if directive is None:
            return 1
        first, last, step = (int(field or 1) for field in directive.groups())
        return max(1, len(range(first, last + 1, max(1, step))))

    def array_limit_command(self) -> list[str]:
        return [*self.command("qstat"), "-B", "-f", "-F", "json"]

    def parse_array_limit(self, answer: Answer) -> int:
        self._check(answer, "qstat")
        size = number(server(answer.stdout).get("max_array_size"))
        if size is None:
            raise UnexpectedOutput("qstat -B -f names no max_array_size")
        return max(1, size)

    def status_command(self, user: str) -> list[str]:
        return programs.status(self.command("qselect"), self.command("qstat"), user)

    def parse_status(self, answer: Answer) -> dict[JobId, JobStatus]:
        return live_statuses(self._jobs(answer))

    def explain_reason(self, status: JobStatus) -> QueueReason | None:
        if status.reason is None or not status.state.is_waiting:
            return None
        return explain(status.reason, status.job_id.value)

    def history_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:  # noqa: ARG002
        ids = list(dict.fromkeys(self.array_id(job).value for job in jobs))
        return programs.history(self.command("qstat"), ids, [sequence_number(job) for job in ids])

    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:
        return statuses(self._jobs(answer))

    def keeps_records(self, answer: Answer) -> bool:
        return not has_no_history(answer)

    def find_history_command(self, name: str, user: str, since: datetime) -> list[str]:  # noqa: ARG002
        qselect, qstat = self.command("qselect"), self.command("qstat")
        return programs.find(qselect, qstat, user, name, history=True)

    def usage_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        return self.history_command(jobs, user, since)

    def parse_usage(self, answer: Answer) -> dict[JobId, JobUsage]:
        return usages(self._jobs(answer), self.gpu_resource)

    def cancel_command(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> list[str]:
        ids = [job.value for job in jobs]
        if only_waiting:
            return programs.cancel_waiting(self.command("qselect"), self.command("qdel"), ids)
        return [*self.command("qdel"), *ids]

    def parse_cancel(self, answer: Answer) -> None:
        if answer.exit_code != 0 and not leaves_nothing_to_delete(answer):
            raise self._error(answer, "qdel", CommandError, "qdel failed")

    def find_command(self, name: str, user: str) -> list[str]:
        return programs.find(self.command("qselect"), self.command("qstat"), user, name)

    def parse_find(self, answer: Answer) -> list[JobStatus]:
        return newest_first(self.parse_status(answer).values())

    def queue_command(self) -> list[str]:
        qstat, as_json = self.command("qstat"), ("-f", "-F", "json")
        nodes = [*self.command("pbsnodes"), "-a", "-v", "-F", "json"]
        return programs.one_after_another([*qstat, "-B", *as_json], [*qstat, "-Q", *as_json], nodes)

    def parse_queues(self, answer: Answer) -> Mapping[str, Queue]:
        self._check(answer, "qstat")
        parts = answer.stdout.split(f"\n{programs.NEXT}\n")
        if len(parts) != 3:
            raise UnexpectedOutput(f"PBS gave {len(parts)} answers, not 3, about its queues")
        about, listed, nodes = parts
        return queues(about, listed, nodes, self.gpu_resource)

    def demand_command(self) -> list[str]:
        return programs.demand(self.command("qstat"), ("ncpus", self.gpu_resource))

    def parse_demand(self, answer: Answer) -> Mapping[str, Demand]:
        return demands(self._jobs(answer), self.gpu_resource)

    def _jobs(self, answer: Answer) -> list[Record]:
        """The jobs of an answer; those that PBS has no more are no error, nor is no history."""
        if has_no_history(answer):
            return []
        if not says_that_jobs_are_over(answer):
            self._check(answer, "qstat")
        found = jobs(answer.stdout)
        if not found and answer.exit_code == 0 and answer.stdout.strip():
            _check_emptiness(answer.stdout)
        return found

    def _check(self, answer: Answer, name: str) -> None:
        """Raise unless there is an answer to read."""
        if is_cut_short(answer):
            raise self._error(answer, name, SchedulerUnavailable, f"{name} failed")
        if answer.exit_code != 0:
            raise self._error(answer, name, CommandError, f"{name} failed")

    def _error(
        self, answer: Answer, name: str, kind: type[CommandError], what: str
    ) -> CommandError:
        return failure(answer, kind, what, self.commands.entry(name))


def _check_emptiness(stdout: str) -> None:
    """Raise for a table: full records were asked for, and it would read as no jobs."""
    if re.search(r"^(?:Job id|Job ID) ", stdout, re.MULTILINE | re.IGNORECASE):
        raise UnexpectedOutput(f"qstat printed a table, not full records: {stdout[:200]!r}")


def _options(line: str) -> list[tuple[str, str]]:
    """The options of a directive with their values, as qsub cuts them."""
    try:
        options, rest = getopt.getopt(shlex.split(line), _OPTIONS)
    except (getopt.GetoptError, ValueError) as error:
        raise InvalidJobSpec(f"directives: {line!r}: qsub does not take it: {error}") from None
    if rest:
        raise InvalidJobSpec(f"directives: {line!r}: {rest[0]!r} is no option of qsub")
    return options
