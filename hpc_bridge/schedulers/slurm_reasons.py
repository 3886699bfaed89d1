"""What Slurm's reasons for a job's wait mean.

After squeue(1) "JOB REASON CODES", job_reason_codes.html and the table in Slurm's
``job_state_reason.c`` (26.05). Most of the words belong to families, which are read by their parts.
"""

from __future__ import annotations

import re

from hpc_bridge.jobs.reasons import Clears, QueueReason

_SELF, _SOMEBODY, _NEVER = Clears.BY_ITSELF, Clears.BY_SOMEBODY, Clears.NEVER

_WORDS = {
    # Nothing needs to be done.
    "Priority": (_SELF, "Jobs with a higher priority come first."),
    "Resources": (_SELF, "The job is next; what it asks for is still in use by other jobs."),
    "BeginTime": (_SELF, "Its earliest start time is not reached; a requeued job waits 2 minutes."),
    "Dependency": (_SELF, "It waits for another job, as its dependency says."),
    "Licenses": (_SELF, "It waits until enough licenses are free."),
    "Prolog": (_SELF, "Its nodes are being prepared."),
    "Cleaning": (_SELF, "It was requeued, and its previous start is still being cleaned up."),
    "Reservation": (_SELF, "The reservation that it asks for has not begun, or is in use."),
    "Constraints": (_SELF, "No node meets its constraints at the moment."),
    "JobArrayTaskLimit": (_SELF, "As many elements of its job array run as may run at once."),
    "SchedDefer": (_SELF, "The scheduler puts off the start of new jobs."),
    "FedJobLock": (_SELF, "The clusters of the federation have not yet agreed who runs it."),
    "BurstBufferResources": (_SELF, "It waits until the burst buffer has room."),
    "BurstBufferStageIn": (_SELF, "Its files are being copied to the burst buffer."),
    "MaxPoweredUpNodes": (_SELF, "As many nodes are switched on as the site allows at once."),
    "MpiPortsBusy": (_SELF, "The network ports that its MPI processes need are in use."),
    "AssociationJobLimit": (_SELF, "Your account runs as many jobs as it may at once."),
    "AssociationResourceLimit": (_SELF, "Your account uses as much as it may at once."),
    "QOSJobLimit": (_SELF, "As many jobs of its QOS run as may run at once."),
    "QOSResourceLimit": (_SELF, "The running jobs of its QOS use as much as they may at once."),
    # Somebody has to act.
    "JobHeldUser": (_SOMEBODY, "It is held by its owner; release it with: scontrol release JOBID"),
    "JobHeldAdmin": (_SOMEBODY, "It is held by an administrator; ask the site why."),
    "JobHoldMaxRequeue": (
        _SOMEBODY,
        "It was requeued as often as the site allows and is held now; find out why it failed, then"
        " run: scontrol release JOBID",
    ),
    "JobLaunchFailure": (
        _SOMEBODY,
        "It could not be started on its node; look at the script and its folders, then run:"
        " scontrol release JOBID",
    ),
    "BurstBufferOperation": (_SOMEBODY, "A transfer to or from the burst buffer failed."),
    "SystemFailure": (_SOMEBODY, "Slurm itself failed; tell the site."),
    "PartitionDown": (_SOMEBODY, "Its partition starts no jobs; wait for the site or use another."),
    "PartitionInactive": (
        _SOMEBODY,
        "Its partition is switched off; wait for the site or use another.",
    ),
    "NodeDown": (_SOMEBODY, "A node that it needs is down; wait for the site or use others."),
    "FrontEndDown": (_SOMEBODY, "No front end node is available; tell the site."),
    "ReservationDeleted": (_SOMEBODY, "The reservation that it asks for was deleted."),
    "ReservationInvalid": (_SOMEBODY, "The reservation that it asks for cannot be used any more."),
    "QOSUsageThreshold": (_SOMEBODY, "You have used more than its QOS asks for; use another QOS."),
    "AssociationTimeLimit": (_SOMEBODY, "The time of your account is used up; ask for more."),
    "QOSTimeLimit": (_SOMEBODY, "The time of its QOS is used up; ask for more or use another QOS."),
    # Waiting does not help.
    "PartitionTimeLimit": (
        _NEVER,
        "Its walltime is longer than its partition allows; ask for less or use another partition.",
    ),
    "PartitionNodeLimit": (
        _NEVER,
        "It asks for more or fewer nodes than its partition allows; ask for another number or use"
        " another partition.",
    ),
    "PartitionConfig": (
        _NEVER,
        "Its partition cannot give what it asks for; change the request or use another partition.",
    ),
    "BadConstraints": (
        _NEVER,
        "No node can meet its constraints; change what it asks for.",
    ),
    "MaxMemPerLimit": (
        _NEVER,
        "It asks for more memory per node or CPU than the site allows; ask for less.",
    ),
    "DependencyNeverSatisfied": (
        _NEVER,
        "The job that it waits for did not end as its dependency asks for.",
    ),
    "DeadLine": (_NEVER, "It cannot end before its deadline; give a later one or less walltime."),
    "InvalidAccount": (
        _NEVER,
        "Its account is not valid, or not yours any more; name another account.",
    ),
    "InvalidQOS": (_NEVER, "Its QOS is not valid, or not yours any more; name another QOS."),
    "AccountNotAllowed": (
        _NEVER,
        "Its account may not use its partition; name another account or partition.",
    ),
    "QOSNotAllowed": (_NEVER, "Its QOS may not be used in its partition; name another of them."),
}

