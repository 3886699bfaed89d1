"""Verdicts on a node, from what the probe job left; pure functions."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from hpc_bridge.doctor.findings import Verdict, green, red, skipped, yellow
from hpc_bridge.doctor.probe import NO_OUTPUT_FILE, Answers
from hpc_bridge.doctor.server import CREDENTIALS
from hpc_bridge.jobs import JobState
from hpc_bridge.jobs.reasons import Clears
from hpc_bridge.sites.login import is_this_machine
from hpc_bridge.workers.submission import is_loopback

SLOW_SECONDS = 5.0
_SLOW_IMPORT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Words:
    """What the scheduler of a site has words of its own for."""

    option: str
    """That of `hpc-bridge doctor` which says where the jobs go."""
    look_with: str
    """Commands with which a person looks at the job."""


def judge_start(answers: Answers, partitions: Sequence[str], words: Words) -> Verdict:
    """Whether the job came to a node at all."""
    job, status = answers.job_id, answers.status
    if answers.started or answers.exit_record is not None:
        return green(f"job {job} started on {answers.node} after {answers.waited:.1f} s")
    waited = f"after {answers.waited:.0f} s"
    if status is None:
        return yellow(
            f"job {job} was submitted, but {waited} nothing is known of it",
            f"look with: {words.look_with}",
            blocks=True,
        )
    if status.state.is_waiting or status.state is JobState.STARTING:
        reason = answers.reason
        why = reason.meaning if reason else "the scheduler gives no reason"
        return yellow(
            f"job {job} had not started {waited}, and was cancelled: {why}",
            _waiting_advice(reason.clears if reason else Clears.UNKNOWN, partitions, words.option),
            blocks=True,
        )
    if status.state is JobState.CANCELLED:
        by = f" by {status.cancelled_by}" if status.cancelled_by else ""
        return red(f"job {job} was cancelled{by}", "run hpc-bridge doctor again")
    return green(f"job {job} came to {answers.node} and ended {status.scheduler_state}")


def _waiting_advice(clears: Clears, partitions: Sequence[str], option: str) -> str:
    others = f" ({', '.join(partitions)})" if partitions else ""
    if clears is Clears.NEVER:
        return f"choose another with {option}{others}"
    return f"wait longer with --wait 600, or choose one with free nodes with {option}{others}"


def judge_shared(answers: Answers, path: str, where: str) -> Verdict:
    """Whether login and node see the same folder, and how fast."""
    advice = f"set {where} to a folder that login and compute nodes see alike, such as one in your"
    advice += " home or on the parallel file system (not /tmp)"
    node = answers.node
    if answers.round_trip is not None:
        message = f"{node} sees {path}: a file went there and back in {answers.round_trip:.1f} s"
        if answers.round_trip > SLOW_SECONDS:
            return yellow(message, "a slow shared file system delays states and results alike")
        return green(message)
    if answers.started:
        return red(
            f"{node} does not see within 10 s what the login side writes to {path}, only the other"
            " way",
            advice,
        )
    if answers.exit_record is not None:
        return green(f"what {node} writes to {path} is seen on the login side")
    status = answers.status
    if status is not None and status.signal == NO_OUTPUT_FILE:
        return red(f"{node} does not have {path}: the job's output could not be opened", advice)
    ended = f"ended {status.scheduler_state}" if status else "is gone"
    return red(
        f"nothing that the job wrote to {path} is seen on the login side, although it {ended} on"
        f" {node}: the folder is not shared",
        advice,
    )


def judge_environment(answers: Answers, where: str) -> Verdict:
    """Whether modules, prologue and setup lines ran."""
    record = answers.exit_record
    if answers.said:
        return green(f"the job script runs on {answers.node}, up to where Python starts")
    words = [line for line in answers.output.splitlines() if not line.startswith("hpc-bridge:")]
    last = f" ({words[-1]})" if words else ""
    if record is None:
        return red(
            f"the job script ended on {answers.node} without a word{last}",
            "run the script that 'hpc-bridge render' prints by hand on a node",
        )
    if record.cause == "PythonNotFound":
        return red(
            f"{record.node} does not execute programs in the shared directory: it is mounted"
            " noexec there",
            f"set {where} to a folder from which programs can be started",
        )
    return red(
        f"on {record.node}: {record.message or f'exit code {record.exit_code}'}{last}",
        "correct that line: it is in HPC_BRIDGE_SETUP or the decorator's setup=..., or in the"
        " profile's environment.modules or environment.prologue",
    )


@dataclass(frozen=True, slots=True)
class Versions:
    """Of this side, which the node's must fit."""

    python: str
    packages: Mapping[str, str]
    """hpc_bridge, prefect, cloudpickle."""

    @property
    def minor(self) -> str:
        """3.11"""
        return _parts(self.python, 2)


