"""PBS's commands as they answer on the login side."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_bridge.doctor import scheduler
from hpc_bridge.doctor.findings import Verdict, green, red, skipped, yellow
from hpc_bridge.doctor.scheduler import Checks, Product, SchedulerCommands, said
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import CommandError
from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.schedulers.pbs import COMMANDS
from hpc_bridge.schedulers.pbs_site import (
    AS_JSON,
    SiteQueue,
    SiteServer,
    parse_queues,
    parse_server,
)
from hpc_bridge.transports.base import Completed

PBS = Product(
    name="PBS",
    module="pbs",
    folders=(
        *("/opt/pbs/bin", "/opt/pbs/default/bin", "/usr/pbs/bin", "/usr/local/pbs/bin"),
        *("/usr/local/bin", "/usr/bin", "/cm/shared/apps/pbspro/current/bin"),
        "/cm/shared/apps/openpbs/current/bin",
    ),
    oldest=(19,),
    tested="OpenPBS, and with what PBS Pro 19 and later answer",
)
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Person:
    """Whose jobs they are, by names of the login side."""

    user: str
    groups: tuple[str, ...] = ()


def check_commands(subject: Subject) -> Verdict:
    """Every command that is needed is there and says the same version."""
    return scheduler.check_commands(subject, PBS, COMMANDS)


def check_server(subject: Subject) -> Verdict:
    """Whether the server answers, and starts jobs."""
    return judge_server(_ask_server(SchedulerCommands.of(subject)))


def judge_server(answer: Completed) -> Verdict:
    """The verdict on ``qstat -B -f``."""
    server = None if answer.exit_code != 0 else parse_server(answer.stdout)
    if server is None:
        return red(
            f"PBS's server does not answer: {said(answer)}",
            "wait and try again; jobs that run go on. The site's support knows when it comes back",
        )
    if not server.is_scheduling:
        return yellow(
            f"the server {server.name} answers, but scheduling is switched off: no job starts",
            "the site's support knows when it is switched on again",
        )
    return green(f"the server {server.name} answers")


def check_history(subject: Subject) -> Verdict:
    """Whether jobs that are over can be looked up."""
    profiled = subject.profile.scheduler.accounting if subject.profile else None
    if profiled is False:
        return skipped("the profile says that the site keeps no history (scheduler.accounting)")
    answer = _ask_server(SchedulerCommands.of(subject))
    server = None if answer.exit_code != 0 else parse_server(answer.stdout)
    if server is None:
        return skipped("the server does not answer")
    return judge_history(server, profiled=profiled)


def judge_history(server: SiteServer, *, profiled: bool | None) -> Verdict:
    """The verdict on what the server keeps; ``profiled`` is what the profile says, if there is."""
    if server.keeps_history:
        return green("the server keeps the history of jobs")
    message = (
        "the server forgets jobs as they end (job_history_enable is not set): lived with, since"
        " each job's own exit record decides; of one that left none the cause stays unknown"
    )
    if profiled:
        return yellow(message, "whoever owns the profile: set scheduler.accounting to false")
    return green(message)


def check_submission(subject: Subject) -> Verdict:
    """Whether PBS would take a job of ours, as far as that is seen without submitting one."""
    commands = SchedulerCommands.of(subject)
    server = parse_server(_ask_server(commands).stdout)
    answer = commands.run("qstat", "-Q", "-f", *AS_JSON)
    if server is None or answer.exit_code != 0:
        return red(f"PBS does not say its queues: {said(answer)}", "try again")
    queues = parse_queues(answer.stdout)
    subject.partitions = sorted(one.name for one in queues if one.is_enabled and one.is_started)
    spec = subject.configuration
    named = spec.partition or spec.reservation
    return judge_submission(named, spec.walltime, server, queues, _person(commands))


def judge_submission(
    named: str | None,
    walltime: int | None,
    server: SiteServer,
    queues: Sequence[SiteQueue],
    who: Person,
) -> Verdict:
    """The verdict on a job of ``walltime`` seconds in a queue, or in the default one."""
    known = {queue.name: queue for queue in queues}
    name = named or server.default_queue
    up = [one.name for one in queues if one.is_enabled and one.is_started and one.name != name]
    others = f"choose another with --queue: {', '.join(up) or 'see qstat -Q'}"
    if name is None:
        return red("no queue is named, and the server has no default", others)
    if "@" in name:
        return yellow(f"queue {name!r} is of another server, which is not asked")
    queue = known.get(name)
    if queue is None:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        return red(f"there is no queue {name!r}{guess}", others)
    if not queue.is_enabled:
        return red(f"queue {name!r} is disabled: it takes no jobs now", others)
    if queue.only_from_routes:
        via = [one.name for one in queues if one.is_routing and name in one.leads_to]
        return red(
            f"queue {name!r} takes jobs from routing queues only",
            f"choose with --queue: {', '.join(via) or others}",
        )
    if problem := _walltime_problem(queue, server, walltime):
        return red(f"queue {name!r} {problem}", others)
    if problem := _access_problem(queue, server, who):
        return yellow(problem, f"ask the site for access, or {others}")
    if not queue.is_started:
        return yellow(
            f"queue {name!r} is stopped: it takes jobs, and none starts", others, blocks=True
        )
    leads = f", which leads to {', '.join(queue.leads_to)}" if queue.is_routing else ""
    return green(f"queue {name}{leads} takes your jobs, as far as its settings say")


def _walltime_problem(queue: SiteQueue, server: SiteServer, walltime: int | None) -> str | None:
    if walltime is None:
        return None
    asked = f"and these ask for {format_walltime(walltime)}"
    limits = [limit for limit in (queue.walltime, server.walltime) if limit is not None]
    if limits and walltime > min(limits):
        return f"takes jobs of {format_walltime(min(limits))} at most, {asked}"
    if queue.shortest_walltime is not None and walltime < queue.shortest_walltime:
        return f"takes jobs of {format_walltime(queue.shortest_walltime)} at least, {asked}"
    return None


def _access_problem(queue: SiteQueue, server: SiteServer, who: Person) -> str | None:
    """By names alone; the server decides, and so this is not red."""
    for of, access in ((f"queue {queue.name!r}", queue.access), ("the server", server.access)):
        if not access.takes(who.user, who.groups):
            lists = [access.users, access.groups]
            entries = ", ".join(entry for some in lists for entry in some or ())
            return f"{of} does not seem to be for you ({who.user}): it is for {entries or 'nobody'}"
    return None


def _ask_server(commands: SchedulerCommands) -> Completed:
    return commands.run("qstat", "-B", "-f", *AS_JSON)


def _person(commands: SchedulerCommands) -> Person:
    done = commands.transport.run(["sh", "-c", "id -un && id -Gn"], timeout=_SECONDS)
    user, _, groups = done.stdout.partition("\n")
    if done.exit_code != 0 or not user:
        raise CommandError(f"id does not say whose account it is: {said(done)}")
    return Person(user, tuple(groups.split()))


CHECKS = Checks(
    commands=check_commands,
    answers=check_server,
    records=check_history,
    submission=check_submission,
    profile=scheduler.check_profile_facts,
    look_with="qstat -x -f {}",
)
