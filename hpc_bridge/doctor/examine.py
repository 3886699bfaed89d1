"""The steps of an examination, in order, and what each needs."""

from __future__ import annotations

import platform
from collections.abc import Callable

import cloudpickle
import prefect
from prefect.settings import get_current_settings

from hpc_bridge import __version__, load
from hpc_bridge.doctor import directory, node, pbs, server, slurm, torque, transport
from hpc_bridge.doctor.findings import Examination, Verdict, green, one_line, red, skipped
from hpc_bridge.doctor.probe import Answers, ask_node
from hpc_bridge.doctor.profile import check_profile
from hpc_bridge.doctor.scheduler import Checks
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.doctor.trial import try_flow
from hpc_bridge.errors import InvalidJobSpec, SettingsError
from hpc_bridge.transports.login import LOCAL
from hpc_bridge.workers.submission import credentials

NO_JOB = "--no-job"
_CHECKS = {"slurm": slurm.CHECKS, "pbs": pbs.CHECKS}


def examine(
    examination: Examination, subject: Subject, site: str | None, *, wait: float, with_jobs: bool
) -> None:
    """Run every step; the findings are in the examination."""
    has_server = examination.step("server", "Prefect server", server.check_server)
    examination.step(
        "profile",
        "site profile",
        lambda: check_profile(subject, site, has_server=has_server),
    )
    examination.step(
        "transport",
        "transport",
        lambda: transport.check_transport(subject),
        needs=["profile"],
        may_ask=True,
    )
    examination.step(
        "job-variables",
        "job variables",
        lambda: _job_variables(subject) if has_server else _own_variables(subject),
        needs=["transport"],  # which is asked for the account's groups
    )
    _examine_cluster(examination, subject)
    _examine_node(examination, subject, wait, with_jobs=with_jobs)
    examination.step(
        "test-flow",
        "test flow",
        lambda: try_flow(subject, wait) if with_jobs else skipped(NO_JOB),
        needs=["server", "node", "shared", "environment", "python", "server-from-node"],
    )
    examination.step("load", "load, last hour", lambda: _load(subject), needs=["job-variables"])


def _job_variables(subject: Subject) -> Verdict:
    """What a job would be given; the pool's own defaults are part of it."""
    found = server.pool_template(subject.work_pool, subject.settings, subject.site)
    if found is None:
        return _allowed(subject, f"work pool {subject.work_pool} is made by the first flow")
    subject.pool_template = found.template
    renewed = ", which has been brought up to date with its site" if found.renewed else ""
    return _allowed(subject, f"with the defaults of work pool {subject.work_pool}{renewed}")


def _own_variables(subject: Subject) -> Verdict:
    return _allowed(subject, "without those of the work pool, which the server would know")


def _allowed(subject: Subject, message: str) -> Verdict:
    """Whether the site takes a job that asks for next to nothing."""
    try:
        subject.configuration.check_limits(asks=True)
    except InvalidJobSpec as error:
        return red(
            one_line(error),
            f"change it where it is set: {subject.queue_option}, an HPC_BRIDGE_* variable, your"
            f" user file, your part of the site, or work pool {subject.work_pool}; 'hpc-bridge"
            " render --explain' names the place of each value",
        )
    return green(message)


def _load(subject: Subject) -> Verdict:
    """What this user's processes on this machine have asked of the scheduler; never red."""
    counts = load.recent(place=subject.connection.place)
    logins = f"{counts.pop(load.LOGIN)} logins over SSH"
    if subject.login != LOCAL:
        logins = f"logins to {subject.login.host}: {transport.recent_logins(subject.login)}"
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()) if count)
    total = f"{sum(counts.values())} commands of the scheduler"
    return green(f"{total}{f' ({kinds})' if kinds else ''}, {logins}")