# Sentences that some reasons are replaced by, and words that carry details.
_PHRASES = (
    (r"ReqNodeNotAvail, *Reserved for maintenance", _SELF,
     "Its nodes are reserved for maintenance; it starts afterwards, or before with a walltime that"
     " ends in time."),
    (r"ReqNodeNotAvail, *UnavailableNodes:(?P<nodes>\S+)", _SELF,
     "Nodes that it needs are down, drained or reserved: {nodes}. It starts when they come back;"
     " name other nodes or none if that takes too long."),
    (r"ReqNodeNotAvail\b.*", _SELF,
     "Nodes that it needs are in use, reserved, drained or down. It starts when they come back."),
    (r"Nodes required for job are DOWN, DRAINED or reserved.*", _SELF,
     "Nodes that it needs are down, drained or reserved for other partitions. It starts when they"
     " come back, unless its account or QOS may not use its partition: Slurm says this then, too."),
    (r"Job's account not permitted to use this partition *(?P<detail>.*)", _NEVER,
     "Its account may not use its partition {detail}; name another account or partition."),
    (r"Job's QOS not permitted to use this partition *(?P<detail>.*)", _NEVER,
     "Its QOS may not be used in its partition {detail}; name another of them."),
    (r"(?i:launch failed requeued held|user env retrieval failed,? requeued held)", _SOMEBODY,
     "It could not be started on its node and is held; look at its script and folders, then run:"
     " scontrol release JOBID"),
    (r"(?i:job requeued in held state|.*\brequeued held)", _SOMEBODY,
     "It was requeued and is held; when it may run again, run: scontrol release JOBID"),
)  # fmt: skip

# QOSMaxCpuPerUserLimit, AssocGrpCPUMinutesLimit, MaxJobsPerAccount, QOSMinCpuNotSatisfied, ...
_LIMIT = re.compile(
    r"(?P<owner>QOS|Assoc|)(?P<kind>Grp|Max|Min)"
    r"(?P<what>SubmitJobs?|Jobs?|WallDuration|Wall|Cpu|CPU|Memory|Mem|Node|GRES|License|BB|Billing"
    r"|Energy|Unknown)"
    r"(?P<time>RunMinutes|RunMins|Minutes)?"
    r"(?P<scope>PerJob|PerNode|PerUser|PerAccount)?(?:Limit|NotSatisfied)?"
)
_RESOURCES = {
    "Cpu": "CPUs",
    "CPU": "CPUs",
    "Mem": "memory",
    "Memory": "memory",
    "Node": "nodes",
    "GRES": "GPUs or other GRES",
    "License": "licenses",
    "BB": "burst buffer",
    "Billing": "billing units",
    "Energy": "energy",
    "Unknown": "some resource",
}


def explain(word: str, job_id: str) -> QueueReason:
    """What a reason of a waiting job means; a word that is not known makes no claim."""
    clears, meaning = (
        _WORDS.get(word)
        or _phrase(word)
        or _limit(word)
        or (Clears.UNKNOWN, "Slurm's own word; what it means is not known here.")
    )
    return QueueReason(word, meaning.replace("JOBID", job_id), clears)


def _phrase(word: str) -> tuple[Clears, str] | None:
    for pattern, clears, meaning in _PHRASES:
        if match := re.fullmatch(pattern, word, re.DOTALL):
            return clears, meaning.format(**match.groupdict())
    return None


def _limit(word: str) -> tuple[Clears, str] | None:
    match = _LIMIT.fullmatch(word)
    if match is None:
        return None
    owner = "your account" if match["owner"] == "Assoc" else "its QOS"
    other = f"another {'account' if match['owner'] == 'Assoc' else 'QOS'}"
    if match["kind"] == "Min":
        return _NEVER, (
            f"It asks for less than the minimum of {_amount(match)} that {owner} demands; ask for"
            f" more, or use {other}."
        )
    if match["scope"] in ("PerJob", "PerNode"):
        return _NEVER, _exceeds(match, owner, other)
    if match["kind"] == "Grp" and (match["time"] == "Minutes" or match["what"] == "Wall"):
        budget = "walltime" if match["what"] == "Wall" else f"{_amount(match)} (in minutes)"
        return _SOMEBODY, (
            f"The budget of {budget} of {owner} is used up, or too small for this job. Ask whoever"
            f" manages it for more, or use {other}; some sites renew it."
        )
    return _SELF, _in_use(match, owner)


def _amount(match: re.Match[str]) -> str:
    return _RESOURCES.get(match["what"], "of it")


def _exceeds(match: re.Match[str], owner: str, other: str) -> str:
    """The job alone is beyond a limit."""
    if match["what"] == "WallDuration":
        return f"Its walltime is longer than {owner} allows; ask for less, or use {other}."
    where = "one job" if match["scope"] == "PerJob" else "one node"
    times = " times walltime" if match["time"] else ""
    return (
        f"It asks for more {_amount(match)}{times} than {owner} allows {where}; ask for less, or"
        f" use {other}."
    )


def _in_use(match: re.Match[str], owner: str) -> str:
    """Running jobs have what the limit allows."""
    whose = {"PerUser": "Your jobs", "PerAccount": "The jobs of your account"}.get(
        match["scope"] or "", "The jobs of " + owner
    )
    whole = owner if match["scope"] else "it"
    if match["what"].startswith(("Job", "Submit")):
        number = "are waiting or running" if match["what"].startswith("Submit") else "are running"
        if match["owner"] == "Assoc" and match["kind"] == "Max":
            whose, whole = "Your jobs", "your account"
        return f"{whose} that {number} are as many as {whole} allows; it starts when others end."
    times = " times remaining walltime" if match["time"] else ""
    return (
        f"{whose} together use all the {_amount(match)}{times} that {whole} allows; it starts when"
        " others end. If it asks for more than the limit by itself, it never does: ask for less."
    )
