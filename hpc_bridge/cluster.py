"""A scheduler reached over a transport."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from hpc_bridge.errors import (
    CommandTimeout,
    HPCBridgeError,
    SchedulerUnavailable,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.schedulers.base import Answer, Demand, Queue, Scheduler, newest_first
from hpc_bridge.transports.base import Files, Progress, Transport

if TYPE_CHECKING:
    from hpc_bridge.admission import Admission

# Slurm's own clients give up after about 10 s when the controller hangs.
COMMAND_TIMEOUT = 60.0
_ASK_AGAIN_SECONDS = 60.0
_NO_RECORDS_SECONDS = 60.0
"""For how long a scheduler that keeps no records is not asked for them: that may be changed."""

SUBMITTED = "submitted"
"""In a run directory: what the scheduler answered to the submission."""
# An earlier try whose connection broke may still be under way, or have come to its end unheard. One
# whose process cannot be seen, since it is on another login node, is given most of a minute. What
# the scheduler's command says to a connection that is gone must not end it.
_ONCE = f"""\
trap '' PIPE
d=$1
shift
by=$d/submitting/by
earlier() {{
    read -r pid host <"$by" || {{ echo unknown; return; }}
    [ "$host" = "$(uname -n)" ] || {{ echo away; return; }}
    if kill -0 "$pid"; then echo lives; else echo gone; fi
}} 2>/dev/null
if ! mkdir "$d/submitting" 2>/dev/null; then
    i=0
    while [ -d "$d/submitting" ] && [ ! -s "$d/{SUBMITTED}" ]; do
        case $(earlier) in
        unknown) [ $i -lt 5 ] || break ;;
        away) [ $i -lt 45 ] || break ;;
        gone) break ;;
        esac
        sleep 1
        i=$((i + 1))
    done
    mkdir -p "$d/submitting"
fi
if [ ! -s "$d/{SUBMITTED}" ]; then
    echo "$$ $(uname -n)" >"$by"
    "$@" >"$d/{SUBMITTED}.new"
    x=$?
    if [ $x -ne 0 ]; then cat "$d/{SUBMITTED}.new"; rm -rf "$d/submitting"; exit $x; fi
    mv "$d/{SUBMITTED}.new" "$d/{SUBMITTED}"
