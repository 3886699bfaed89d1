"""What Slurm's commands say when they fail."""

from __future__ import annotations

import re

from hpc_bridge.errors import CommandError, CommandNotFound, SchedulerUnavailable
from hpc_bridge.schedulers.base import Answer

# The last: of -M, also when its controller is down or has signed off from the database.
_UNAVAILABLE = re.compile(
    r"Unable to contact slurm|Socket timed out|Zero Bytes were transmitted|Connection refused"
    r"|temporarily unable to accept job|Resource temporarily unavailable|Connection timed out"
    r"|Slurm database|slurmdbd|Unexpected message received"
    r"|can't be reached now",
    re.IGNORECASE,
)
_UNKNOWN_CLUSTER = re.compile(r"No cluster '([^']*)' known by database")
_COMPLAINT = re.compile(r"^[\w.-]+: (?:error|fatal): ")


def complaints(stderr: str) -> list[str]:
    """Slurm's own errors, without what a wrapper says beside them; else all lines."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return [line for line in lines if _COMPLAINT.match(line)] or lines


def failure(answer: Answer, kind: type[CommandError], what: str, entry: str | None) -> CommandError:
    """The error of a command that failed; ``entry`` of a site's profile says how it is called."""
    words = answer.stderr.strip() or answer.stdout.strip() or "no message"
    said = "\n".join(complaints(answer.stderr)) or words
    if answer.exit_code in (126, 127):  # env(1): it cannot be run, or is not there
        kind, message = CommandNotFound, _missing(answer.exit_code, words, entry)
    elif unknown := _UNKNOWN_CLUSTER.search(said):
        message = (
            f"{what}: Slurm knows no cluster {unknown[1]!r}, which the site's profile names in"
            f" scheduler.cluster; 'sacctmgr show clusters' lists them ({words})"
        )
    elif _UNAVAILABLE.search(said):
        kind, message = SchedulerUnavailable, f"Slurm does not answer: {words}"
    elif answer.was_killed:  # a job may have been taken before that
        kind, message = SchedulerUnavailable, f"{what}: the command was killed before it answered"
    else:
        message = f"{what}: {words}"
    return kind(message, command=answer.command, exit_code=answer.exit_code, stderr=answer.stderr)


def _missing(exit_code: int, words: str, entry: str | None) -> str:
    if entry is not None:
        can = "was not found" if exit_code == 127 else "cannot be run"
        return (
            f"a command that the site's profile names, or one that it calls, {can} ({words})."
            f" The profile says {entry}; correct it, or run this where the command is."
        )
    if exit_code == 126:
        return f"a command of Slurm cannot be run ({words})"
    return (
        f"a command of Slurm was not found ({words}). Run this where they are on PATH (a login"
        " node), name the site of a cluster that is reached over SSH (hpc-bridge site list), or say"
        " that the scheduler is another: HPC_BRIDGE_SCHEDULER=pbs, or HPC_BRIDGE_SCHEDULER=local"
        " for the embedded one of this machine."
    )
