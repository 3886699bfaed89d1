"""How a job ended, in words: the cause, what it asked for and used, its last words, what to do."""

from __future__ import annotations

import signal

from hpc_bridge.jobs import NEVER_STARTED, JobSpec, JobState, JobStatus, units
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.node.records import ExitRecord
from hpc_bridge.sites.words import queue_word
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles

EXPLAINED = "Job "
"""How a message that has all this begins; what is said on the node begins otherwise."""

_ADVICE = {
    JobState.TIMEOUT: (
        'Ask for a longer walltime, or let the run go on in further jobs (on_walltime="resubmit"),'
        " which needs persisted results."
    ),
    JobState.OUT_OF_MEMORY: "Ask for more memory.",
    JobState.NODE_FAIL: "Submit again; ask the site if it happens often.",
    JobState.PREEMPTED: "Use a {queue} that is not preempted, or allow requeue.",
    JobState.BOOT_FAIL: "Submit again; ask the site if it happens often.",
    JobState.DEADLINE: "Give a later deadline, or ask for less walltime.",
    JobState.LOST: "Look at the job's output; submit again if it did not run.",
}


def crash_message(
    status: JobStatus,
    record: ExitRecord | None,
    output: str,
    spec: JobSpec | None,
    usage: JobUsage | None,
    scheduler: str = "slurm",
) -> str:
    """Of a job that ended before, or without, a final state of its flow run."""
    word = queue_word(scheduler)
    lines = [
        f"{EXPLAINED}{status.job_id} {_ending(status, record)}{_limit(status.state, spec)}.",
        record.message if record else "",
        f"{status.reason}." if status.reason and _is_only_over(status) else "",
        asked(spec, word),
        used(usage),
        _advice(status, record, spec).replace("{queue}", word),
        f"Last lines of its output:\n{output}" if output else "It printed nothing.",
    ]
    return "\n".join(line for line in lines if line)


def cancel_message(
    status: JobStatus,
    record: ExitRecord | None,
    output: str,
    usage: JobUsage | None,
    *,
    from_prefect: bool,
    files: ClusterFiles = HERE,
) -> str:
    """Of a job that was cancelled, or whose run was; ``files`` know the cluster's accounts."""
    by = status.cancelled_by
    ours = from_prefect and (by is None or by == str(files.account().uid))
    who = "" if ours else f" at the scheduler{f' by {_person(by, files)}' if by else ''}"
    cancelled = status.state is JobState.CANCELLED
    waited = cancelled and record is None and not _has_started(status)
    when = " before it started" if waited else ""
    if waited and not ours and status.reason and status.reason.startswith(NEVER_STARTED):
        when += f": {status.reason.removeprefix(NEVER_STARTED)}"
    if not cancelled and status.scheduler_state:
        when = f" and ended as {_word(status)}"
    lines = [
        f"Job {status.job_id} was cancelled{who}{when}.",
        "" if waited or (ours and usage is None) else used(usage),
        f"Last lines of its output:\n{output}" if output else "",
    ]
    if cancelled and status.reason and not status.scheduler_state and not ours:
        lines.insert(1, f"There is no record of it: {status.reason}.")
    return "\n".join(line for line in lines if line)


def _has_started(status: JobStatus) -> bool:
    # 22.05 gives a job that was cancelled in the queue the moment of that as its start.
    return status.started is not None and bool(status.nodes)


def _ending(status: JobStatus, record: ExitRecord | None) -> str:
    if status.state is JobState.LOST and record is None:
        return f"is {status.reason}, and left no exit record"
    node = status.nodes or (record.node if record else "")
    where = f" on {node}" if node else ""
    # The job's own record first: sacct before 26.05 takes 128 from higher codes (143 is "15:0").
    # Of a job that Slurm ended itself its code says nothing (NODE_FAIL 1:0, TIMEOUT 0:0).
    own = status.exit_code if status.state is JobState.FAILED else None
    code = record.exit_code if record is not None else own
    number = record.signal if record is not None and record.signal else status.signal
    if number and status.state is not JobState.OUT_OF_MEMORY:  # where Slurm says signal 125
        word = _word(status) or "gone from the queue"
        return f"died of signal {_signal(number)}{where} ({word})"
    if status.state is JobState.COMPLETED:
        return f"ended{where} without a final state of its flow run"
    ended = f"ended as {_word(status)}" if status.scheduler_state else "ended"
    return f"{ended}{where}" + (f" with exit code {code}" if code is not None else "")


