"""Start the script of a job: its environment, its working directory and its output.

Standard library only (see ``local_directives``).
"""

# pathlib is not used: importing it takes as long as all else that a start does.
from __future__ import annotations

import os
import pwd
import re
import signal

from hpc_bridge.schedulers.local_directives import Request
from hpc_bridge.schedulers.local_processes import JOB_MARK, KEEPER_MARK, die_with
from hpc_bridge.schedulers.local_records import Record

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_KEPT = ("LANG", "TMPDIR")
_MEMORY_VARIABLES = (
    ("memory_per_node", "SLURM_MEM_PER_NODE"),
    ("memory_per_cpu", "SLURM_MEM_PER_CPU"),
)


class StartFailed(Exception):
    """The script could not be started; the message is the job's reason."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def base_environment(export: str, submitter: dict[str, str]) -> dict[str, str]:
    """What a job gets besides its scheduler's variables (sbatch(1), ``--export``)."""
    if export == "NIL":
        return {}
    if export == "ALL":
        return {
            name: value
            for name, value in submitter.items()
            if not name.startswith("SLURM_") and name not in (KEEPER_MARK, JOB_MARK)
        }
    try:
        account = pwd.getpwuid(os.getuid())
        name, home, shell = account.pw_name, account.pw_dir, account.pw_shell
    except KeyError:  # a container that runs as a number
        name = submitter.get("USER", str(os.getuid()))
        home, shell = submitter.get("HOME", "/"), "/bin/sh"
    kept = {name: submitter[name] for name in _KEPT if name in submitter}
    return {
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": shell,
        "PATH": PATH,
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 - the variable's own default, not a file of ours
        **kept,
    }


def job_environment(
    record: Record, request: Request, folder: str, started: float
) -> dict[str, str]:
    """sbatch(1), "OUTPUT ENVIRONMENT VARIABLES"; what was not asked for is not set."""
    job, ntasks = str(record.id), request.ntasks or request.ntasks_per_node
    variables = {
        JOB_MARK: folder,
        "ENVIRONMENT": "BATCH",
        "SLURM_JOB_ID": job,
        "SLURM_JOBID": job,
        "SLURM_JOB_NAME": record.name,
        "SLURM_JOB_UID": str(record.uid),
        "SLURM_JOB_NODELIST": record.node,
        "SLURM_NODELIST": record.node,
        "SLURMD_NODENAME": record.node,
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NNODES": "1",
        "SLURM_JOB_PARTITION": "local",
        "SLURM_CLUSTER_NAME": "local",
        "SLURM_CPUS_ON_NODE": str(record.cpus),
        "SLURM_JOB_CPUS_PER_NODE": str(record.cpus),
        "SLURM_TASKS_PER_NODE": str(ntasks or 1),
        "SLURM_SUBMIT_DIR": record.submit_dir,
        "SLURM_SUBMIT_HOST": record.node,
        "SLURM_JOB_START_TIME": str(int(started)),
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    if ntasks is not None:
        variables["SLURM_NTASKS"] = variables["SLURM_NPROCS"] = str(ntasks)
    if request.ntasks_per_node is not None:
        variables["SLURM_NTASKS_PER_NODE"] = str(request.ntasks_per_node)
    if request.cpus_per_task is not None:
        variables["SLURM_CPUS_PER_TASK"] = str(request.cpus_per_task)
    for attribute, name in _MEMORY_VARIABLES:
        if (size := getattr(request, attribute)) is not None:
            variables[name] = str(size)
    if request.walltime is not None:
        variables["SLURM_JOB_END_TIME"] = str(int(started) + request.walltime)
    if record.restarts:
        variables["SLURM_RESTART_COUNT"] = str(record.restarts)
    return variables


def expand(pattern: str, record: Record, user: str) -> str:
    """sbatch(1), "FILENAME PATTERN"; a backslash anywhere turns the patterns off."""
    if "\\" in pattern:
        return pattern.replace("\\", "")
    values = {
        "%": "%",
        "j": record.id,
        "J": record.id,
        "A": record.id,
        "a": 4294967294,  # NO_VAL: the job is no array
        "b": 4294967294 % 10,
        "n": 0,
        "N": record.node,
        "s": "batch",
        "t": 0,
        "u": user,
        "x": record.name,
    }

    def value(match: re.Match[str]) -> str:
        found = values[match[2]]
        width = min(int(match[1] or 0), 10)
        return str(found).zfill(width) if isinstance(found, int) else str(found)

    return re.sub(r"%(\d*)([%jJAabnNstux])", value, pattern)


def start_script(record: Record, request: Request, folder: str, started: float) -> int:
    """Start the script in a session of its own; its process id. Raises StartFailed."""
    environment = _read_environment(os.path.join(folder, "environ"))
    environment |= job_environment(record, request, folder, started)
    script = os.path.join(folder, "script")
    command = [*_interpreter(script), script]
    reading, writing = os.pipe()
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            die_with(keeper)
            _prepare(record, request, environment)
            environment["SLURM_TASK_PID"] = str(os.getpid())
            _reset_signals()
            os.execve(command[0], command, environment)  # noqa: S606
        except StartFailed as failure:
            os.write(writing, f"{failure.exit_code} {failure}".encode())
        except OSError as error:
            words = f"{command[0]}: {error.strerror}"
            os.write(2, f"local: error: execve(): {words}\n".encode())
            os.write(writing, f"{error.errno} the script cannot be started: {words}".encode())
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        code, _, reason = pipe.read().decode("utf-8", "replace").partition(" ")
    if code:
        os.waitpid(child, 0)
        raise StartFailed(reason, int(code))
    return child


def _read_environment(path: str) -> dict[str, str]:
    with open(path, "rb") as file:
        entries = os.fsdecode(file.read()).split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _interpreter(script: str) -> list[str]:
    """The words of the shebang line, as execve(2) cuts them; bash when there is none.

    The script is not executed itself: the state directory may be mounted noexec.
    """
    with open(script, "rb") as file:
        first = os.fsdecode(file.readline())
    if not first.startswith("#!") or not first[2:].strip():
        return ["/bin/bash"]
    return first[2:].strip().split(None, 1)


def _prepare(record: Record, request: Request, environment: dict[str, str]) -> None:
    directory = record.submit_dir
    if request.work_dir:
        directory = os.path.join(directory, request.work_dir)
    try:
        os.chdir(directory)
    except OSError as error:
        raise StartFailed(
            f"the working directory {directory} cannot be entered: {error.strerror}", 1
        ) from None
    environment["PWD"] = directory
    os.umask(record.umask)
    user = environment.get("USER", str(record.uid))
    kind = os.O_APPEND if request.append else os.O_APPEND | os.O_TRUNC
    writing = os.O_WRONLY | os.O_CREAT | kind
    _redirect(0, "input", expand(request.input or os.devnull, record, user), os.O_RDONLY)
    _redirect(1, "output", expand(request.output or "slurm-%j.out", record, user), writing)
    if request.error is None:
        os.dup2(1, 2)
    else:
        _redirect(2, "error", expand(request.error, record, user), writing)


def _redirect(target: int, what: str, path: str, flags: int) -> None:
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise StartFailed(f"the {what} file {path} cannot be opened: {error.strerror}", 1) from None
    os.dup2(descriptor, target)


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