def _checks(subject: Subject) -> Checks | None:
    """None is the embedded scheduler, of which there is nothing to examine."""
    if subject.profile is not None and subject.profile.scheduler.dialect == "torque":
        return torque.CHECKS
    return _CHECKS.get(subject.scheduler_name)


def _examine_cluster(examination: Examination, subject: Subject) -> None:
    def step(
        name: str, title: str, check: Callable[[Checks], Callable[[Subject], Verdict]], needs: str
    ) -> None:
        def checked() -> Verdict:
            checks = _checks(subject)
            if checks is None:
                return green("the embedded scheduler of this machine")
            return check(checks)(subject)

        examination.step(name, title, checked, needs=[needs])

    step("commands", "scheduler commands", lambda checks: checks.commands, "job-variables")
    step("controller", "scheduler answers", lambda checks: checks.answers, "commands")
    step("accounting", "records of ended jobs", lambda checks: checks.records, "commands")
    step("submission", "may submit", lambda checks: checks.submission, "controller")
    step(
        "profile-facts", "profile against the cluster", lambda checks: checks.profile, "controller"
    )
    examination.step(
        "shared-directory",
        f"shared directory, {subject.here}",
        lambda: directory.check_directory(subject),
        needs=["job-variables"],
    )


def _examine_node(
    examination: Examination, subject: Subject, wait: float, *, with_jobs: bool
) -> None:
    answers = Answers()

    def start() -> Verdict:
        nonlocal answers
        if not with_jobs:
            return skipped(NO_JOB)
        answers = ask_node(subject, wait)
        checks = _checks(subject)
        look_with = checks.look_with.format(answers.job_id) if checks else "hpc-bridge jobs"
        words = node.Words(subject.queue_option, look_with)
        return node.judge_start(answers, subject.partitions, words)

    def address() -> Verdict:
        where = subject.where_to_set("network.api_url", "HPC_BRIDGE_API_URL")
        settings = get_current_settings()
        known = node.Known(settings.api.url or "", is_elsewhere=subject.login != LOCAL)
        try:
            url = subject.api_url
        except SettingsError as error:
            return red(one_line(error), node.how_to_reach(known, where, answers.node))
        if not with_jobs:
            return node.judge_address(url, subject.scheduler_name, known, where)
        return node.judge_server(answers, credentials(settings), known, where)

    def python() -> Verdict:
        where = subject.where_to_set("environment.python", "HPC_BRIDGE_PYTHON")
        packages = {
            "hpc_bridge": __version__,
            "prefect": prefect.__version__,
            "cloudpickle": cloudpickle.__version__,
        }
        ours = node.Versions(platform.python_version(), packages)
        account = None
        if subject.login != LOCAL:
            account = node.There(str(subject.login.host), subject.files.account().home)
        try:
            asked = subject.configuration.interpreter
        except SettingsError as error:
            return red(one_line(error), node.environment_advice(answers.node, ours, where, account))
        return node.judge_python(answers, asked, ours, where, account)

    def containers() -> Verdict:
        runtime = subject.profile.containers.runtime if subject.profile else None
        return node.judge_containers(answers, runtime)

    shared = subject.where_to_set("paths.shared_dir", "HPC_BRIDGE_SHARED_DIR")
    examination.step(
        "node", "probe job", start, needs=["submission", "shared-directory", "job-variables"]
    )
    examination.step(
        "shared",
        "shared directory, on a node",
        lambda: node.judge_shared(answers, str(subject.configuration.shared), shared),
        needs=["node"],
    )
    examination.step(
        "environment",
        "modules and setup lines",
        lambda: node.judge_environment(answers, shared),
        needs=["node", "shared"],
    )
    examination.step("python", "Python on a node", python, needs=["node", "shared", "environment"])
    examination.step(
        "server-from-node",
        "server, from a node",
        address,
        needs=["server", *(["node", "shared", "environment"] if with_jobs else ["job-variables"])],
    )
    examination.step(
        "containers", "containers", containers, needs=["node", "shared", "environment"]
    )
