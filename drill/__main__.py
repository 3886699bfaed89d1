"""``python -m drill [--runs N] [--seed N] [--short] [--site DIR]``: see docs/operating.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from benchmarks.places import NoSite
from drill.faults import WEIGHTS, Faults
from drill.judge import Evidence, Verdict, judge
from drill.kinds import plan
from drill.processes import Submitter, Worker, variables
from drill.records import SACCT, gather, strays
from drill.server import Server
from drill.site import CANNOT_HOST, USER, Site, drill_site
from drill.table import summary, table
from hpc_bridge.cli.server import own_server

_FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
# Requeued jobs wait, and a job that nobody knows any more is taken as lost after three minutes.
_LONG = {"calm": 420.0, "seconds_per_run": 4.0}
_SHORT = {"calm": 300.0, "seconds_per_run": 2.5}
_FIRST_FAULT = 8.0
_EVERY = (1.0, 5.0)


def main() -> int:
    """1 when anything is lost, doubled or wrong."""
    options = _options()
    began = time.monotonic()
    name = f"drill-{options.seed}-{os.getpid()}"
    with ExitStack() as stack:
        try:
            site = stack.enter_context(drill_site(options.site, name))
        except NoSite as reason:
            print(f"drill: {reason}")
            return CANNOT_HOST
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="hpc-bridge-drill-"))
        url = stack.enter_context(own_server(Path(home), host="0.0.0.0"))
        results, problems, faults = Drill(site, url, options).run(stack)
        good = _report(results, problems, faults)
        print(f"seed {options.seed}, {time.monotonic() - began:.0f} s in all")
        if not good and options.keep:
            input("the site is kept until you press Enter: ")
    return 0 if good else 1


class Drill:
    """One drill on one site."""

    def __init__(self, site: Site, url: str, options: argparse.Namespace) -> None:
        self._site = site
        self._server = Server(url)
        self._options = options
        self._random = Random(options.seed)
        self._environment = variables(site, urlsplit(url).port or 0)
        self._began = datetime.now(UTC)

    def run(self, stack: ExitStack) -> tuple[list[tuple[Evidence, Verdict]], list[str], Faults]:
        """Submit, break, repair, wait, compare."""
        times = _SHORT if self._options.short else _LONG
        weights = dict(WEIGHTS)
        if self._options.short:
            del weights["slurmctld killed"]
        runs = plan(self._options.runs, self._random)
        names = "first", "second"
        workers = tuple(Worker(self._site, name, self._environment) for name in names)
        for worker in workers:
            stack.callback(worker.stop)
        workers[0].start()
        submitter = Submitter(self._site, self._environment, runs)
        stack.callback(submitter.stop)
        faults = Faults(
            self._site, self._server, submitter, (workers[0], workers[1]), self._random, weights
        )
        stack.callback(faults.end)
        end = time.monotonic() + max(60.0, len(runs) * times["seconds_per_run"])
        self._break_things(faults, submitter, end)
        faults.repair(everything=True)
        self._say("faults are over and repaired")
        self._wait(faults, submitter, time.monotonic() + times["calm"])
        self._say("all records are compared")
        return *self._compare(submitter, faults, len(runs)), faults

    def _say(self, what: str) -> None:
        seconds = (datetime.now(UTC) - self._began).total_seconds()
        print(f"{seconds:3.0f} s  {what}", flush=True)

    def _break_things(self, faults: Faults, submitter: Submitter, end: float) -> None:
        due = time.monotonic() + _FIRST_FAULT
        while time.monotonic() < end and not self._all_over(submitter):
            if time.monotonic() >= due:
                faults.begin()
                due = time.monotonic() + self._random.uniform(*_EVERY)
            self._go_on(faults, submitter)

    def _wait(self, faults: Faults, submitter: Submitter, deadline: float) -> None:
        live = self._site.outside / "shared" / "live"
        while time.monotonic() < deadline:
            if self._all_over(submitter) and not any(live.glob("hb*")):
                return
            self._go_on(faults, submitter)

    def _go_on(self, faults: Faults, submitter: Submitter) -> None:
        """What happens all the time: repairs, jobs that were requeued, runs that were suspended."""
        faults.repair()
        faults.hasten()
        for run, state in self._server.states(list(submitter.submitted)).items():
            if state["type"] == "PAUSED":
                self._server.resume(run)
        time.sleep(0.5)

    def _all_over(self, submitter: Submitter) -> bool:
        if not submitter.is_done:
            return False
        states = self._server.states(list(submitter.submitted))
        return all(state["type"] in _FINAL for state in states.values())

    def _compare(
        self, submitter: Submitter, faults: Faults, planned: int
    ) -> tuple[list[tuple[Evidence, Verdict]], list[str]]:
        shared = self._site.outside / "shared"
        since = f"--starttime={self._began:%Y-%m-%dT%H:%M:%S}"
        sacct = self._site.output("env", "TZ=UTC", *SACCT, "--user", USER, since)
        evidence = gather(
            submitter.submitted,
            faults.hit,
            server=self._server,
            sacct=sacct,
            shared=shared,
            effects=self._site.outside / "effects",
        )
        problems = strays(sacct, shared)
        if len(evidence) < planned:
            problems.append(f"only {len(evidence)} of {planned} runs could be submitted")
        return [(run, judge(run)) for run in evidence], problems


def _report(
    results: Sequence[tuple[Evidence, Verdict]], problems: Sequence[str], faults: Faults
) -> bool:
    print(table(results))
    print(summary(results, faults.counts))
    for problem in problems:
        print(f"also wrong: {problem}")
    return not problems and not any(verdict.problems for _, verdict in results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m drill")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--short", action="store_true", help="shorter waits, no forgotten jobs")
    parser.add_argument("--site", type=Path, help="folder of a test site that is up already")
    parser.add_argument(
        "--keep", action="store_true", help="wait at the end when something is wrong"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
