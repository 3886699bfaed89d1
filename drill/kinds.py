"""What the drill's flow runs do, and how each of them ends when nothing hits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

CRASHED = "Crashed"
"""Here for every crash that is not named after its cause."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of flow run."""

    how: str
    """The branch of ``drill.flows.work``."""
    end: str
    """Name of the state that it has at the end."""
    weight: int = 2
    seconds: tuple[float, float] = (0.0, 0.0)
    deployed: bool = False
    """A run of the deployment, rather than of a flow in a bundle; only those can be suspended."""
    submissions: int = 1
    """As many are right; more than one where the run goes on in another job on purpose."""
    variables: Mapping[str, Any] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "short": Kind("end", "Completed", 4),
    "sleeps": Kind("end", "Completed", 6, (3, 15)),
    "no requeue": Kind("end", "Completed", 3, (3, 15), variables={"requeue": False}),
    "tasks": Kind("tasks", "Completed", 4, (4, 12)),
    "raises": Kind("raise", "Failed", seconds=(0, 4)),
    "exits": Kind("exit", CRASHED, seconds=(0, 4)),
    "is killed": Kind("kill", CRASHED, seconds=(0, 4)),
    "overruns": Kind("overrun", "WalltimeExceeded", 1, variables={"walltime": "1m"}),
    "resubmits": Kind(
        "resubmit",
        "Completed",
        1,
        submissions=4,
        variables={"walltime": "1m", "on_walltime": "resubmit", "max_resubmissions": 3},
    ),
    "deployed": Kind("end", "Completed", 2, (0, 8), deployed=True),
    "suspends": Kind("suspend", "Completed", seconds=(0, 3), deployed=True, submissions=2),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """One flow run to be submitted."""

    kind: str
    seconds: float
    pause: float
    """Seconds before it is submitted."""


def plan(runs: int, random: Random) -> list[Planned]:
    """Every kind at least once where there is room, some of one kind together, in any order."""
    kinds = list(KINDS)
    random.shuffle(kinds)
    weights = [KINDS[kind].weight for kind in KINDS]
    while len(kinds) < runs:
        kinds += random.choices(list(KINDS), weights) * random.randint(1, 3)
    planned = []
    for kind in kinds[:runs]:
        # Most come at once, so that a poll of the worker finds several: job arrays.
        pause = random.choice((0.0, 0.0, 0.0, 2.0))
        planned.append(Planned(kind, round(random.uniform(*KINDS[kind].seconds), 1), pause))
    return planned
