"""Keeps an attempt that has been replaced from speaking for its flow run.

A requeued job, or the one submitted after it, may run while an old attempt lives on behind a cut
network. The server would take the states of both, so each looks before it sets one: at the claims
on the shared directory, and at the flow run, which names its submission. A check that fails decides
nothing: without the shared directory the server's word counts, and without either the attempt goes
on, since whoever cannot ask cannot set a state.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

from hpc_bridge.node.attempt import Attempt
from hpc_bridge.node.reports import report
from hpc_bridge.reference import JobReference

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

REPLACED = "REPLACED"
"""In the exit record's ``flow_state``: the flow run is another attempt's."""

_PERIOD = 30.0
_SERVER_EVERY = 10
_LISTING_TIMEOUT = 10.0
_LEAVING_TIMEOUT = 5.0


class Fence:
    """Whether one attempt is still the one that runs its flow run."""

    def __init__(self, attempt: Attempt, flow_run_id: UUID) -> None:
        self._attempt = attempt
        self.flow_run_id = flow_run_id
        self._run_count: int | None = None
        self._listing: threading.Thread | None = None
        self._newest: bool | None = None

    def count_from(self, flow_run: FlowRun) -> None:
        """Take the flow run's starts so far as known."""
        self._run_count = flow_run.run_count

    def count_start(self) -> None:
        """This attempt has set Running."""
        if self._run_count is not None:
            self._run_count += 1

    def holds_claim(self) -> bool | None:
        """Whether no later start of this job has claimed; None when that cannot be read in time."""
        if self._listing is None or not self._listing.is_alive():
            self._newest = None
            self._listing = threading.Thread(target=self._list, daemon=True)
            self._listing.start()
        self._listing.join(_LISTING_TIMEOUT)
        return self._newest

    def _list(self) -> None:
        try:
            self._newest = self._attempt.is_newest()
        except OSError:
            self._newest = None

    def replaced(self, flow_run: FlowRun | None, holds_claim: bool | None) -> str | None:
        """Who runs the flow run instead; None while it is this attempt, as far as is known."""
        if holds_claim is False:
            return "a later start of this job has taken over"
        if flow_run is None:
            return None
        reference = JobReference.parse(flow_run.infrastructure_pid)
        own = self._attempt.run_dir.name
        if reference is not None and reference.submission_id > own:  # ids sort by time
            return f"job {reference.job_id} ({reference.submission_id}) has taken over"
        # Only then: resuming a paused run from the dashboard counts as a start, too.
        started_again = self._run_count is not None and flow_run.run_count > self._run_count
        if holds_claim is None and started_again:
            return "the flow run has been started again elsewhere"
        return None

    def watch(self) -> None:
        """Look now and then in a daemon thread: a flow may set no state for days."""
        threading.Thread(target=self._watch, name="hpc-bridge-fence", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        for turn in itertools.count(1):
            pause.wait(_PERIOD)
            holds_claim = self.holds_claim()
            ask = holds_claim is None or turn % _SERVER_EVERY == 0
            reason = self.replaced(self._read() if ask else None, holds_claim)
            if reason is not None:
                leave(reason)

    def _read(self) -> FlowRun | None:
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        try:
            with get_client(sync_client=True) as client:
                return client.read_flow_run(self.flow_run_id)
        except (httpx.HTTPError, ObjectNotFound):
            return None


def leave(reason: str) -> NoReturn:
    """End the process at once: no state, no event, no log and no hook of it comes after."""
    report(flow_state=REPLACED)
    # Writing to a file system that hangs must not hold it.
    timer = threading.Timer(_LEAVING_TIMEOUT, os._exit, (0,))
    timer.daemon = True
    timer.start()
    say_replaced(reason)
    os._exit(0)


def say_replaced(reason: str) -> None:
    """In the job's output."""
    print(f"hpc-bridge: {reason}; leaving without touching the flow run", flush=True)
    sys.stderr.flush()
