"""The scheduler's commands as they answer on the login side: what Slurm and PBS have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpc_bridge import load
from hpc_bridge.doctor.findings import Verdict, green, one_line, red, skipped, yellow
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import CommandError, HPCBridgeError
from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.schedulers.base import Queue
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.schedulers.torque import TorqueScheduler
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.words import queue_word
from hpc_bridge.transports.base import Completed, Transport
from hpc_bridge.transports.login import LOCAL

_SECONDS = 30.0
_VERSION = re.compile(r"\b(\d+)\.(\d+)(?:\.\d+)?\S*")


@dataclass(frozen=True, slots=True)
class Product:
    """One scheduler as sites install it."""

    name: str
    module: str
    """What its environment module is mostly called."""
    folders: tuple[str, ...]
    """Where sites put it without telling PATH."""
    oldest: tuple[int, ...]
    """First version that is read as a newer one."""
    tested: str
    """The same in words."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What is examined of one scheduler, in the order of the steps."""

    commands: Callable[[Subject], Verdict]
    answers: Callable[[Subject], Verdict]
    records: Callable[[Subject], Verdict]
    submission: Callable[[Subject], Verdict]
    profile: Callable[[Subject], Verdict]
    look_with: str
    """Commands with which a person looks at a job; ``{}`` is its id."""


