"""A PBS for tests: programs that answer in the recorded forms and run jobs as processes.

    with FakePBS(tmp_path / "pbs") as pbs:
        job = pbs.qsub("#!/bin/bash\\necho hello\\n", "-N", "hello")
        pbs.wait_for(job, "F")

There is no daemon: every call looks at the state folder, and each running job has one process.
``pbs.bin`` goes into PATH, or ``pbs.commands`` into a profile as ``scheduler.commands``: both need
no variable of the environment.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.fake_pbs.server.processes import birth, of_session
from tests.waiting import until

PROGRAMS = ("qsub", "qstat", "qdel", "qselect", "pbsnodes", "qrerun", "qhold", "qrls")
HERE = Path(__file__).parent
PYTHON = os.path.realpath(sys.executable)


class FakePBS:
    """One server, its nodes and its jobs.

    ``config`` overrides ``tests.fake_pbs.server.store.DEFAULTS``, for example ``nodes`` on hosts
    of their own, ``queues``, ``limits`` or ``kill_delay``. Jobs start in ``folder/home``.
    """

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.home = folder / "home"
        self._config = {"home": str(self.home), **config}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        for each in (self.folder, self.bin, self.home):
            each.mkdir(parents=True, exist_ok=True)
        self.configure()
        variables = f"FAKE_PBS_HOME={shlex.quote(str(self.folder))}"
        variables += f" FAKE_PBS_PYTHON={shlex.quote(PYTHON)}"
        for name in PROGRAMS:
            program = self.bin / name
            target = shlex.quote(str(HERE / "bin" / name))
            program.write_text(f'#!/bin/sh\n{variables} exec {target} "$@"\n')
            program.chmod(0o755)

    def stop(self) -> None:
        """End everything that runs; the folder stays, for whoever wants to look."""
        self.switch("scheduling-off")
        for job, process in self._processes().items():
            self._kill(job, process)

    def configure(self, **changes: Any) -> None:
        """Change the configuration; it holds from the next call on."""
        self._config |= changes
        path = self.folder / "server.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self._config))
        part.replace(path)

    @property
    def commands(self) -> dict[str, list[str]]:
        """For ``scheduler.commands`` of a site profile."""
        return {name: [str(self.bin / name)] for name in PROGRAMS}

    # Programs

    def run(
        self,
        program: str,
        *words: str,
        stdin: str | bytes = "",
        variables: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Call a program; ``variables`` go into its environment."""
        environment = {**os.environ, "FAKE_PBS_HOME": str(self.folder), **(variables or {})}
        command = [str(self.bin / program), *words]
        if program not in PROGRAMS:
            command = [PYTHON, "-S", "-E", str(HERE / "program.py"), program, *words]
        return subprocess.run(
            command,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=environment,
            cwd=folder or self.home,
            check=False,
            timeout=60,
        )

    def qsub(self, script: str, *words: str) -> str:
        """Submit; the job's id."""
        done = self.run("qsub", *words, stdin=script)
        assert done.returncode == 0, done
        return done.stdout.decode().strip()

    def as_manager(self, program: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Call a program as somebody who may do anything, as a site's operators may."""
        return self.run(program, *words, variables={"FAKE_PBS_MANAGER": "1"})

    def calls(self) -> list[list[Any]]:
        """All calls so far: time, program, arguments."""
        path = self.folder / "calls.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def errors(self) -> str:
        """What went wrong inside of the fake itself; empty when nothing did."""
        path = self.folder / "errors.log"
        return path.read_text() if path.exists() else ""

    # Jobs

    def job(self, job: str) -> dict[str, Any]:
        """The attributes of a job as the server has them, history included; {} if unknown."""
        for folder in ("jobs", "history"):
            try:
                return dict(json.loads((self.folder / folder / job).read_text())["attributes"])
            except FileNotFoundError:
                continue
        return {}

    def wait_for(self, job: str, state: str, seconds: float = 15) -> dict[str, Any]:
        """Until a job is in one of the states (letters); its attributes.

        R counts when the script has been started (substate 42).
        """

        def reached() -> dict[str, Any]:
            attributes = self.job(job)
            has = attributes and attributes["job_state"] in state
            return attributes if has and attributes["substate"] != 41 else {}

        return until(reached, seconds, f"{job} in {state}: {self.job(job)} {self.errors()}")

    def rerun(self, job: str) -> None:
        """qrerun, as a manager does."""
        done = self.as_manager("qrerun", job)
        assert done.returncode == 0, done

    # Switches

    def switch(self, name: str, text: str = "") -> None:
        """Turn on: ``down``, ``no-history``, ``scheduling-off``, ``privacy`` (others' jobs are
        hidden), ``damage`` (kinds, see ``server/neighbour.py``), ``slow`` (seconds before every
        answer), ``hang`` (programs that never answer; none: all), ``lose-answer`` (the next qsub
        takes its job and dies), ``stay-exiting`` (seconds in E)."""
        (self.folder / name).write_text(text)

    def off(self, name: str) -> None:
        """Turn a switch off, and have the scheduler look again."""
        (self.folder / name).unlink(missing_ok=True)
        self.run("tick")

    @contextmanager
    def switched(self, name: str, text: str = "") -> Iterator[None]:
        self.switch(name, text)
        try:
            yield
        finally:
            self.off(name)

    # Nodes

    def crash_node(self, host: str = "pbshost") -> None:
        """The node is gone with its jobs' processes; the server says they still run."""
        self.switch(f"node-down.{host}")
        for job, process in self._processes().items():
            record = self.folder / "jobs" / job
            if record.exists():
                places = json.loads(record.read_text()).get("places", ())
                if host in {place["host"] for place in places}:
                    self._kill(job, process)

    def start_node(self, host: str = "pbshost") -> None:
        """The node is back: its jobs run again from the start (Exit_status -4 meanwhile)."""
        (self.folder / f"node-down.{host}").unlink(missing_ok=True)
        self.run("revive", host)

    def _processes(self) -> dict[str, int]:
        """Job (or ``waiting``): the process that the fake has for it."""
        found: dict[str, int] = {}
        for path in (self.folder / "aux").glob("process.*"):
            try:
                born, _, job = path.read_text().partition(" ")
            except FileNotFoundError:
                continue
            process = int(path.suffix[1:])
            if str(birth(process)) == born:
                found[job if job != "waiting" else path.name] = process
        return found

    def _kill(self, job: str, process: int) -> None:
        """The process of a job first, that it records nothing, then all of the job's own."""
        sessions = {self.job(job).get("session_id")} - {None}
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            sessions |= {int(child) for child in task.read_text().split()}
        processes = [process]
        while processes:
            for each in processes:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            processes = [p for session in sessions for p in of_session(session)]
        # What comes next may ask whether the job still has its process.
        until(lambda: birth(process) is None, 5, f"the process of {job} is gone")
