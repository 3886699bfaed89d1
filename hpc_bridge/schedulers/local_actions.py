"""The sub-commands of the embedded scheduler's command.

Standard library only (see ``local_directives``).
"""

# pathlib is not used: importing it takes as long as all else that a start does.
from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import time
from datetime import datetime

from hpc_bridge.schedulers.local_directives import Refused, read_request, signal_number
from hpc_bridge.schedulers.local_processes import KEEPER_MARK
from hpc_bridge.schedulers.local_records import (
    LIVE,
    SEPARATOR,
    SHOWN_SECONDS,
    WAITING,
    Record,
    Store,
    acquire,
    iso,
    machine,
    try_acquire,
)
from hpc_bridge.schedulers.local_script import PATH, base_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

QUEUE = ("local", "up", "")
"""Name, state, longest walltime in seconds (empty: no limit); this machine, CPUs and free ones."""
CPUS_VARIABLE = "HPC_BRIDGE_LOCAL_CPUS"
_CANCEL_WAIT = 2.0
"""Seconds that a cancel waits at most for jobs that had not started."""


def main(arguments: list[str]) -> int:
    """Run one sub-command; 0, or 1 with a sentence on standard error."""
    for descriptor in range(3):  # a file opened later must not become standard output
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    try:
        return _main(arguments)
    except Refused as refused:
        return _complain(str(refused))
    except OSError as error:
        return _complain(f"{error.strerror}: {error.filename}" if error.filename else str(error))


def _main(arguments: list[str]) -> int:
    root: str | None = None
    cpus = os.environ.get(CPUS_VARIABLE)
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        option, has_value, value = rest.pop(0).partition("=")
        if not has_value:
            value = rest.pop(0) if rest else ""
        if option == "--state":
            root = value
        elif option == "--cpus":
            cpus = value
        else:
            raise Refused(f"unrecognized option '{option}'")
    if not root or not rest:
        raise Refused("usage: local_command.py --state DIR [--cpus N] COMMAND [ARGUMENT ...]")
    store = Store(root)
    command, *words = rest
    if command == "keep":
        from hpc_bridge.schedulers.local_job import keep

        job, alive, control, number, place = (int(word) for word in words)
        keep(store, job, alive, control, (number, place) if number else None)
        return 0
    if command == "submit":
        return _submit(store, cpus, words)
    if command == "queues":
        return _queues(store, _slots(cpus))
    if command not in _COMMANDS:
        known = ", ".join(("submit", "queues", *_COMMANDS))
        raise Refused(f"there is no command {command!r}; there are {known}")
    return _COMMANDS[command](store, words)


def _complain(sentence: str) -> int:
    sys.stderr.write(f"local: error: {sentence}\n")
    return 1


# submitting


def _submit(store: Store, cpus: str | None, words: list[str]) -> int:
    script = sys.stdin.buffer.read()
    now = time.time()
    request = read_request(script.decode("utf-8", "surrogateescape"), now)
    slots = _slots(cpus)
    if request.cpus > slots:
        raise Refused(
            f"the job asks for {request.cpus} CPUs and this machine has {slots}; ask for less,"
            f" or set {CPUS_VARIABLE} to let jobs share the CPUs"
        )
    if request.test_only or "--test-only" in words:
        sys.stdout.write("the job can run on this machine\n")
        return 0
    store.prepare()
    store.clean(now)
    umask = os.umask(0o077)
    lock = store.lock()
    job = store.new_id()
    alive = acquire(store.file(job, "alive"))
    place = None if request.hold or request.begin is not None else store.enqueue()
    os.close(lock)
    os.mkfifo(store.file(job, "control"), 0o600)
    control = _open_control(store, job)
    _write_file(store.file(job, "script"), script)
    environment = base_environment(request.export, dict(os.environ))
    entries = "\0".join(f"{name}={value}" for name, value in environment.items())
    _write_file(store.file(job, "environ"), os.fsencode(entries))
    record = Record(
        id=job,
        name=request.name,
        uid=os.getuid(),
        cpus=request.cpus,
        slots=slots,
        umask=umask,
        machine=machine(),
        node=os.uname().nodename.split(".")[0],
        submit_dir=os.getcwd(),
        submitted=iso(now),
        request=vars(request),
        state="HELD" if request.hold else "PENDING",
    )
    store.write(record)
    store.show(job)
    _spawn_keeper(store, job, alive, control, place)
    sys.stdout.write(f"{job}\n")
    return 0