@dataclass(frozen=True, slots=True)
class There:
    """The login side of a cluster that is reached over SSH."""

    host: str
    home: str


def judge_python(
    answers: Answers, asked: str, ours: Versions, where: str, there: There | None = None
) -> Verdict:
    """Whether the node's Python can run flows that were packed here.

    ``there``: the login side, when that is not this machine.
    """
    node = answers.node
    advice = _python_advice(answers, ours, where, there)
    if "python" not in answers.said:
        return red(f"there is no Python at {asked} on {node}", advice)
    found = answers.python
    version = answers.said.get("python_version", "")
    if found is None:
        words = (answers.python_error.splitlines() or [version])[-1]
        return red(f"{asked} does not run on {node}: {words}", advice)
    return _judge_versions(found, node, ours, advice, there)


def _python_advice(answers: Answers, ours: Versions, where: str, there: There | None) -> str:
    """This side's own interpreter, when the node has it too; else how to make one that it has."""
    if own := answers.said.get("own_python"):
        return f"set {where} to {own}, which {answers.node} has too: export HPC_BRIDGE_PYTHON={own}"
    return environment_advice(answers.node, ours, where, there)


def environment_advice(node: str, ours: Versions, where: str, there: There | None) -> str:
    """How to make an environment for jobs."""
    # The shell of another machine would put in another home for ~.
    folder = f"{there.home if there else '~'}/hpc-bridge-env"
    return (
        f"make an environment with Python {ours.minor} on a file system that {node} sees;"
        f" {_run(there)}: python{ours.minor} -m venv {folder} && {folder}/bin/pip install"
        f" hpc-bridge=={ours.packages['hpc_bridge']}; then{' here' if there else ''} set {where}"
        f" to it: export HPC_BRIDGE_PYTHON={folder}"
    )


def _run(there: There | None) -> str:
    return f"run on {there.host}" if there else "run"


def _judge_versions(
    found: Mapping[str, Any], node: str, ours: Versions, advice: str, there: There | None
) -> Verdict:
    packages, executable = found["packages"], found["executable"]
    it = f"{executable} on {node}"
    if _parts(found["version"], 2) != ours.minor:
        return red(
            f"{it} is Python {found['version']}, and here is {ours.python}: a flow that is packed"
            " by one does not run in the other",
            advice,
        )
    missing = [name for name, version in packages.items() if not version]
    if missing:
        install = f"{executable} -m pip install hpc-bridge=={ours.packages['hpc_bridge']}"
        return red(
            f"{it} (Python {found['version']}) has no {missing[0]}:"
            f" {found['errors'].get(missing[0], '')}",
            f"{_run(there)}: {install}; or {advice}",
        )
    for name, parts in (("prefect", 2), ("cloudpickle", 1), ("hpc_bridge", 3)):
        installed, own = packages[name], ours.packages[name]
        if _parts(installed, parts) != _parts(own, parts):
            message = f"{it} has {name} {installed}, and here is {own}"
            distribution = name.replace("_", "-")
            advise = f"{executable} -m pip install {distribution}=={own}"
            judge = yellow if name == "hpc_bridge" else red
            return judge(message, f"{_run(there)}: {advise}")
    message = (
        f"{it}: Python {found['version']}, hpc-bridge {packages['hpc_bridge']}, Prefect"
        f" {packages['prefect']}, imported in {found['import_seconds']:.1f} s"
    )
    if found["import_seconds"] > _SLOW_IMPORT_SECONDS:
        return yellow(message, "every job pays that: put the environment on a faster file system")
    return green(message)


