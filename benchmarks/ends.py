"""Ends: from the end of a job to its flow run's final state on the server, polling at 30 s.

The silent jobs' flow, supervisor and script are killed with -9, so that only asking the scheduler
shows their ends; these lie evenly over one interval, and a bare loop of squeue at the same interval
looks at them too. The others end before: when such an end is seen, the next question is hurried.
"""

from __future__ import annotations

import getpass
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client

from benchmarks.rows import Row, Run
from benchmarks.service import WorkerProcess, deploy, no_jobs_left, until

TITLE = "ends: job end -> final state on the server, polling at 30 s"
INTERVAL = 30.0
_ALL_RUN = 35.0
"""Seconds until as many jobs as there are places for have started."""
_SAYING = 10.0
_QUIET = 5.0
_LONGEST_WAIT = 300.0
_POOL = "benchmark-ends"


@dataclass(frozen=True, slots=True)
class _End:
    job_id: str
    at: float
    told_at: float
    """Both in seconds since the epoch; server and node have one clock here."""

    @property
    def delay(self) -> float:
        return self.told_at - self.at


class _BareLoop:
    """``squeue`` once an interval, as a script would do it."""

    def __init__(self) -> None:
        self._answers: list[tuple[float, set[str]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> _BareLoop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def saw_the_end(self, end: _End) -> bool:
        return any(at > end.at and end.job_id not in jobs for at, jobs in self._answers)

    def delay(self, end: _End) -> float:
        answers = (at for at, jobs in self._answers if at > end.at and end.job_id not in jobs)
        return next(answers) - end.at

    def _loop(self) -> None:
        command = ["squeue", "--noheader", "-r", "--user", getpass.getuser(), "--format=%A"]
        while True:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            self._answers.append((time.time(), set(done.stdout.split())))
            if self._ended.wait(INTERVAL):
                return


def measure(run: Run) -> list[Row]:
    """Two silent jobs for each that says its end, through a worker."""
    count = 6 if run.quick else 20
    notes = run.shared / "ends"
    notes.mkdir(mode=0o700, parents=True)
    interval = {"HPC_BRIDGE_POLL_INTERVAL": f"{INTERVAL:g}"}
    with (
        get_client(sync_client=True) as client,
        no_jobs_left(run.shared),
        WorkerProcess(run.shared, _POOL, run.scheduler, **interval) as worker,
        _BareLoop() as bare,
    ):
        first = time.time() + _ALL_RUN
        saying = _start(client, "say_the_end", notes, _evenly(count // 2, first, _SAYING))
        then = first + _SAYING + _QUIET
        silent = _start(client, "vanish", notes, _evenly(count, then, INTERVAL))

        def over() -> bool:
            return all(_is_final(client, flow_run) for flow_run in [*silent, *saying])

        until(over, _LONGEST_WAIT, "all runs have ended", worker.alive)
        unseen = [_read(client, notes, flow_run) for flow_run in silent]
        said = [_read(client, notes, flow_run) for flow_run in saying]
        until(lambda: all(map(bare.saw_the_end, unseen)), 2 * INTERVAL, "squeue shows all ends")
    return _rows(
        [end.delay for end in said], [end.delay for end in unseen], list(map(bare.delay, unseen))
    )


def _evenly(count: int, first: float, seconds: float) -> list[float]:
    return [first + n * seconds / count for n in range(count)]


def _start(client: SyncPrefectClient, name: str, notes: Path, ends: Sequence[float]) -> list[UUID]:
    deployment = deploy(client, name, _POOL)
    return [
        client.create_flow_run_from_deployment(
            deployment, parameters={"at": at, "folder": str(notes)}
        ).id
        for at in ends
    ]


def _is_final(client: SyncPrefectClient, flow_run: UUID) -> bool:
    state = client.read_flow_run(flow_run).state
    return state is not None and state.is_final()


def _read(client: SyncPrefectClient, notes: Path, flow_run: UUID) -> _End:
    state = client.read_flow_run(flow_run).state
    if state is None:
        raise ValueError(f"flow run {flow_run} has no state")
    job_id, at = (notes / str(flow_run)).read_text().split()
    return _End(job_id, float(at), state.timestamp.timestamp())


def _rows(said: Sequence[float], silent: Sequence[float], bare: Sequence[float]) -> list[Row]:
    return [
        Row(
            f"flow that says its end, from its last line: median of {len(said)}",
            f"{median(said):.2f} s",
        ),
        Row("  p95", f"{_p95(said):.2f} s"),
        Row(
            f"job that is killed -9, silently: median of {len(silent)}",
            f"{median(silent):.1f} s",
            f"{median(bare):.1f} s bare squeue every {INTERVAL:g} s",
            median(silent) / median(bare),
        ),
        Row("  p95", f"{_p95(silent):.1f} s", f"{_p95(bare):.1f} s", _p95(silent) / _p95(bare)),
    ]


def _p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]