def _slots(cpus: str | None) -> int:
    if cpus is None:
        return len(os.sched_getaffinity(0))
    if not cpus.isdecimal() or not 0 < int(cpus) <= 4096:
        raise Refused(f"the number of CPUs (--cpus, {CPUS_VARIABLE}) is {cpus!r}")
    return int(cpus)


def _write_file(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _open_control(store: Store, job: int) -> int:
    """Opened before the record is written, so that no order is lost; both ways, so never at end."""
    return os.open(store.file(job, "control"), os.O_RDWR | os.O_NONBLOCK)


def _spawn_keeper(
    store: Store, job: int, alive: int, control: int, place: tuple[int, int] | None
) -> None:
    """Start the job's own process; with the descriptors goes the ownership of the locks."""
    number, held = place or (0, -1)
    for descriptor in (alive, control, held):
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "local_command.py")
    argv = [sys.executable, "-I", "-S", "-X", "utf8", program, f"--state={store.root}", "keep"]
    argv += [str(word) for word in (job, alive, control, number, held)]
    log = store.file(job, "keeper.log")
    os.posix_spawn(
        sys.executable,
        argv,
        {KEEPER_MARK: str(job), "PATH": PATH, "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


# asking


def _status(store: Store, _: list[str]) -> int:
    now = time.time()
    for record in _records(store, store.recent()):
        if record.state not in LIVE and now - _epoch(record.ended) > SHOWN_SECONDS:
            store.hide(record.id)
        else:
            _print(record)
    return 0


def _queues(store: Store, slots: int) -> int:
    live = (record for record in _records(store, store.recent()) if record.state in LIVE)
    used = sum(record.cpus for record in live if record.state not in WAITING)
    cells = (*QUEUE, os.uname().nodename, str(slots), str(max(0, slots - used)))
    sys.stdout.write(SEPARATOR.join(cells) + "\n")
    return 0


def _history(store: Store, words: list[str]) -> int:
    known = set(store.jobs())
    asked = [job for job in _ids(words) if job in known] if words else sorted(known)
    for record in _records(store, asked):
        _print(record)
    return 0


def _find(store: Store, words: list[str]) -> int:
    if len(words) != 1:
        raise Refused("find takes one name")
    for record in _records(store, reversed(store.jobs())):
        if record.name == words[0]:
            _print(record)
    return 0


def _records(store: Store, jobs: Iterable[int]) -> list[Record]:
    """What can be read; what cannot is named on standard error and hides nothing."""
    records = []
    for job in jobs:
        try:
            records.append(store.judged(job))
        except FileNotFoundError:
            continue  # being submitted, or just removed
        except (OSError, ValueError) as error:
            sys.stderr.write(f"local: warning: the record of job {job} cannot be read: {error}\n")
    return records


def _epoch(moment: str | None) -> float:
    return datetime.fromisoformat(moment).timestamp() if moment else 0.0


def _print(record: Record) -> None:
    sys.stdout.write(record.line() + "\n")


# changing


def _cancel(store: Store, words: list[str]) -> int:
    def cancel(record: Record) -> str | None:
        if only_waiting and record.state not in WAITING:
            return None
        told = record.state in LIVE and _order(store, record, f"cancel {os.getuid()}")
        if told and record.state in WAITING:
            waited.append(record.id)
        return None

    only_waiting = words[:1] == ["--waiting"]
    waited: list[int] = []
    code = _for_each(store, words[only_waiting:], cancel)
    _await_ends(store, waited)
    return code


def _signal(store: Store, words: list[str]) -> int:
    number = signal_number(words[0]) if words else None
    if number is None:
        raise Refused("signal takes a signal and job ids")

    def deliver(record: Record) -> str | None:
        if record.state != "RUNNING" or not _order(store, record, f"signal {number}"):
            return f"job {record.id} is not running"
        return None

    return _for_each(store, words[1:], deliver)


def _hold(store: Store, words: list[str]) -> int:
    def hold(record: Record) -> str | None:
        if record.state not in WAITING or not _order(store, record, "hold"):
            return f"job {record.id} does not wait"
        return None

    return _for_each(store, words, hold)


def _release(store: Store, words: list[str]) -> int:
    def release(record: Record) -> str | None:
        if record.state not in WAITING or not _order(store, record, "release"):
            return f"job {record.id} does not wait"
        return None

    return _for_each(store, words, release)


def _requeue(store: Store, words: list[str]) -> int:
    def requeue(record: Record) -> str | None:
        if not record.asked().requeue:
            return f"job {record.id} was submitted with --no-requeue"
        if record.state in WAITING:
            return f"Job is pending execution for job {record.id}"
        if record.state in LIVE and _order(store, record, "requeue"):
            return None
        return _restart(store, record.id)

    return _for_each(store, words, requeue)


def _restart(store: Store, job: int) -> str | None:
    """Start a job that is over again; its record so far stays beside the new one."""
    alive = try_acquire(store.file(job, "alive"))
    if alive is None:
        return f"job {job} is just ending; try again"
    record = store.read(job)
    if record.state in LIVE:
        os.close(alive)
        return f"job {job} is just ending; try again"
    control = _open_control(store, job)
    _keep_copy(store.file(job, "job.json"), store.file(job, f"job.{record.restarts}.json"))
    record.state, record.reason, record.restarts = "REQUEUED", "Requeued", record.restarts + 1
    record.started = record.ended = record.cancelled_by = None
    record.exit_code = record.signal = record.cpu_seconds = record.max_memory = None
    store.write(record)
    store.show(job)
    lock = store.lock()
    place = store.enqueue()
    os.close(lock)
    _spawn_keeper(store, job, alive, control, place)
    return None


def _keep_copy(path: str, name: str) -> None:
    try:
        os.link(path, name)
    except FileExistsError:
        return  # of a requeue that was cut short


def _for_each(store: Store, words: list[str], act: Callable[[Record], str | None]) -> int:
    """Do it for all of the jobs, whatever becomes of one."""
    code = 0
    for job in _ids(words):
        try:
            complaint = act(store.judged(job))
        except FileNotFoundError:
            complaint = f"Invalid job id specified: {job}"
        except ValueError as error:
            complaint = f"the record of job {job} cannot be read: {error}"
        if complaint is not None:
            code = _complain(complaint)
    return code


def _ids(words: list[str]) -> list[int]:
    for word in words:
        if not word.isdecimal() or not word.isascii():
            raise Refused(f"Invalid job id specified: {word}")
    return [int(word) for word in words]


def _order(store: Store, record: Record, line: str) -> bool:
    """Tell a job's own process; False when it is gone."""
    if record.machine != machine():
        raise Refused(f"job {record.id} is on {record.node}; give the order there")
    try:
        control = os.open(store.file(record.id, "control"), os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    try:
        os.write(control, f"{line}\n".encode("ascii"))
    finally:
        os.close(control)
    return True


def _await_ends(store: Store, jobs: list[int]) -> None:
    """Wait until jobs that had not started are over, so that a status after a cancel says so."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, _CANCEL_WAIT)
    try:
        for job in jobs:
            descriptor = os.open(store.file(job, "alive"), os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.close(descriptor)
    except (TimeoutError, FileNotFoundError):
        pass  # one has started after all, and now takes its time to end
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


_COMMANDS: dict[str, Callable[[Store, list[str]], int]] = {
    "status": _status,
    "history": _history,
    "find": _find,
    "cancel": _cancel,
    "signal": _signal,
    "hold": _hold,
    "release": _release,
    "requeue": _requeue,
}