@dataclass(frozen=True, slots=True)
class Known:
    """The server's address that works on this machine."""

    url: str
    is_elsewhere: bool = False
    """Whether the cluster is reached over SSH, and so in another network, perhaps."""

    @property
    def may_work(self) -> bool:
        """Whether it is worth trying on a node; an address of this machine alone is not."""
        host = urlsplit(self.url).hostname or ""
        own = self.is_elsewhere and is_this_machine([host])
        return bool(host) and not is_loopback(self.url) and not own


def how_to_reach(known: Known, where: str, node: str) -> str:
    """What to do when nodes have no address of the server that works."""
    if known.may_work:
        return (
            f"set {where} to {known.url}, which works here: export HPC_BRIDGE_API_URL={known.url}"
        )
    if known.is_elsewhere:
        return (
            f"set {where} to an address of the server that {node} reaches; one that runs on this"
            " machine alone is of no use there: run it where both reach it, on a service or login"
            " host of the site perhaps"
        )
    return f"set {where} to an address of the server that {node} reaches"


def judge_server(
    answers: Answers, environment: Mapping[str, str], known: Known, where: str
) -> Verdict:
    """Whether the server lets a job in at the address that the job is given."""
    answer, node = answers.server, answers.node
    if answer is None:
        return skipped(f"needs a Python on {node} that can ask")
    url, problem = answer["url"], answer["problem"]
    if not problem:
        return green(f"{node} reaches Prefect {answer['version']} at {url} and is let in")
    if problem == "credentials":
        names = [name for name in CREDENTIALS if name in environment] or [CREDENTIALS[1]]
        return red(
            f"{url} does not accept from {node} what is in {names[0]} ({answer['status']})",
            f"export {names[0]}='...' as the server's admin gave it to you",
        )
    if is_loopback(url):
        return _loopback(url, node, known, where)
    words = answer["words"] or f"HTTP {answer['status']}"
    advice = how_to_reach(replace(known, url="") if known.url == url else known, where, node)
    extra = {
        "refused": "; the server must listen there: prefect server start --host 0.0.0.0",
        "unknown-host": f"; an IP address in the place of {urlsplit(url).hostname!r}, perhaps",
        "timeout": "; if nodes have no way out at all, ask the site where a server could run",
        "unreachable": "; if nodes have no way out at all, ask the site where a server could run",
        "not-prefect": "; a proxy may have answered: see http_proxy on the nodes",
    }.get(problem, "")
    return red(f"{node} does not reach {url}: {words}", advice + extra)


def judge_address(url: str, scheduler: str, known: Known, where: str) -> Verdict:
    """What the address alone says, without a job."""
    if is_loopback(url) and scheduler != "local":
        return _loopback(url, "a compute node", known, where)
    return skipped("--no-job")


def _loopback(url: str, node: str, known: Known, where: str) -> Verdict:
    message = f"on {node}, {url} is {node} itself (loopback), not the server"
    if known.may_work or known.is_elsewhere:
        return red(message, how_to_reach(known, where, node))
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    usable = urlunsplit(parts._replace(netloc=f"{socket.getfqdn()}{port}"))
    return red(
        message,
        f"start the server with --host 0.0.0.0; then, if it runs on this machine, set {where} to"
        f" {usable}: export HPC_BRIDGE_API_URL={usable}",
    )


def judge_containers(answers: Answers, runtime: str | None) -> Verdict:
    """Whether the profile's container command and images are there."""
    if runtime is None:
        return skipped("no container runtime is in the profile (containers.runtime)")
    if "runtime" not in answers.said:
        return red(
            f"{runtime} is not on PATH on {answers.node}",
            f"whoever owns the profile: add the module that brings {runtime} to"
            " environment.modules, or correct containers.runtime",
        )
    if answers.missing_images:
        return yellow(
            f"{answers.node} cannot read {', '.join(answers.missing_images)}",
            "whoever owns the profile: correct the paths in containers.images",
        )
    return green(f"{answers.said['runtime']} on {answers.node}")


def _parts(version: str, count: int) -> str:
    return ".".join(version.split(".")[:count])
