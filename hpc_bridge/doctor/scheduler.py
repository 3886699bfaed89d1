"""The scheduler's commands as they answer on the login side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hpc_bridge import load
from hpc_bridge.doctor.findings import Verdict, green, one_line, red, skipped, yellow
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import CommandError, HPCBridgeError
from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.journal import new_submission_id
from hpc_bridge.schedulers.base import Queue
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.transports.base import Completed, Transport
from hpc_bridge.transports.login import LOCAL

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct")
OLDEST = (22, 5)
"""Slurm's version that is still tested."""
_SECONDS = 30.0
# Where sites put Slurm without telling PATH.
_USUAL_FOLDERS = (
    *("/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/usr/local/slurm/bin"),
    *("/opt/slurm/current/bin", "/cm/shared/apps/slurm/current/bin", "/run/current-system/sw/bin"),
)
_VERSION = re.compile(r"\b(\d+)\.(\d+)(?:\.\d+)?\S*")


@dataclass(frozen=True, slots=True)
class SlurmCommands:
    """Slurm's commands, as the profile names them."""

    transport: Transport
    scheduler: SlurmScheduler
    place: str
    """As ``hpc_bridge.load`` counts."""

    @classmethod
    def of(cls, subject: Subject) -> SlurmCommands:
        """As a job's submitter would call them."""
        cluster = subject.cluster
        if not isinstance(cluster.scheduler, SlurmScheduler):
            raise TypeError(f"{cluster.scheduler.name} has no commands of Slurm")
        return cls(cluster.transport, cluster.scheduler, subject.connection.place)

    def run(self, name: str, *arguments: str) -> Completed:
        """One command's answer; exit code 127 when there is no such command."""
        return self.run_argv([*self.scheduler.command(name), *arguments])

    def run_argv(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        """As ``run``."""
        load.count(self.place, "doctor")
        unset = self.scheduler.leaked_variables
        return self.transport.run(argv, stdin=stdin, timeout=_SECONDS, unset=unset)

    def folder_with(self, name: str) -> str | None:
        """One of the usual folders that has the command although PATH does not name it."""
        look = 'for f; do [ -x "$f/$0" ] && echo "$f" && break; done'
        found = self.transport.run(["/bin/sh", "-c", look, name, *_USUAL_FOLDERS], timeout=_SECONDS)
        return found.stdout.strip() or None

    def words(self, name: str) -> Sequence[str]:
        """The command or the wrapper that the profile names for it."""
        return self.scheduler.commands.argv(name)


def check_commands(subject: Subject) -> Verdict:
    """Every command that is needed is there and says the same version."""
    commands = SlurmCommands.of(subject)
    answers: dict[str, Completed] = {}
    for name in wanted(subject):
        try:
            answers[name] = commands.run(name, "--version")
        except CommandError as error:
            answers[name] = Completed(error.exit_code or 1, "", str(error))
    missing = [name for name, answer in answers.items() if answer.exit_code in (126, 127)]
    if missing:
        return judge_missing(missing, commands, subject)
    asked = subject.profile.scheduler.version if subject.profile else None
    return judge_commands(answers, commands.words, asked)


def wanted(subject: Subject) -> list[str]:
    """Commands that this site is asked with."""
    accounting = subject.profile is None or subject.profile.scheduler.accounting
    return [name for name in COMMANDS if accounting or name != "sacct"]


def judge_commands(
    answers: Mapping[str, Completed],
    words: Callable[[str], Sequence[str]],
    profiled: str | None,
) -> Verdict:
    """The verdict on the answers of each command, which are all there, to ``--version``."""
    for name, answer in answers.items():
        if answer.exit_code != 0 or not _VERSION.search(answer.stdout):
            said = (answer.stderr or answer.stdout).strip() or f"exit code {answer.exit_code}"
            return red(
                f"{name} does not say its version: {said[-200:]}",
                f"run '{' '.join(words(name))} --version' by hand; ask the site's support when it"
                " fails there too",
            )
    versions = {match[0] for a in answers.values() if (match := _VERSION.search(a.stdout))}
    first = sorted(versions)[0]
    message = f"{', '.join(answers)}: Slurm {' and '.join(sorted(versions))}"
    if len(versions) > 1:
        return yellow(
            message,
            "PATH mixes several installations of Slurm; keep the folder of one in it",
        )
    numbers = tuple(int(part) for part in first.split(".")[:2])
    if numbers < OLDEST:
        return yellow(message, "hpc-bridge is tested with Slurm 22.05 and later")
    if profiled and _VERSION.search(profiled) and first.split(".")[:2] != profiled.split(".")[:2]:
        return yellow(
            f"{message}; the profile says {profiled}",
            f"whoever owns the profile: set scheduler.version to '{first}'",
        )
    return green(message)


def judge_missing(missing: Sequence[str], commands: SlurmCommands, subject: Subject) -> Verdict:
    """The verdict on commands that are not there, with the folder that may have them."""
    command = missing[0]
    named = commands.words(command)[0]
    names = ", ".join(" ".join(commands.words(name)) for name in missing)
    if "/" in named:
        return red(
            f"{names}: there is no such command {subject.here}",
            f"correct scheduler.commands.{command} in the profile; 'command -v {command}' says"
            " where it is on a login node",
        )
    found = commands.folder_with(command)
    host = subject.login.host
    if subject.login != LOCAL:
        # What a login shell or a module sets does not count for a command over SSH.
        brings = f"export PATH=$PATH:{found}" if found else "what brings Slurm's commands to PATH"
        advice = (
            f"write {brings} into a start-up file on {host} that also commands over SSH read"
            f" (~/.bashrc, before any test for a terminal); `ssh {host} command -v {command}` tries"
            " it"
        )
    elif found:
        advice = f"export PATH=$PATH:{found}"
    else:
        advice = (
            "run this on a login node, or load the module that brings Slurm's commands (module"
            " avail slurm)"
        )
    where = "" if subject.login == LOCAL else f" on {host}"
    return red(
        f"not on PATH{where}: {names}",
        subject.where_to_set(f"scheduler.commands.{command}", advice),
    )


def check_controller(subject: Subject) -> Verdict:
    """Whether slurmctld answers."""
    return judge_controller(SlurmCommands.of(subject).run("scontrol", "ping"))


def judge_controller(answer: Completed) -> Verdict:
    """The verdict on ``scontrol ping``, which has a line for each controller."""
    lines = [line.strip() for line in answer.stdout.splitlines() if " is " in line]
    up = [line for line in lines if line.endswith("UP")]
    if not up:
        said = (answer.stderr or answer.stdout).strip() or f"exit code {answer.exit_code}"
        return red(
            f"Slurm's controller does not answer: {said[-200:]}",
            "wait and try again; jobs that run go on. The site's support knows when it comes back",
        )
    if len(up) < len(lines):
        return yellow("; ".join(lines), "one controller is down; the site's support should know")
    return green("; ".join(lines))


def check_accounting(subject: Subject) -> Verdict:
    """Whether sacct answers."""
    if subject.profile is not None and not subject.profile.scheduler.accounting:
        return skipped("the profile says that the site keeps no records (scheduler.accounting)")
    answer = SlurmCommands.of(subject).run(
        "sacct", "--noheader", "--allocations", "--starttime=now", "--format=JobID"
    )
    return judge_accounting(answer)


def judge_accounting(answer: Completed) -> Verdict:
    """The verdict on a small question to sacct."""
    said = (answer.stderr or answer.stdout).strip() or f"exit code {answer.exit_code}"
    if "accounting storage is disabled" in answer.stderr:
        return yellow(
            "the site keeps no records of ended jobs",
            "whoever owns the profile: set scheduler.accounting to false",
        )
    if answer.exit_code != 0:
        return red(
            f"sacct does not answer: {said[-200:]}",
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
    answer = SlurmCommands.of(subject).run_argv(argv, script.encode())
    with suppress(HPCBridgeError):
        subject.partitions = sorted(subject.cluster.queues())
    spec = subject.configuration
    asked = {"partition": spec.partition, "account": spec.account, "qos": spec.qos}
    return judge_submission(answer, asked, subject.partitions)


def check_profile_facts(subject: Subject) -> Verdict:
    """Whether the profile's partitions are the scheduler's; never red, since jobs may run."""
    if subject.profile is None:
        return skipped("no profile is used")
    try:
        queues = subject.cluster.queues()
    except HPCBridgeError as error:
        return yellow(f"the scheduler does not say its partitions: {one_line(error)}")
    return judge_profile_facts(subject.profile, queues)


def judge_profile_facts(profile: SiteProfile, queues: Mapping[str, Queue]) -> Verdict:
    """The verdict on what the profile says and the scheduler does not."""
    problems = []
    for partition in profile.partitions:
        queue = queues.get(partition.name)
        if queue is None:
            problems.append(f"the scheduler shows no partition {partition.name!r}")
            continue
        longest, said = queue.walltime_seconds, partition.walltime
        if longest is not None and said is not None and said > longest:
            problems.append(
                f"partition {partition.name!r} takes jobs of {format_walltime(longest)} at most,"
                f" and the profile says {format_walltime(said)}"
            )
    if problems:
        return yellow(
            "; ".join(problems),
            "whoever owns the profile: compare it with what the cluster says now, 'hpc-bridge site"
            " init --output -'",
        )
    if not profile.partitions:
        return green("the profile names no partitions")
    return green("the scheduler has every partition of the profile, for as long")


def judge_submission(
    answer: Completed, asked: Mapping[str, str | None], partitions: Sequence[str]
) -> Verdict:
    """The verdict on ``sbatch --test-only``, whose words are on standard error either way."""
    said = " ".join(line.removeprefix("sbatch: ").strip() for line in answer.stderr.splitlines())
    given = ", ".join(f"{name} {value}" for name, value in asked.items() if value)
    if answer.exit_code == 0:
        start = re.search(r"to start at (\S+)", said)
        when = f"; one could start at {start[1].replace('T', ' ')} UTC" if start else ""
        return green(f"Slurm takes your jobs{f' ({given})' if given else ''}{when}")
    if re.search(r"invalid partition|partition.*(not|un)available|access", said, re.IGNORECASE):
        advice = f"choose another with --partition: {', '.join(partitions) or 'see sinfo'}"
    elif re.search(r"account|association|qos", said, re.IGNORECASE):
        advice = (
            "'sacctmgr show associations user=$USER format=account,partition,qos' lists what is"
            " yours; write account: or qos: into your own part of the site"
            " (~/.config/hpc-bridge/my-sites/<site>.yaml), or ask the site for an account"
        )
    else:
        advice = "change what is asked for as Slurm says, or choose another --partition"
    return red(f"Slurm refuses a job of yours{f' ({given})' if given else ''}: {said}", advice)
