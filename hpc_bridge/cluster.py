"""A scheduler reached over a transport."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from hpc_bridge.errors import (
    CommandTimeout,
    HPCBridgeError,
    SchedulerUnavailable,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId, JobStatus
from hpc_bridge.schedulers.base import Answer, Queue, Scheduler
from hpc_bridge.transports.base import Transport

# Slurm's own clients give up after about 10 s when the controller hangs.
COMMAND_TIMEOUT = 60.0


class Cluster:
    """Submit, cancel and ask; every method blocks and may be called from any thread.

    1. ``submit`` is idempotent by name: after any doubt the name is looked up before a second try.
    2. A query that fails raises; it is never an empty answer.
    3. ``counters`` counts the commands that were run, by kind.
    """

    def __init__(
        self, scheduler: Scheduler, transport: Transport, *, timeout: float = COMMAND_TIMEOUT
    ) -> None:
        self.scheduler = scheduler
        self.transport = transport
        self.counters: Counter[str] = Counter()
        self._timeout = timeout
        self._counting = threading.Lock()
        self._user: str | None = None

    @property
    def user(self) -> str:
        """Login name on the cluster."""
        if self._user is None:
            self._user = self.transport.user()
        return self._user

    def submit(self, script: str, name: str) -> JobId:
        """Submit ``script``, whose job name is ``name``, at most once.

        Raises SubmissionRefused with the scheduler's words, CommandNotFound, or, when the scheduler
        does not answer and so whether there is a job is unknown, SchedulerUnavailable.
        """
        try:
            return self.scheduler.parse_submit(
                self._run("submit", self.scheduler.submit_command(name), stdin=script.encode())
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
        return found[0].job_id if found else None

    def status(self) -> dict[JobId, JobStatus]:
        """Every job of this account that the scheduler still holds, by one command."""
        command = self.scheduler.status_command(self.user)
        return self.scheduler.parse_status(self._run("status", command))

    def history(self, jobs: Collection[JobId], since: datetime) -> dict[JobId, JobStatus]:
        """The scheduler's records of ``jobs`` that were active after ``since``, by one command."""
        command = self.scheduler.history_command(jobs, self.user, since)
        return self.scheduler.parse_history(self._run("history", command))

    def cancel(self, jobs: Collection[JobId]) -> None:
        """Cancel; jobs that are over are left alone."""
        self.scheduler.parse_cancel(self._run("cancel", self.scheduler.cancel_command(jobs)))

    def find(self, name: str) -> list[JobStatus]:
        """Jobs of this account with that unique name, newest first."""
        command = self.scheduler.find_command(name, self.user)
        return self.scheduler.parse_find(self._run("find", command))

    def queues(self) -> Mapping[str, Queue]:
        """Partitions or queues by name."""
        return self.scheduler.parse_queues(self._run("queues", self.scheduler.queue_command()))

    def _run(self, kind: str, argv: Sequence[str], *, stdin: bytes = b"") -> Answer:
        with self._counting:
            self.counters[kind] += 1
        done = self.transport.run(
            argv, stdin=stdin, timeout=self._timeout, unset=self.scheduler.leaked_variables
        )
        return Answer(tuple(argv), done.exit_code, done.stdout, done.stderr)
