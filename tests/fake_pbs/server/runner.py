"""Runs a job that was started: the part of the node's daemon (MoM)."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import signal
import time
import traceback

from .attributes import clock, seconds, size_kb
from .lives import finish, requeue, schedule, walltime_used
from .processes import birth, detach, memory_kb, of_session, send
from .store import Store, touch

LOOK = 0.05
"""Seconds between looks at the job's processes and at orders."""
OVER_WALLTIME, OVER_MEMORY, RERUN = -29, -27, -11


def launch(store: Store, job: str) -> None:
    """Run a job in a process of its own."""
    if detach():
        _as_process(store, job, lambda: Run(store, job).run())


def wake_at(store: Store, when: float) -> None:
    """Have a cycle of the scheduler at a time."""
    if detach():

        def wait() -> None:
            time.sleep(max(0.0, when - time.time()) + 0.05)
            cycle(store)

        _as_process(store, "waiting", wait)


def cycle(store: Store) -> None:
    """Start what fits now."""
    with store.lock():
        started = schedule(store)
    for job in started:
        launch(store, job)


def _as_process(store: Store, what: str, work: object) -> None:
    mark = f"{store.folder}/aux/process.{os.getpid()}"
    try:
        with open(mark, "w") as file:
            file.write(f"{birth(os.getpid())} {what}")
        work()
    except BaseException:
        with open(f"{store.folder}/errors.log", "a") as file:
            file.write(traceback.format_exc())
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(mark)
        os._exit(0)


