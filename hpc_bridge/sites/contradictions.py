"""What a profile says against itself, for those who write one.

A profile that is in use is not judged by this: it served its users before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.rules import Rule, size

Problem = tuple[tuple[str | int, ...], str]
"""Where it is, and the sentence about it."""
# ${SCRATCH} is the shell's own.
_PLACEHOLDER = re.compile(r"(?<!\$)\{([^{}]*)\}")


def contradictions(profile: SiteProfile) -> Iterator[Problem]:
    """Every one; a list that the profile leaves empty is not known, and judges nothing."""
    yield from _choices(profile)
    yield from _partitions(profile)
    yield from _walltime(profile)
    yield from _placeholders(profile)


def _choices(profile: SiteProfile) -> Iterator[Problem]:
    offered = {
        "partition": [partition.name for partition in profile.partitions],
        "account": [account.name for account in profile.accounts],
        "qos": [qos.name for qos in profile.qos],
    }
    for field, names in offered.items():
        choices = profile.job_variables.get(field, Rule()).choices
        # Slurm takes a list of partitions.
        words = [word for choice in choices for word in str(choice).split(",") if choice]
        for word in dict.fromkeys(words) if names else ():
            if word not in names:
                yield ("job_variables", field, "choices"), f"{word!r} is not offered"


def _partitions(profile: SiteProfile) -> Iterator[Problem]:
    offers = (("accounts", profile.accounts), ("qos", profile.qos))
    for field, names in [(field, [one.name for one in some]) for field, some in offers if some]:
        for number, partition in enumerate(profile.partitions):
            for name in getattr(partition, field):
                if name not in names:
                    text = f"{name!r} is not in the list {field} of the site"
                    yield ("partitions", number, field), text


def _walltime(profile: SiteProfile) -> Iterator[Problem]:
    default = profile.job_variables.get("walltime", Rule()).default
    limits = [one.walltime for one in profile.partitions if one.walltime is not None]
    if default is None or not limits or len(limits) < len(profile.partitions):
        return
    if size("walltime", default) > max(limits):
        yield (
            ("job_variables", "walltime", "default"),
            f"{default} is above what every partition allows, at most"
            f" {format_walltime(max(limits))}",
        )


def _placeholders(profile: SiteProfile) -> Iterator[Problem]:
    for field in ("shared_dir", "node_scratch"):
        for name in _PLACEHOLDER.findall(getattr(profile.paths, field) or ""):
            if name != "user":
                text = f"there is no placeholder {{{name}}}; the only one is {{user}}"
                yield ("paths", field), text