fi
rm -rf "$d/submitting"
cat "$d/{SUBMITTED}"
"""

logger = logging.getLogger(__name__)


class Cluster:
    """Submit, cancel and ask; every method blocks and may be called from any thread.

    1. ``submit`` is idempotent by name: after any doubt the name is looked up before a second try.
    2. A query that fails raises; it is never an empty answer.
    3. ``counters`` counts the commands that were run, by kind.
    4. Without ``has_accounting`` the records are never asked, as if they knew of no job; without
       ``has_arrays`` there are no job arrays.
    5. With an ``admission``, a submission waits for its turn, or is one job too many.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        transport: Transport,
        *,
        timeout: float = COMMAND_TIMEOUT,
        has_accounting: bool = True,
        has_arrays: bool = True,
        admission: Admission | None = None,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``count`` is told the kind of every command."""
        self.scheduler = scheduler
        self.transport = transport
        self._asks_records = has_accounting and scheduler.has_records
        self._no_records_until = -math.inf
        self.has_arrays = has_arrays and scheduler.supports_arrays
        self.admission = admission
        self.counters: Counter[str] = Counter()
        self._timeout = timeout
        self._count = count
        self._counting = threading.Lock()
        self._user: str | None = None
        self._array_limit = (1, -math.inf)
        self._asking_for_array_limit = threading.Lock()

    @property
    def has_accounting(self) -> bool:
        """Whether there are records of ended jobs, as far as was said and seen."""
        return self._asks_records and time.monotonic() >= self._no_records_until

    @property
    def user(self) -> str:
        """Login name on the cluster."""
        if self._user is None:
            self._user = self.transport.user()
        return self._user

    def submit(
        self,
        script: str,
        name: str,
        *,
        files: Files | None = None,
        run_dir: str | None = None,
        progress: Progress | None = None,
    ) -> JobId:
        """Submit ``script``, whose job name is ``name``, at most once.

        ``files`` are put before, by the same remote command; ``progress`` is told of them. With
        ``run_dir``, a folder there, the scheduler's answer is kept in it, and given again to who
        asks a second time. Raises SubmissionRefused with the scheduler's words, CommandNotFound,
        TooManyJobs, TransferFailed when the files cannot be written, or, when the scheduler does
        not answer and so whether there is a job is unknown, SchedulerUnavailable or ConnectionLost.
        """
        if self.admission is None:
            return self._submit(script, name, files, run_dir, progress)
        with self.admission.admitted(name, self.scheduler.job_count(script)):
            return self._submit(script, name, files, run_dir, progress)

    def _submit(
        self,
        script: str,
        name: str,
        files: Files | None,
        run_dir: str | None,
        progress: Progress | None,
    ) -> JobId:
        command = self.scheduler.submit_command(name)
        if run_dir is not None:
            command = ["sh", "-c", _ONCE, "sh", run_dir, *command]
        try:
            return self.scheduler.parse_submit(
                self._run("submit", command, stdin=script.encode(), files=files, progress=progress)
            )
        except (CommandTimeout, SchedulerUnavailable, UnexpectedOutput) as doubt:
            found = self._find_after(doubt, name)
            if found is None:
                raise
            return found

    def _find_after(self, doubt: Exception, name: str) -> JobId | None:
        try:
            found = self.find(name)
        except HPCBridgeError as error:
            raise SchedulerUnavailable(
                f"{doubt}\nWhether job {name!r} was submitted is unknown, because looking it up"
                f" failed too: {error}"
            ) from doubt
        return self.scheduler.array_id(found[0].job_id) if found else None

    def array_limit(self) -> int:
        """The largest number of elements of a job array; 1 where there are none.

        Asked once; 1 for the next minute when the scheduler does not say. Never more than the jobs
        that may be live, since a larger array could never be submitted.
        """
        with self._asking_for_array_limit:
            limit, good_until = self._array_limit
            if time.monotonic() >= good_until:
                limit, good_until = self._ask_for_array_limit()
                self._array_limit = limit, good_until
        live_jobs = self.admission.live_jobs if self.admission is not None else None
        return limit if live_jobs is None else min(limit, live_jobs)

    def _ask_for_array_limit(self) -> tuple[int, float]:
        if not self.has_arrays:
            return 1, math.inf
        try:
            answer = self._run("limits", self.scheduler.array_limit_command())
            return self.scheduler.parse_array_limit(answer), math.inf
        except HPCBridgeError as error:
            logger.warning("How large a job array may be is not known now: %s", error)
            return 1, time.monotonic() + _ASK_AGAIN_SECONDS

    def status(self) -> dict[JobId, JobStatus]:
        """Every job of this account that the scheduler still holds, by one command."""
        command = self.scheduler.status_command(self.user)
        return self.scheduler.parse_status(self._run("status", command))

    def history(self, jobs: Collection[JobId], since: datetime) -> dict[JobId, JobStatus]:
        """The scheduler's records of ``jobs`` that were active after ``since``, by one command."""
        if not self.has_accounting:
            return {}
        command = self.scheduler.history_command(jobs, self.user, since)
        answer = self._run("history", command)
        if not self.scheduler.keeps_records(answer):
            logger.info("The scheduler keeps no records of ended jobs: their own record decides")
            self._no_records_until = time.monotonic() + _NO_RECORDS_SECONDS
            return {}
        found = self.scheduler.parse_history(answer)
        return found | self.scheduler.without_record(jobs, found)

    def usage(self, jobs: Collection[JobId], since: datetime) -> dict[JobId, JobUsage]:
        """What ``jobs``, active after ``since``, were given and used, by one command."""
        if not self.has_accounting:
            return {}
        command = self.scheduler.usage_command(jobs, self.user, since)
        return self.scheduler.parse_usage(self._run("usage", command))

    def cancel(self, jobs: Collection[JobId], *, only_waiting: bool = False) -> None:
        """Cancel; jobs that are over are left alone, with ``only_waiting`` those that run too."""
        command = self.scheduler.cancel_command(jobs, only_waiting=only_waiting)
        self.scheduler.parse_cancel(self._run("cancel", command))

    def find(self, name: str) -> list[JobStatus]:
        """Jobs of this account with that unique name, newest first."""
        command = self.scheduler.find_command(name, self.user)
        return self.scheduler.parse_find(self._run("find", command))

    def find_history(self, name: str, since: datetime) -> list[JobStatus]:
        """Records of this account's jobs with that unique name, newest first.

        They also know jobs that have left the queue.
        """
        if not self.has_accounting:
            return []
        command = self.scheduler.find_history_command(name, self.user, since)
        return newest_first(self.scheduler.parse_history(self._run("history", command)).values())

    def queues(self) -> Mapping[str, Queue]:
        """Partitions or queues by name."""
        return self.scheduler.parse_queues(self._run("queues", self.scheduler.queue_command()))

    def demand(self) -> Mapping[str, Demand]:
        """What waits and runs in each queue, of all users."""
        return self.scheduler.parse_demand(self._run("demand", self.scheduler.demand_command()))

    def _run(
        self,
        kind: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        files: Files | None = None,
        progress: Progress | None = None,
    ) -> Answer:
        with self._counting:
            self.counters[kind] += 1
        self._count(kind)
        done = self.transport.run(
            argv,
            stdin=stdin,
            timeout=self._timeout,
            unset=self.scheduler.leaked_variables,
            files=files,
            progress=progress,
        )
        return Answer(tuple(argv), done.exit_code, done.stdout, done.stderr)
