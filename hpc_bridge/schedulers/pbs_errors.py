"""What PBS's commands say when they fail.

Most of them exit with PBS's error number modulo 256 (pbs_error.h); a server that does not answer is
255 from qstat, 162 from the others and 1 from pbsnodes, so that the words decide.
"""

from __future__ import annotations

import re

from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    SchedulerUnavailable,
    SubmissionRefused,
    TooManyJobs,
)
from hpc_bridge.schedulers.base import Answer

_NOT_CONFIGURED = re.compile(r"pbsconf error|pbs conf variables not found")
_UNAVAILABLE = re.compile(
    r"cannot connect to server|Couldn't connect to cluster|Connection refused|Unknown Host"
    r"|Communication failure|reserved ports in use|Connection timed out|No Permission.*pbs_iff"
    r"|errno=150(?:10|31|08)",
    re.IGNORECASE,
)
_NO_PORTS = re.compile(r"reserved ports in use", re.IGNORECASE)
_NOT_FOUND = re.compile(r"not found|No such file|Permission denied|cannot execute", re.IGNORECASE)
_OVER = re.compile(r"Unknown Job Id|Job has finished", re.IGNORECASE)
# What qdel says of an element that has ended before its array, and of a job that is ending.
_ENDING = re.compile(r"invalid for (?:finished array subjob|state of job)", re.IGNORECASE)
_NO_HISTORY = re.compile(r"not configured to maintain job history", re.IGNORECASE)

_UNKNOWN_JOB, _FINISHED_JOB = 153, 35
_FINISHED_ELEMENT, _BAD_STATE = 55, 168
_SEGMENTATION_FAULT = (-11, 139)
_TOO_MANY_JOBS = 38

# What is not said by PBS's own words alone.
_HINTS = {
    3: "an array may be as large as max_array_size of the server, which qstat -B -f shows",
    159: "your account may not do that here; ask the site",
    166: "a value of the request is not one that PBS takes",
    170: "qstat -Q lists the queues",
    173: "the queue takes no jobs now; use another, or ask the site",
    175: "this account may not run jobs; root never may",
    187: "the site has no resource of that name; pbsnodes -a shows what its nodes have",
    188: "it asks for more than the queue or the server allows; qstat -Q -f shows resources_max",
    197: "the group is not one that your account is in on the server",
}


def says_that_jobs_are_over(answer: Answer) -> bool:
    """Whether all that a command complained about are jobs that PBS has no more."""
    known = answer.exit_code in (_UNKNOWN_JOB, _FINISHED_JOB)
    return known and _all_say(answer, _OVER)


def leaves_nothing_to_delete(answer: Answer) -> bool:
    """Whether all that qdel complained about are jobs that are over, or about to be."""
    known = answer.exit_code in (_UNKNOWN_JOB, _FINISHED_JOB, _FINISHED_ELEMENT, _BAD_STATE)
    return known and _all_say(answer, _OVER, _ENDING)


def _all_say(answer: Answer, *what: re.Pattern[str]) -> bool:
    lines = [line for line in answer.stderr.splitlines() if line.strip()]
    return bool(lines) and all(any(words.search(line) for words in what) for line in lines)


def has_no_history(answer: Answer) -> bool:
    """Whether the server forgets jobs as they end, which is PBS's default; exit code 0."""
    return bool(_NO_HISTORY.search(answer.stderr))


def is_cut_short(answer: Answer) -> bool:
    """Whether some connection was not had although the command says that all went well."""
    return bool(_NO_PORTS.search(answer.stderr))


def failure(answer: Answer, kind: type[CommandError], what: str, entry: str | None) -> CommandError:
    """The error of a command that failed; ``entry`` of a site's profile says how it is called."""
    words = answer.stderr.strip() or answer.stdout.strip() or "no message"
    code, message = answer.exit_code, f"{what}: {_short(words)}"
    if code in (126, 127) and _NOT_FOUND.search(words):
        kind, message = CommandNotFound, _missing(code, words, entry)
    elif _NOT_CONFIGURED.search(words):
        message = (
            f"{what}: PBS is installed here but knows no server ({words}); set PBS_CONF_FILE, or"
            " run this on a login node of the cluster"
        )
    elif _UNAVAILABLE.search(words):
        kind, message = SchedulerUnavailable, f"PBS does not answer: {words}"
    elif code in _SEGMENTATION_FAULT:
        message = f"{what}: the command itself crashed; tell the site ({words})"
    elif answer.was_killed:  # a job may have been taken before that
        kind, message = SchedulerUnavailable, f"{what}: the command was killed before it answered"
    elif kind is SubmissionRefused and code == _TOO_MANY_JOBS:
        kind = TooManyJobs
        message = f"PBS takes no more jobs of yours now ({words}); try again when some have ended"
    elif hint := _HINTS.get(code):
        message += f" ({hint})"
    return kind(message, command=answer.command, exit_code=code, stderr=answer.stderr)


def _short(words: str) -> str:
    """Without the usage that PBS prints after its complaint."""
    said = re.split(r"\nusage:", words, maxsplit=1)[0].strip()
    return said or words


def _missing(exit_code: int, words: str, entry: str | None) -> str:
    can = "was not found" if exit_code == 127 else "cannot be run"
    if entry is not None:
        return (
            f"a command that the site's profile names, or one that it calls, {can} ({words})."
            f" The profile says {entry}; correct it, or run this where the command is."
        )
    return (
        f"a command of PBS {can} ({words}). Run this where they are on PATH (a login node; PBS"
        " keeps them in /opt/pbs/bin)."
    )
