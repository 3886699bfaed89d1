"""What PBS says of a job's wait: the scheduler's comment, or what holds the job.

After the messages of OpenPBS's scheduler (``misc.c``, ``fctable``) and recorded comments. "Can
Never Run" is said of a job that stays queued all the same, for ever.
"""

from __future__ import annotations

import re

from hpc_bridge.jobs.reasons import Clears, QueueReason

_SELF, _SOMEBODY, _NEVER = Clears.BY_ITSELF, Clears.BY_SOMEBODY, Clears.NEVER

_PREFIX = re.compile(r"(?P<prefix>Not Running|Can Never Run): *(?P<rest>.*)", re.DOTALL)
_AMOUNTS = re.compile(
    r"Insufficient amount of (?:(?P<level>server|queue) )?resource:? *(?P<name>[\w.@-]+)"
    r"(?: *\(R: *(?P<asked>\S+) A: *(?P<free>\S+) T: *(?P<all>\S+)\))?"
)
_HOLDS = {
    "u": (_SOMEBODY, "It is held by its owner; release it with: qrls JOBID"),
    "o": (_SOMEBODY, "It is held by an operator; ask the site why."),
    "s": (
        _SOMEBODY,
        "It is held by PBS itself or an administrator, perhaps since it could not be started; ask"
        " the site why.",
    ),
    "p": (_SOMEBODY, "It is held since its owner's password was not accepted; tell the site."),
}
_MEANINGS: tuple[tuple[str, Clears, str], ...] = (
    (
        r"depend = ?(?P<what>.*)",
        _SELF,
        "It waits for other jobs ({what}), as its dependency says. A job that PBS no longer knows"
        " cannot be waited for.",
    ),
    (r"Execution_Time = (?P<what>.*)", _SELF, "Its earliest start time, {what}, is not reached."),
    (r"moved to another server", _SOMEBODY, "Another server has it now, which is not asked here."),
    (
        r"[Jj]ob (?:Array )?[Hh]eld,? too many failed attempts to run.*",
        _SOMEBODY,
        "PBS has given up after 20 starts that failed; look at the script and its folders, tell the"
        " site, then run: qrls JOBID",
    ),
    (
        r"[Jj]ob (?:Array )?[Hh]eld.*|.*bad password.*",
        _SOMEBODY,
        "PBS itself holds it; ask the site why, and then run: qrls JOBID",
    ),
    (
        r"Not enough (?:free|total) nodes available.*",
        _SELF,
        "Nodes that could run it are in use by other jobs, or away.",
    ),
    (
        r"No available resources on nodes.*|(?:Host|Node|Placement).*too few free resources.*",
        _SELF,
        "What it asks for is in use by other jobs, or there are not as many such nodes at all: PBS"
        " says the same of both.",
    ),
    (
        r".*exclusive.*in use.*|.*sharing.*",
        _SELF,
        "It shares its nodes with no other job, and they are in use.",
    ),
    (
        r"Queue not started.*",
        _SOMEBODY,
        "Its queue starts no jobs now; wait for the site, or use another.",
    ),
    (
        r"Queue not an execution queue.*",
        _SOMEBODY,
        "Its queue hands jobs on and none can take it; use another.",
    ),
    (
        r".*(?P<who>User|Group|Project).*(?:running )?job limit.*",
        _SELF,
        "As many jobs of your {who} run as may run at once; it starts when others end.",
    ),
    (
        r".*(?:job limit|jobs limit|running subjobs limit).*reached.*|Max run subjobs limit.*",
        _SELF,
        "As many jobs run as may run at once; it starts when others end.",
    ),
    (
        r".*(?:per-user|per-group|per-project|limit).*(?:on|of) resource.*|.*would exceed.*limit.*",
        _SELF,
        "The running jobs use as much as may be used at once; it starts when others end. If it asks"
        " for more than the limit by itself, it never does: ask for less.",
    ),
    (r"Draining system.*", _SELF, "Nodes are kept free for a job that has waited too long."),
    (
        r".*(?:reservation|top job).*",
        _SELF,
        "It would get in the way of a reservation or of a job with a higher priority; a shorter"
        " walltime may let it start earlier.",
    ),
    (
        r".*dedicated time.*",
        _SELF,
        "It would not end before the site's dedicated time; a shorter walltime may let it start.",
    ),
    (r".*primetime.*", _SELF, "Jobs of its queue start at certain times of day only."),
    (
        r".*(?:strict.*order|fairshare|higher priority|Job would break).*",
        _SELF,
        "Jobs with a higher priority come first.",
    ),
    (r".*licen[sc]e.*", _SELF, "It waits until enough licenses are free."),
    (r".*[Pp]rovision.*", _SELF, "Its nodes are being prepared."),
    (r".*ineligible state.*|.*offline.*", _SOMEBODY, "Nodes that it needs are down or offline."),
    (
        r"PBS Error: *(?P<what>.*)",
        _SOMEBODY,
        "PBS could not start it ({what}); it tries again, and holds the job after 20 times.",
    ),
    (r"[Nn]ot enough total nodes.*", _NEVER, "The cluster has fewer such nodes; ask for less."),
)


def explain(word: str, job_id: str) -> QueueReason:
    """What a reason of a waiting job means; words that are not known make no claim."""
    prefix = _PREFIX.fullmatch(word)
    rest = prefix["rest"].strip() if prefix else word
    clears, meaning = (
        _hold(rest)
        or _amounts(rest)
        or _known(rest)
        or (Clears.UNKNOWN, "PBS's own words; what they mean is not known here.")
    )
    if prefix and prefix["prefix"] == "Can Never Run" and clears is not _NEVER:
        clears = _NEVER
        meaning = (
            f"PBS can never run it as it is: {rest}. It stays queued until it is deleted; ask for"
            " something else."
        )
    return QueueReason(word, meaning.replace("JOBID", job_id), clears)


def _hold(rest: str) -> tuple[Clears, str] | None:
    kinds = rest.removeprefix("Hold_Types = ") if rest.startswith("Hold_Types = ") else ""
    # Whoever is the hardest to reach decides.
    return next((_HOLDS[kind] for kind in "spou" if kind in kinds), None)


def _amounts(rest: str) -> tuple[Clears, str] | None:
    """R is what the job asks for, A what is free, T what there is at all."""
    match = _AMOUNTS.match(rest)
    if match is None:
        return None
    name, asked, everything = match["name"], match["asked"], match["all"]
    where = {"server": "the whole cluster", "queue": "its queue"}.get(match["level"], "the nodes")
    if asked and everything and asked.isdecimal() and everything.isdecimal():
        if int(asked) > int(everything):
            return _NEVER, (
                f"It asks for {name}={asked}, and {where} that could run it have {everything}. It"
                " stays queued until it is deleted; ask for less, or use another queue."
            )
        free = match["free"]
        return _SELF, f"It asks for {name}={asked}; {free} of {everything} are free now."
    return _SELF, f"There is not enough {name} free now; it starts when other jobs end."


def _known(rest: str) -> tuple[Clears, str] | None:
    for pattern, clears, meaning in _MEANINGS:
        if match := re.fullmatch(pattern, rest, re.DOTALL):
            found = {name: (text or "").strip() for name, text in match.groupdict().items()}
            found["who"] = found.get("who", "").lower()
            return clears, meaning.format(**found).replace("your user", "yours")
    return None
