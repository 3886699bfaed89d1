"""What goes wrong, drawn from one random generator, and is put right again after a while."""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from drill.processes import Submitter, Worker
from drill.server import Server
from drill.site import USER, Site

WEIGHTS = {
    "kill -9 of the worker": 7,
    "second worker": 2,
    "slurmctld restarts": 2,
    "slurmctld killed": 1,
    "slurmctld hangs": 1,
    "slurmdbd stops": 2,
    "slurmdbd hangs": 1,
    "node dies": 2,
    "requeue": 6,
    "scancel": 3,
    "cancel": 3,
}
# slurmctld does not come up while slurmdbd takes its call and does not answer.
_NOT_WHILE = {
    "requeue": {"slurmctld"},
    "scancel": {"slurmctld"},
    "node dies": {"slurmctld"},
    "slurmctld restarts": {"slurmdbd"},
    "slurmctld killed": {"slurmdbd"},
    "slurmdbd stops": {"slurmctld"},
    "slurmdbd hangs": {"slurmctld"},
}
_CRASHING_NODES = ("c1", "c2")
_DRAWS = 4
_WORKER_SECONDS = 40.0


@dataclass(slots=True)
class Faults:
    """Begins faults and ends them, from one thread; ``hit`` says whose run each was meant for.

    The draws follow from the seed. Whom they hit does not: that depends on who runs at the time.
    """

    site: Site
    server: Server
    submitter: Submitter
    workers: tuple[Worker, Worker]
    random: Random
    weights: dict[str, int]
    counts: Counter[str] = field(default_factory=Counter)
    hit: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _broken: set[str] = field(default_factory=set)
    _due: list[tuple[float, int, str, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def begin(self) -> None:
        """One more fault; another one is drawn when what it would break is broken already."""
        for _ in range(_DRAWS):
            if name := self._draw():
                self.counts[name] += 1
                return

    def _draw(self) -> str | None:
        name = self.random.choices(list(self.weights), list(self.weights.values()))[0]
        if self._broken.intersection(_NOT_WHILE.get(name, ())):
            return None
        has_begun = {
            "kill -9 of the worker": self._kill_worker,
            "second worker": self._second_worker,
            "slurmctld restarts": self._restart_controller,
            "slurmctld killed": self._kill_controller,
            "slurmctld hangs": lambda: self._daemon("slurmctld", "hang", "resume", 3, 15),
            "slurmdbd stops": lambda: self._daemon("slurmdbd", "kill", "start", 4, 15),
            "slurmdbd hangs": lambda: self._daemon("slurmdbd", "hang", "resume", 4, 15),
            "node dies": self._crash_node,
            "requeue": lambda: self._job_of_somebody("requeue", "scontrol", "requeue"),
            "scancel": lambda: self._job_of_somebody("scancel", "scancel"),
            "cancel": self._cancel,
        }[name]()
        return name if has_begun else None

    def repair(self, *, everything: bool = False) -> None:
        """End the faults that have lasted for long enough."""
        while self._due and (everything or self._due[0][0] <= time.monotonic()):
            _, _, what, repair = heapq.heappop(self._due)
            repair()
            self._broken.discard(what)

    def hasten(self) -> None:
        """Let requeued jobs start now; Slurm would wait two minutes."""
        if "slurmctld" in self._broken:
            return
        for job, _, reason in self._jobs("--states=PENDING"):
            if reason == "BeginTime":
                self.site.run("scontrol", "update", f"jobid={job}", "starttime=now")

    def end(self) -> None:
        """Put everything right and leave no job behind."""
        self.repair(everything=True)
        if left := [job for job, _, _ in self._jobs()]:
            self.site.run("scancel", *left)

    def _break(self, what: str, seconds: tuple[float, float], repair: Callable[[], None]) -> None:
        self._broken.add(what)
        until = time.monotonic() + self.random.uniform(*seconds)
        heapq.heappush(self._due, (until, next(self._numbers), what, repair))

    def _kill_worker(self) -> bool:
        """At any point of its life, but one that never lives to submit shows nothing."""
        worker = self.workers[0]
        if "worker" in self._broken or worker.age < self.random.uniform(0, _WORKER_SECONDS):
            return False
        worker.kill()
        self._break("worker", (0, 6), worker.start)
        return True

    def _second_worker(self) -> bool:
        """Comes, and is killed after a while."""
        if "second" in self._broken:
            return False
        self.workers[1].start()
        self._break("second", (5, 30), self.workers[1].kill)
        return True

    def _daemon(self, name: str, action: str, repair: str, *seconds: float) -> bool:
        if name in self._broken:
            return False
        self.site.daemon(action, name)
        self._break(name, (seconds[0], seconds[1]), lambda: self.site.daemon(repair, name))
        return True

    def _restart_controller(self) -> bool:
        """As an upgrade does it: SIGTERM, so that it saves its state."""
        if "slurmctld" in self._broken:
            return False
        stop = "p=$(cat /run/site/slurmctld.pid); kill $p; while kill -0 $p; do sleep 0.1; done"
        self.site.run("bash", "-c", stop)
        self._break("slurmctld", (1, 8), lambda: self.site.daemon("start", "slurmctld"))
        return True

    def _kill_controller(self) -> bool:
        """Once it has saved: what Slurm itself forgets is not what the drill is for."""
        if "slurmctld" in self._broken:
            return False
        self.site.daemon("save", "slurmctld")
        return self._daemon("slurmctld", "kill", "start", 1, 6)

    def _crash_node(self) -> bool:
        node = self.random.choice(_CRASHING_NODES)
        if self._broken.intersection(_CRASHING_NODES):
            return False
        for job, name in self._running(node):
            self._note("node", job, name)
        self.site.node("crash", node)
        self._break(node, (2, 25), lambda: self.site.node("start", node))
        return True

    def _job_of_somebody(self, what: str, *command: str) -> bool:
        running = self._running()
        if not running:
            return False
        job, name = self.random.choice(running)
        # Noted first: a job may be over before its command returns.
        self._note(what, job, name)
        return self.site.run(*command, job).returncode == 0

    def _cancel(self) -> bool:
        states = self.server.states(list(self.submitter.submitted))
        live = [run for run, state in states.items() if state["type"] in ("RUNNING", "PENDING")]
        if not live:
            return False
        run = self.random.choice(sorted(live))
        self.hit[run].append("cancel")
        self.server.cancel(run)
        return True

    def _running(self, node: str | None = None) -> list[tuple[str, str]]:
        """(job, submission) of the drill's jobs that run now."""
        where = ("--nodelist", node) if node else ()
        return [(job, name) for job, name, _ in self._jobs("--states=RUNNING", *where)]

    def _jobs(self, *which: str) -> list[tuple[str, str, str]]:
        """(job, submission, reason) of the drill's jobs in the queue."""
        command = "squeue", "--noheader", "--array", "--user", USER, "--format=%i|%j|%r", *which
        lines = self.site.run(*command).stdout.splitlines()
        jobs = [(job, name, reason) for job, name, reason in (line.split("|") for line in lines)]
        runs = self.site.outside / "shared" / "runs"
        return [job for job in jobs if (runs / job[1] / "submission.json").exists()]

    def _note(self, what: str, job: str, name: str) -> None:
        journal = self.site.outside / "shared" / "runs" / name / "submission.json"
        flow_runs = json.loads(journal.read_bytes())["flow_runs"]
        element = job.partition("_")[2] if len(flow_runs) > 1 else "0"
        self.hit[flow_runs[element]].append(what)