@dataclass(frozen=True, slots=True)
class SchedulerCommands:
    """A scheduler's commands, as the profile names them."""

    transport: Transport
    scheduler: SlurmScheduler | PBSScheduler | TorqueScheduler
    place: str
    """As ``hpc_bridge.load`` counts."""

    @classmethod
    def of(cls, subject: Subject) -> SchedulerCommands:
        """As a job's submitter would call them."""
        cluster = subject.cluster
        if not isinstance(cluster.scheduler, SlurmScheduler | PBSScheduler | TorqueScheduler):
            raise TypeError(f"{cluster.scheduler.name} has no commands of a site")
        return cls(cluster.transport, cluster.scheduler, subject.connection.place)

    def run(self, name: str, *arguments: str) -> Completed:
        """One command's answer; exit code 127 when there is no such command."""
        return self.run_argv([*self.scheduler.command(name), *arguments])

    def run_argv(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        """As ``run``."""
        load.count(self.place, "doctor")
        unset = self.scheduler.leaked_variables
        return self.transport.run(argv, stdin=stdin, timeout=_SECONDS, unset=unset)

    def folder_with(self, name: str, folders: Sequence[str]) -> str | None:
        """The first of the folders that has the command."""
        look = 'for f; do [ -x "$f/$0" ] && echo "$f" && break; done'
        found = self.transport.run(["/bin/sh", "-c", look, name, *folders], timeout=_SECONDS)
        return found.stdout.strip() or None

    def words(self, name: str) -> Sequence[str]:
        """The command or the wrapper that the profile names for it."""
        return self.scheduler.commands.argv(name)


def check_commands(subject: Subject, product: Product, wanted: Sequence[str]) -> Verdict:
    """Every command that is needed is there and says the same version."""
    commands = SchedulerCommands.of(subject)
    answers: dict[str, Completed] = {}
    for name in wanted:
        try:
            answers[name] = commands.run(name, "--version")
        except CommandError as error:
            answers[name] = Completed(error.exit_code or 1, "", str(error))
    missing = [name for name, answer in answers.items() if answer.exit_code in (126, 127)]
    if missing:
        return judge_missing(missing, commands, subject, product)
    asked = subject.profile.scheduler.version if subject.profile else None
    return judge_commands(answers, commands.words, asked, product)


def judge_commands(
    answers: Mapping[str, Completed],
    words: Callable[[str], Sequence[str]],
    profiled: str | None,
    product: Product,
) -> Verdict:
    """The verdict on the answers of each command, which are all there, to ``--version``."""
    for name, answer in answers.items():
        if answer.exit_code != 0 or not _VERSION.search(answer.stdout):
            return red(
                f"{name} does not say its version: {said(answer)}",
                f"run '{' '.join(words(name))} --version' by hand; ask the site's support when it"
                " fails there too",
            )
    versions = {match[0] for a in answers.values() if (match := _VERSION.search(a.stdout))}
    first = sorted(versions)[0]
    message = f"{', '.join(answers)}: {product.name} {' and '.join(sorted(versions))}"
    if len(versions) > 1:
        return yellow(
            message,
            f"PATH mixes several installations of {product.name}; keep the folder of one in it",
        )
    numbers = tuple(int(part) for part in first.split(".")[:2])
    if numbers < product.oldest:
        return yellow(message, f"hpc-bridge is tested with {product.tested}")
    if profiled and _VERSION.search(profiled) and first.split(".")[:2] != profiled.split(".")[:2]:
        return yellow(
            f"{message}; the profile says {profiled}",
            f"whoever owns the profile: set scheduler.version to '{first}'",
        )
    return green(message)


def judge_missing(
    missing: Sequence[str], commands: SchedulerCommands, subject: Subject, product: Product
) -> Verdict:
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
    found = commands.folder_with(command, product.folders)
    host = subject.login.host
    if subject.login != LOCAL:
        # What a login shell or a module sets does not count for a command over SSH.
        usual = f"what brings {product.name}'s commands to PATH"
        brings = f"export PATH=$PATH:{found}" if found else usual
        advice = (
            f"write {brings} into a start-up file on {host} that also commands over SSH read"
            f" (~/.bashrc, before any test for a terminal); `ssh {host} command -v {command}` tries"
            " it"
        )
    elif found:
        advice = f"export PATH=$PATH:{found}"
    else:
        advice = (
            f"run this on a login node, or load the module that brings {product.name}'s commands"
            f" (module avail {product.module})"
        )
    where = "" if subject.login == LOCAL else f" on {host}"
    return red(
        f"not on PATH{where}: {names}",
        subject.where_to_set(f"scheduler.commands.{command}", advice),
    )


def said(answer: Completed) -> str:
    """The end of what a command that failed has to say, in one line."""
    words = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
    return "; ".join(words)[-200:] or f"exit code {answer.exit_code}"


def check_profile_facts(subject: Subject) -> Verdict:
    """Whether the profile's partitions are the scheduler's; never red, since jobs may run."""
    if subject.profile is None:
        return skipped("no profile is used")
    try:
        queues = subject.cluster.queues()
    except HPCBridgeError as error:
        word = queue_word(subject.profile.scheduler.type)
        return yellow(f"the scheduler does not say its {word}s: {one_line(error)}")
    return judge_profile_facts(subject.profile, queues)


def judge_profile_facts(profile: SiteProfile, queues: Mapping[str, Queue]) -> Verdict:
    """The verdict on what the profile says and the scheduler does not."""
    word = queue_word(profile.scheduler.type)
    problems = []
    for partition in profile.partitions:
        queue = queues.get(partition.name)
        if queue is None:
            problems.append(f"the scheduler shows no {word} {partition.name!r}")
            continue
        longest, told = queue.walltime_seconds, partition.walltime
        if longest is not None and told is not None and told > longest:
            problems.append(
                f"{word} {partition.name!r} takes jobs of {format_walltime(longest)} at most,"
                f" and the profile says {format_walltime(told)}"
            )
    problems += _without_gpus(profile, queues)
    if problems:
        return yellow(
            "; ".join(problems),
            "whoever owns the profile: compare it with what the cluster says now, 'hpc-bridge site"
            " init --output -'",
        )
    if not profile.partitions:
        return green(f"the profile names no {word}s")
    return green(f"the scheduler has every {word} of the profile, for as long")


def _without_gpus(profile: SiteProfile, queues: Mapping[str, Queue]) -> list[str]:
    """A site of PBS that counts its GPUs by another name has none to those who ask by this one."""
    resource = profile.scheduler.gpu_resource or "ngpus"
    named = any(partition.gpus_per_node for partition in profile.partitions)
    nodes = [node for queue in queues.values() for node in queue.nodes]
    if profile.scheduler.type != "pbs" or not named or not nodes or any(n.gpus for n in nodes):
        return []
    return [f"no node has GPUs by the name {resource!r} (scheduler.gpu_resource)"]
