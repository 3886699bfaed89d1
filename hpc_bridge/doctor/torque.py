"""Torque-style wrappers of Slurm as they answer on the login side: they tell little."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_bridge.doctor import scheduler
from hpc_bridge.doctor.findings import Verdict, green, red, yellow
from hpc_bridge.doctor.pbs import PBS
from hpc_bridge.doctor.scheduler import Checks, SchedulerCommands, judge_missing
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.schedulers.base import Queue
from hpc_bridge.schedulers.torque import COMMANDS

_SECONDS = 30.0
# They know no --version.
_MISSING = 'for name; do command -v "$name" >/dev/null || echo "$name"; done'


def check_commands(subject: Subject) -> Verdict:
    """Every command that is needed is there."""
    commands = SchedulerCommands.of(subject)
    programs = {commands.words(name)[0]: name for name in COMMANDS}
    argv = ["sh", "-c", _MISSING, "sh", *programs]
    said = commands.transport.run(argv, timeout=_SECONDS).stdout.splitlines()
    missing = [programs[program] for program in said if program in programs]
    if missing:
        return judge_missing(missing, commands, subject, PBS)
    return green(f"{', '.join(programs)} are there")


def check_answer(subject: Subject) -> Verdict:
    """Whether the scheduler behind them answers. Raises what asking it raises."""
    return green(f"qstat shows {len(subject.cluster.queues())} queues")


def check_records(subject: Subject) -> Verdict:  # noqa: ARG001  as of other schedulers
    """They have none."""
    return green(
        "qstat does not say how jobs ended: lived with, each job's own exit record decides"
    )


def check_submission(subject: Subject) -> Verdict:
    """Whether the queue is there and up; more is not told."""
    queues = subject.cluster.queues()
    subject.partitions = sorted(queue.name for queue in queues.values() if queue.is_up)
    return judge_submission(subject.configuration.partition, queues)


def judge_submission(named: str | None, queues: Mapping[str, Queue]) -> Verdict:
    """The verdict on the queue that is asked for, if one is."""
    up = ", ".join(sorted(queue.name for queue in queues.values() if queue.is_up))
    others = f"choose another with --queue: {up or 'see qstat -q'}"
    if named is None:
        return green("no queue is asked for, and which is the default is not told")
    if named not in queues:
        return red(f"there is no queue {named!r}", others)
    if not queues[named].is_up:
        return yellow(f"queue {named!r} is down", others, blocks=True)
    return green(f"queue {named} is up; whether it takes your jobs is not told")


CHECKS = Checks(
    commands=check_commands,
    answers=check_answer,
    records=check_records,
    submission=check_submission,
    profile=scheduler.check_profile_facts,
    look_with="qstat -f {}",
)