def _is_only_over(status: JobStatus) -> bool:
    """Whether the scheduler's word is PBS's letter for every end; why is its reason then."""
    return status.scheduler_state in ("F", "X")


def _word(status: JobStatus) -> str | None:
    return status.state.value if _is_only_over(status) else status.scheduler_state


def _signal(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _person(user: str, files: ClusterFiles) -> str:
    """The login name of a user id, where the cluster knows it."""
    return (files.person(int(user)) if user.isdecimal() else None) or user


def _limit(state: JobState, spec: JobSpec | None) -> str:
    """What was asked of that which ran out."""
    if spec is None:
        return ""
    if state is JobState.TIMEOUT and spec.walltime:
        return f"; its walltime was {units.format_walltime(spec.walltime)}"
    if state is JobState.OUT_OF_MEMORY:
        for size, what in ((spec.memory, "per node"), (spec.memory_per_cpu, "per CPU")):
            if size:
                return f"; it had asked for {units.format_memory(size)} {what}"
    return ""


def asked(spec: JobSpec | None, queue: str = "partition") -> str:
    """What the job asked for; nothing when it left all to the site."""
    if spec is None:
        return ""
    parts = [
        spec.walltime and f"walltime {units.format_walltime(spec.walltime)}",
        spec.memory and f"{units.format_memory(spec.memory)} of memory per node",
        spec.memory_per_cpu and f"{units.format_memory(spec.memory_per_cpu)} of memory per CPU",
        spec.nodes and f"nodes {spec.nodes}",
        spec.tasks and f"tasks {spec.tasks}",
        spec.tasks_per_node and f"tasks per node {spec.tasks_per_node}",
        spec.cpus_per_task and f"CPUs per task {spec.cpus_per_task}",
        spec.gpus and f"GPUs {spec.gpus}",
        spec.gpus_per_node and f"GPUs per node {spec.gpus_per_node}",
        spec.partition and f"{queue} {spec.partition}",
    ]
    told = ", ".join(part for part in parts if part)
    return f"It had asked for: {told}." if told else ""


def used(usage: JobUsage | None) -> str:
    """What it used, as far as the scheduler has recorded it."""
    if usage is None:
        return "What it used is not known: the scheduler's records could not be had."
    if usage.started is None and usage.ended is not None:
        return "It did not start."
    cpu, memory = usage.cpu_efficiency, usage.memory_efficiency
    parts = [
        usage.wall_seconds is not None
        and f"walltime {units.format_walltime(round(usage.wall_seconds))}",
        usage.max_memory is not None
        and f"memory {readable_memory(usage.max_memory)}"
        f"{f' ({memory:.0f} % of what it asked for)' if memory is not None else ''}",
        cpu is not None and f"{cpu:.0f} % of its CPU time",
        usage.gpu_utilisation is not None and f"{usage.gpu_utilisation:.0f} % of its GPUs",
    ]
    told = ", ".join(part for part in parts if part)
    return f"It used: {told}." if told else "The site has no record of what it used."


def readable_memory(mebibytes: int) -> str:
    """MiB in the unit that people would choose, rounded."""
    for unit, size in (("T", 1024 * 1024), ("G", 1024)):
        if mebibytes >= size:
            return f"{mebibytes / size:.1f}".removesuffix(".0") + unit
    return f"{mebibytes}M"


def _advice(status: JobStatus, record: ExitRecord | None, spec: JobSpec | None) -> str:
    if record is not None and status.state is JobState.LOST:
        return ""  # which has a record of its end and so is not lost
    if status.state is JobState.OUT_OF_MEMORY and spec is not None:
        for name, size in (("memory", spec.memory), ("memory_per_cpu", spec.memory_per_cpu)):
            if size:
                return f'Ask for more memory, for example {name}="{units.format_memory(2 * size)}".'
    number = record.signal if record is not None and record.signal else status.signal
    if number == signal.SIGKILL and status.state is JobState.FAILED:
        return (
            "That is often too little memory, where the scheduler does not say why; ask for more."
        )
    return _ADVICE.get(status.state, "")
