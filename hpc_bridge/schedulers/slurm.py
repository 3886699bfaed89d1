"""Slurm: argv for its commands and parsers for their answers.

Formats use 0x1F between fields: a reason may hold blanks and commas, and the JSON outputs change
between versions and are some forty times slower on a large queue. Read on 22.05, 24.11 and 26.05.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from hpc_bridge.errors import (
    CommandError,
    InvalidJobSpec,
    SettingsError,
    SubmissionRefused,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.jobs.reasons import QueueReason
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers import slurm_usage
from hpc_bridge.schedulers.base import (
    Answer,
    Commands,
    Demand,
    Queue,
    Scheduler,
    newest_first,
)
from hpc_bridge.schedulers.local_directives import option_name, option_words
from hpc_bridge.schedulers.slurm_errors import complaints, failure
from hpc_bridge.schedulers.slurm_fields import elements
from hpc_bridge.schedulers.slurm_jobs import (
    HISTORY_FIELDS,
    STATUS_FIELDS,
    history_status,
    queue_status,
    statuses,
)
from hpc_bridge.schedulers.slurm_queues import (
    DEMAND_FIELDS,
    LIVE_STATES,
    QUEUE_FIELDS,
    QUEUE_ORDER,
    demands,
    queues,
)
from hpc_bridge.schedulers.slurm_reasons import explain

SEPARATOR = "\x1f"

_AS_ON_PATH = Commands()
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr", "srun")
"""Those that a site may have a path or wrapper for."""
# What run directories, exit records and the search for a job by its name rest on.
_OWN_OPTIONS = (
    *("--job-name", "--array", "--output", "--open-mode", "--export", "--chdir", "--wrap"),
    *("--wait", "--parsable", "--test-only", "--clusters"),
    *("-J", "-a", "-o", "-D", "-W", "-M"),
)
_ARRAY_DIRECTIVE = re.compile(r"^#SBATCH\s+(?:--array[=\s]|-a\s*)([\d,:%-]+)", re.MULTILINE)
_ARRAY_LIMIT = re.compile(r"(?:MaxArraySize\s*=\s*|max_array_tasks=)(\d+)")
_JOB_ID = re.compile(r"(\d+)(?:;[\w.-]+)?")

# Without ids, sacct looks for jobs that were eligible to run before its end time, which is now: not
# for one cancelled before its begin time. With states it also takes those that ended in time.
_EVEN_NEVER_ELIGIBLE = (
    "--endtime=2037-01-01T00:00:00",
    "--state=BF,CA,CD,DL,F,NF,OOM,PD,PR,R,RQ,RS,RV,S,TO",
)

# SQUEUE_FORMAT and its like change outputs; times are printed in the zone of the command.
_PINNED = (
    "env",
    "--unset=SQUEUE_FORMAT",
    "--unset=SQUEUE_FORMAT2",
    "--unset=SQUEUE_STATES",
    "--unset=SQUEUE_SORT",
    "--unset=SACCT_FORMAT",
    "--unset=SINFO_FORMAT",
    "TZ=UTC",
    "LC_ALL=C.UTF-8",
    "SLURM_TIME_FORMAT=standard",
    "SLURM_BITSTR_LEN=0",  # else 64 characters of an array's indices, and then "..."
)


class SlurmScheduler(Scheduler):
    """Slurm 22.05 and later."""

    name = "slurm"
    template = "slurm.sh.j2"
    supports_arrays = True
    leaked_variables = (
        "SLURM_*",
        "SLURMD_*",
        "SBATCH_*",
        "SALLOC_*",
        "SQUEUE_*",
        "SACCT_*",
        "SCANCEL_*",
        "SINFO_*",
        "PMI_*",
        "PMIX_*",
    )

    def __init__(self, commands: Commands = _AS_ON_PATH, *, cluster: str | None = None) -> None:
        """``commands`` and ``cluster`` are those of a site's profile.

        Raises SettingsError for a command that Slurm does not have and for several clusters.
        """
        commands.check(COMMANDS)
        if cluster is not None and (cluster == "all" or "," in cluster):
            raise SettingsError(f"scheduler.cluster: {cluster!r} is not one cluster; name one")
        self.commands = commands
        self.cluster = cluster

    def command(self, name: str) -> list[str]:
        """argv of one of Slurm's commands as the site wants it called, without its arguments."""
        # sacctmgr speaks for all clusters of a database, and knows no such option (24.11).
        of_one = self.cluster is not None and name != "sacctmgr"
        chosen = [f"--clusters={self.cluster}"] if of_one else []
        return [*_PINNED, *self.commands.argv(name), *chosen]

    def submit_command(self, name: str) -> list[str]:
        return [*self.command("sbatch"), "--parsable", f"--job-name={name}"]

    def check_directives(self, directives: Sequence[str]) -> None:
        for line in directives:
            if any(_is_own(option) for option in option_words(line)):
                raise InvalidJobSpec(
                    f"directives: {line!r} is decided by hpc-bridge, which finds the job and its"
                    " output by it; leave it out"
                )

    def directive_option(self, directive: str) -> str:
        return option_name(directive)

    def parse_submit(self, answer: Answer) -> JobId:
        if answer.exit_code != 0:
            raise self._error(answer, "sbatch", SubmissionRefused, "Slurm refused the job")
        # A login script may print before sbatch does.
        for line in reversed(answer.stdout.splitlines()):
            if match := _JOB_ID.fullmatch(line.strip()):
                return JobId(match[1])
        raise UnexpectedOutput(f"sbatch printed no job id but {answer.stdout[-200:]!r}")

    def element_id(self, job_id: JobId, element: int) -> JobId:
        return JobId(f"{job_id}_{element}")

    def array_id(self, job_id: JobId) -> JobId:
        return JobId(job_id.value.partition("_")[0])

    def job_count(self, script: str) -> int:
        directive = _ARRAY_DIRECTIVE.search(script)
        return max(1, sum(1 for _ in elements(f"0_[{directive[1]}]"))) if directive else 1

    def array_limit_command(self) -> list[str]:
        return [*self.command("scontrol"), "--oneliner", "show", "config"]

    def parse_array_limit(self, answer: Answer) -> int:
        if answer.exit_code != 0:
            raise self._error(answer, "scontrol", CommandError, "scontrol show config failed")
        # Indices end one below MaxArraySize (slurm.conf(5)); max_array_tasks is a second limit.
        sizes = _ARRAY_LIMIT.findall(answer.stdout)
        if not sizes:
            raise UnexpectedOutput("scontrol show config names no MaxArraySize")
        return max(1, min(int(size) for size in sizes))

    def status_command(self, user: str) -> list[str]:
        return [
            *self.command("squeue"),
            "--noheader",
            "--array",
            "--states=all",
            f"--user={user}",
            f"--format={SEPARATOR.join(STATUS_FIELDS)}",
        ]

    def parse_status(self, answer: Answer) -> dict[JobId, JobStatus]:
        if answer.exit_code != 0:
            raise self._error(answer, "squeue", CommandError, "squeue failed")
        return statuses(_rows(answer, len(STATUS_FIELDS)), queue_status)

    def explain_reason(self, status: JobStatus) -> QueueReason | None:
        if status.reason is None or not status.state.is_waiting:
            return None
        return explain(status.reason, status.job_id.value)

    def history_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        # Elements that did not start have one record together, which is found by the array's id.
        ids = dict.fromkeys(self.array_id(job).value for job in jobs)
        return [
            *self._sacct(HISTORY_FIELDS, user, since),
            "--allocations",
            f"--jobs={','.join(ids)}",
        ]

    def parse_history(self, answer: Answer) -> dict[JobId, JobStatus]:
        return statuses(self._records(answer, len(HISTORY_FIELDS)), history_status)

    def find_history_command(self, name: str, user: str, since: datetime) -> list[str]:
        sacct = self._sacct(HISTORY_FIELDS, user, since)
        return [*sacct, *_EVEN_NEVER_ELIGIBLE, "--allocations", f"--name={name}"]

    def without_record(
        self, jobs: Collection[JobId], found: Mapping[JobId, JobStatus]
    ) -> dict[JobId, JobStatus]:
        """Elements that were cancelled one by one before they started.

        They leave the queue, and the record that an array's waiting elements share, without a trace
        (seen on 22.05, 24.11 and 26.05); every other one is in one record or another of its array.
        """
        arrays = {self.array_id(job): status for job, status in found.items()}
        return {
            job: JobStatus(
                job_id=job,
                name=array.name,
                state=JobState.CANCELLED,
                scheduler_state="",
                reason="cancelled while it waited; Slurm does not record by whom",
                submitted=array.submitted,
            )
            for job in jobs
            if job not in found
            and self.array_id(job) != job
            and (array := arrays.get(self.array_id(job))) is not None
        }

    def usage_command(self, jobs: Collection[JobId], user: str, since: datetime) -> list[str]:
        ids = ",".join(job.value for job in jobs)
        return [*self._sacct(slurm_usage.FIELDS, user, since), f"--jobs={ids}"]

    def parse_usage(self, answer: Answer) -> dict[JobId, JobUsage]:
        return slurm_usage.usages(self._records(answer, len(slurm_usage.FIELDS)))

    def cancel_command(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> list[str]:
        states = ["--state=PENDING"] if only_waiting else []
        return [*self.command("scancel"), *states, *(job.value for job in jobs)]

    def parse_cancel(self, answer: Answer) -> None:
        over = re.compile(r"Job/step already completing or completed|Invalid job id")
        words = complaints(answer.stderr)
        harmless = bool(words) and all(over.search(line) for line in words)
        if answer.exit_code != 0 and not harmless:
            raise self._error(answer, "scancel", CommandError, "scancel failed")

    def find_command(self, name: str, user: str) -> list[str]:
        return [*self.status_command(user), f"--name={name}"]

    def parse_find(self, answer: Answer) -> list[JobStatus]:
        return newest_first(self.parse_status(answer).values())

    def queue_command(self) -> list[str]:
        shape = ("--noheader", "--Node", QUEUE_ORDER, _columns(QUEUE_FIELDS))
        return [*self.command("sinfo"), *shape]

    def parse_queues(self, answer: Answer) -> Mapping[str, Queue]:
        if answer.exit_code != 0:
            raise self._error(answer, "sinfo", CommandError, "sinfo failed")
        return queues(_rows(answer, len(QUEUE_FIELDS), end=SEPARATOR))

    def demand_command(self) -> list[str]:
        states = f"--states={LIVE_STATES}"
        return [*self.command("squeue"), "--noheader", "--array", states, _columns(DEMAND_FIELDS)]

    def parse_demand(self, answer: Answer) -> Mapping[str, Demand]:
        if answer.exit_code != 0:
            raise self._error(answer, "squeue", CommandError, "squeue failed")
        return demands(_rows(answer, len(DEMAND_FIELDS), end=SEPARATOR))

    def _sacct(self, fields: Sequence[str], user: str, since: datetime) -> list[str]:
        return [
            *self.command("sacct"),
            "--noheader",
            "--parsable2",
            f"--delimiter={SEPARATOR}",
            "--duplicates",
            f"--user={user}",
            f"--starttime={since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
            f"--format={','.join(fields)}",
        ]

    def _records(self, answer: Answer, width: int) -> Iterator[list[str]]:
        if "accounting storage is disabled" in answer.stderr:
            return iter(())  # the site keeps no records, which is an answer
        if answer.exit_code != 0:
            raise self._error(answer, "sacct", CommandError, "sacct failed")
        return _rows(answer, width)

    def _error(
        self, answer: Answer, name: str, kind: type[CommandError], what: str
    ) -> CommandError:
        return failure(answer, kind, what, self.commands.entry(name))


def _is_own(option: str) -> bool:
    """Whether it is one of _OWN_OPTIONS, or short for one."""
    name, long = option.partition("=")[0], option.startswith("--")
    return any(
        own.startswith(name) if long and len(name) > 4 else name[:2] == own
        for own in _OWN_OPTIONS
        if own.startswith("--") == long
    )


def _columns(names: Sequence[str]) -> str:
    return "--Format=" + ",".join(f"{name}:{SEPARATOR}" for name in names)


def _rows(answer: Answer, width: int, end: str = "") -> Iterator[list[str]]:
    # Not splitlines: a name may hold what Unicode counts as a line break.
    for line in answer.stdout.split("\n"):
        fields = line.removesuffix(end).split(SEPARATOR)
        if len(fields) == width:
            yield [field.strip() for field in fields]
