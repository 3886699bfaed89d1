"""Slurm's commands as they answer on the login side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from hpc_bridge.doctor import scheduler
from hpc_bridge.doctor.findings import Verdict, green, red, skipped, yellow
from hpc_bridge.doctor.scheduler import Checks, Product, SchedulerCommands, said
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import HPCBridgeError
from hpc_bridge.journal import new_submission_id
from hpc_bridge.transports.base import Completed

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct")
SLURM = Product(
    name="Slurm",
    module="slurm",
    folders=(
        *("/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/usr/local/slurm/bin"),
        *("/opt/slurm/current/bin", "/cm/shared/apps/slurm/current/bin"),
        "/run/current-system/sw/bin",
    ),
    oldest=(22, 5),
    tested="Slurm 22.05 and later",
)


def check_commands(subject: Subject) -> Verdict:
    """Every command that is needed is there and says the same version."""
    accounting = subject.profile is None or subject.profile.scheduler.accounting
    wanted = [name for name in COMMANDS if accounting or name != "sacct"]
    return scheduler.check_commands(subject, SLURM, wanted)


def check_controller(subject: Subject) -> Verdict:
    """Whether slurmctld answers."""
    return judge_controller(SchedulerCommands.of(subject).run("scontrol", "ping"))


def judge_controller(answer: Completed) -> Verdict:
    """The verdict on ``scontrol ping``, which has a line for each controller."""
    lines = [line.strip() for line in answer.stdout.splitlines() if " is " in line]
    up = [line for line in lines if line.endswith("UP")]
    if not up:
        return red(
            f"Slurm's controller does not answer: {said(answer)}",
            "wait and try again; jobs that run go on. The site's support knows when it comes back",
        )
    if len(up) < len(lines):
        return yellow("; ".join(lines), "one controller is down; the site's support should know")
    return green("; ".join(lines))


def check_accounting(subject: Subject) -> Verdict:
    """Whether sacct answers."""
    if subject.profile is not None and not subject.profile.scheduler.accounting:
        return skipped("the profile says that the site keeps no records (scheduler.accounting)")
    answer = SchedulerCommands.of(subject).run(
        "sacct", "--noheader", "--allocations", "--starttime=now", "--format=JobID"
    )
    return judge_accounting(answer)


def judge_accounting(answer: Completed) -> Verdict:
    """The verdict on a small question to sacct."""
    if "accounting storage is disabled" in answer.stderr:
        return yellow(
            "the site keeps no records of ended jobs",
            "whoever owns the profile: set scheduler.accounting to false",
        )
    if answer.exit_code != 0:
        return red(
            f"sacct does not answer: {said(answer)}",
            "jobs run all the same, but why one ended may stay unknown; tell the site's support"
            " that slurmdbd does not answer",
        )
    return green("sacct answers")


def check_submission(subject: Subject) -> Verdict:
    """Whether Slurm would take a job of ours, which is tried without submitting it."""
    name = new_submission_id()
    argv = [*subject.cluster.scheduler.submit_command(name), "--test-only"]
    # The script does not run: which Python would is another step's question.
    script = subject.script(name, python="python3")
    answer = SchedulerCommands.of(subject).run_argv(argv, script.encode())
    with suppress(HPCBridgeError):
        subject.partitions = sorted(subject.cluster.queues())
    spec = subject.configuration
    asked = {"partition": spec.partition, "account": spec.account, "qos": spec.qos}
    return judge_submission(answer, asked, subject.partitions)


def judge_submission(
    answer: Completed, asked: Mapping[str, str | None], partitions: Sequence[str]
) -> Verdict:
    """The verdict on ``sbatch --test-only``, whose words are on standard error either way."""
    words = " ".join(line.removeprefix("sbatch: ").strip() for line in answer.stderr.splitlines())
    given = ", ".join(f"{name} {value}" for name, value in asked.items() if value)
    if answer.exit_code == 0:
        start = re.search(r"to start at (\S+)", words)
        when = f"; one could start at {start[1].replace('T', ' ')} UTC" if start else ""
        return green(f"Slurm takes your jobs{f' ({given})' if given else ''}{when}")
    if re.search(r"invalid partition|partition.*(not|un)available|access", words, re.IGNORECASE):
        advice = f"choose another with --partition: {', '.join(partitions) or 'see sinfo'}"
    elif re.search(r"account|association|qos", words, re.IGNORECASE):
        advice = (
            "'sacctmgr show associations user=$USER format=account,partition,qos' lists what is"
            " yours; write account: or qos: into your own part of the site"
            " (~/.config/hpc-bridge/my-sites/<site>.yaml), or ask the site for an account"
        )
    else:
        advice = "change what is asked for as Slurm says, or choose another --partition"
    return red(f"Slurm refuses a job of yours{f' ({given})' if given else ''}: {words}", advice)


CHECKS = Checks(
    commands=check_commands,
    answers=check_controller,
    records=check_accounting,
    submission=check_submission,
    profile=scheduler.check_profile_facts,
    look_with="squeue --me, and sacct -j {}",
)