class Run:
    """One run of one job."""

    def __init__(self, store: Store, job: str) -> None:
        self.store = store
        self.job = job
        self.orders_read = 0
        self.status: int | None = None
        """What PBS says instead of the shell's own end."""
        self.kill_at = float("inf")
        record = store.get(job)
        if record is None:
            raise LookupError(job)
        self.record = record
        self.home = store.config["home"] or pwd.getpwuid(os.geteuid()).pw_dir
        # Orders to an earlier run are not for this one.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{store.folder}/aux/{job}.orders")

    def run(self) -> None:
        stdout, stderr = self._outputs()
        shell = self._start_shell(stdout, stderr)
        self._update(
            session_id=shell, jobdir=self.home, substate=42, resources_used=self._used(0, 0)
        )
        code, cpu, memory = self._watch(shell)
        self._end(code if self.status is None else self.status, cpu, memory)
        cycle(self.store)

    def _update(self, **attributes: object) -> dict | None:
        """Change the record as it is now."""
        with self.store.lock():
            record = self.store.get(self.job)
            if record is not None:
                touch(record, **attributes)
                self.store.put(record)
                self.record = record
            return record

    def _used(self, cpu: float, memory: int) -> dict[str, object]:
        cpus = sum(place["needs"]["ncpus"] for place in self.record.get("places", ()))
        return {
            "cpupercent": 0,
            "cput": clock(cpu),
            "mem": f"{memory}kb",
            "ncpus": cpus,
            "vmem": f"{memory}kb",
            "walltime": walltime_used(self.record, time.time()),
        }

    # What the job gets

    def _outputs(self) -> tuple[str, str]:
        """Where output and errors go while the job runs."""
        attributes = self.record["attributes"]
        keep = attributes["Keep_Files"]
        found = []
        for letter, end in (("o", "OU"), ("e", "ER")):
            if letter in keep and "d" in keep:
                path = self._final(letter)
            elif letter in keep:
                name = self.record["attributes"]["Job_Name"]
                index = f".{self.record['index']}" if self.record["parent"] else ""
                path = f"{self.home}/{name}.{letter}{self.record['number']}{index}"
            else:
                path = f"{self.store.folder}/spool/{self.job}.{end}"
            found.append(path)
        if attributes["Join_Path"] == "oe":
            found[1] = found[0]
        elif attributes["Join_Path"] == "eo":
            found[0] = found[1]
        return found[0], found[1]

    def _final(self, letter: str) -> str:
        """Output_Path or Error_Path without its host; a folder gets the job's id."""
        name, end = ("Output_Path", "OU") if letter == "o" else ("Error_Path", "ER")
        path = self.record["attributes"][name].split(":", 1)[1]
        return f"{path.rstrip('/')}/{self.job}.{end}" if os.path.isdir(_path(path)) else path

    def _environment(self, shell: str) -> dict[str, str]:
        record, attributes = self.record, self.record["attributes"]
        account = pwd.getpwuid(os.geteuid())
        first = record["places"][0]
        environment = {
            "ENVIRONMENT": "BATCH",
            "HOME": self.home,
            "LOGNAME": account.pw_name,
            "NCPUS": str(first["needs"]["ncpus"]),
            "OMP_NUM_THREADS": str(first["threads"]),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_JOBCOOKIE": os.urandom(16).hex().upper(),
            "PBS_JOBDIR": self.home,
            "PBS_JOBID": self.job,
            "PBS_JOBNAME": attributes["Job_Name"],
            "PBS_MOMPORT": "15003",
            "PBS_NODEFILE": f"{self.store.folder}/aux/{self.job}",
            "PBS_NODENUM": "0",
            "PBS_QUEUE": attributes["queue"],
            "PBS_TASKNUM": "1",
            "SHELL": shell,
            "TMPDIR": f"{self.store.folder}/tmp/pbs.{self.job}",
            "USER": account.pw_name,
        }
        if record["parent"]:
            environment |= {
                "PBS_ARRAY_INDEX": str(record["index"]),
                "PBS_ARRAY_ID": record["parent"],
            }
        return environment | record["variables"]

    def _prepare(self) -> str:
        """Node file, TMPDIR and script; what the login shell is told to run."""
        folder = self.store.folder
        with open(f"{folder}/aux/{self.job}", "w") as file:
            for place in self.record["places"]:
                file.write(f"{place['host']}\n" * place["mpiprocs"])
        os.makedirs(f"{folder}/tmp/pbs.{self.job}", mode=0o700, exist_ok=True)
        if self.record["command"]:
            return shlex.join(self.record["command"])
        path = f"{folder}/scripts/{self.job}.SC"
        with open(f"{folder}/scripts/{self.record['number']}", "rb") as file:
            script = file.read()
        if script:  # of an empty one the real node gets none
            with open(path, "wb") as file:
                file.write(script)
            os.chmod(path, 0o700)
        return path

    def _start_shell(self, stdout: str, stderr: str) -> int:
        command = os.fsencode(self._prepare() + "\n")
        shell = pwd.getpwuid(os.geteuid()).pw_shell
        shell = self.record["attributes"].get("Shell_Path_List", shell)
        if "bash" not in shell and not os.access(shell, os.X_OK):
            shell = "/bin/bash"
        environment = {_path(k): _path(v) for k, v in self._environment(shell).items()}
        umask = int(self.record["attributes"].get("umask", "77"), 8)
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(reading)
            os.write(writing, command)
            os.close(writing)
            while os.getsid(child) != child:
                time.sleep(0.001)
            return child
        try:
            os.setsid()
            os.umask(umask)
            os.close(writing)
            os.dup2(reading, 0)
            for descriptor, path in ((1, stdout), (2, stderr)):
                os.dup2(self._open(path), descriptor)
            os.closerange(3, 64)
            os.chdir(self.home)
            os.execve(shell, [f"-{os.path.basename(shell)}"], environment)
        except BaseException:
            with open(f"{self.store.folder}/errors.log", "a") as file:
                file.write(traceback.format_exc())
        os._exit(254)

    def _open(self, path: str) -> int:
        """For appending; where that cannot be, into ``undelivered``."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            return os.open(_path(path), flags, 0o600)
        except OSError:
            return os.open(f"{self.store.folder}/undelivered/{self.job}.OU", flags, 0o600)

    # While it runs

    def _watch(self, shell: int) -> tuple[int, float, int]:
        """Until the shell has ended and, when it was told to end, its session too."""
        asked = self.record["attributes"]["Resource_List"]
        limit = seconds(asked.get("walltime", "")) or float("inf")
        memory = size_kb(asked.get("mem", "")) or float("inf")
        begun, look_at, code = time.monotonic(), time.monotonic(), None
        most = cpu = 0.0
        while True:
            if code is None:
                ended, status, usage = os.wait4(shell, os.WNOHANG)
                if ended:
                    code = os.waitstatus_to_exitcode(status)
                    code = 256 - code if code < 0 else code
                    cpu, most = usage.ru_utime + usage.ru_stime, max(most, usage.ru_maxrss)
            now = time.monotonic()
            is_ending = self.kill_at != float("inf")
            if code is not None and not (is_ending and of_session(shell) and now < self.kill_at):
                send(of_session(shell), signal.SIGKILL)
                return code, cpu, int(most)
            if now >= self.kill_at:
                send(of_session(shell), signal.SIGKILL)
            for order in self._orders():
                self._follow(order, shell)
            if now >= look_at and not is_ending:
                look_at = now + self.store.config["check_interval"]
                used = memory_kb(of_session(shell)) if memory != float("inf") else 0
                most = max(most, used)
                if now - begun > limit:
                    self._stop(shell, OVER_WALLTIME)
                elif used > memory:
                    self._stop(shell, OVER_MEMORY)
            time.sleep(LOOK)

    def _stop(self, shell: int, status: int | None) -> None:
        self.status = status
        self.kill_at = time.monotonic() + self.store.config["kill_delay"]
        send(of_session(shell), signal.SIGTERM)

    def _orders(self) -> list[str]:
        try:
            with open(f"{self.store.folder}/aux/{self.job}.orders") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        new, self.orders_read = lines[self.orders_read :], len(lines)
        return new

    def _follow(self, order: str, shell: int) -> None:
        if order == "delete":  # each one puts off the KILL
            self._stop(shell, self.status)
        elif order == "kill":
            self.kill_at = time.monotonic()
        elif order == "rerun":
            self.status = RERUN
            self.kill_at = time.monotonic()
        elif order.startswith("signal "):
            send(of_session(shell), int(order.split()[1]))

    # At the end

    def _end(self, code: int, cpu: float, memory: int) -> None:
        if code == RERUN:
            with self.store.lock():
                record = self.store.get(self.job)
                if record is not None:
                    requeue(self.store, record, RERUN)
            return
        used = self._used(cpu, memory)
        self._update(
            job_state="E",
            substate=51,
            Exit_status=code,
            obittime=int(time.time()),
            resources_used=used,
        )
        stays = self.store.switch("stay-exiting")
        if stays is not None:
            time.sleep(float(stays or 1))
        is_delivered = self._deliver(code)
        how = {0: "finished", OVER_WALLTIME: "exceeded resource walltime"}.get(code, "failed")
        how = "exceeded resource mem" if code == OVER_MEMORY else how
        more = {} if self._keeps_all() else {"Stageout_status": int(is_delivered)}
        with self.store.lock():
            record = self.store.get(self.job)
            if record is not None:
                finish(self.store, record, record.get("deleted") or how, **more)

    def _keeps_all(self) -> bool:
        keep = self.record["attributes"]["Keep_Files"]
        return "d" not in keep and "o" in keep and "e" in keep

    def _deliver(self, code: int) -> bool:
        """Move what lies in the spool to where it belongs; False when something stayed behind."""
        folder, is_delivered = self.store.folder, True
        remove = self.record["attributes"].get("Remove_Files", "") if code == 0 else ""
        for letter, end in (("o", "OU"), ("e", "ER")):
            spool = f"{folder}/spool/{self.job}.{end}"
            if letter in remove:
                _remove(spool)
                continue
            try:
                with open(spool, "rb") as file:
                    text = file.read()
            except FileNotFoundError:
                continue
            try:
                descriptor = os.open(
                    _path(self._final(letter)), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
                )
                with open(descriptor, "wb") as file:
                    file.write(text)
                _remove(spool)
            except OSError:
                is_delivered = False
                os.replace(spool, f"{folder}/undelivered/{self.job}.{end}")
        return is_delivered and not os.path.exists(f"{folder}/undelivered/{self.job}.OU")


def _path(text: str) -> bytes:
    return text.encode("latin-1") if all(ord(c) < 256 for c in text) else os.fsencode(text)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
