"""Steps of an examination and what they find."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from hpc_bridge.errors import HPCBridgeError


class Status(StrEnum):
    """Colours: only red fails an examination."""

    GREEN = "green"
    YELLOW = "yellow"
    """It works, or may work; something is worth knowing."""
    RED = "red"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says."""

    status: Status
    message: str
    advice: str = ""
    """The exact thing to do; there is one whenever the status is red."""
    blocks: bool = False
    """Whether steps that need this one are skipped although it is not red."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    step: str
    """A name that stays the same for programs that read it."""
    title: str
    status: Status
    message: str
    advice: str
    seconds: float

    @property
    def needs(self) -> str | None:
        """Title of the step without which this one was not examined."""
        if self.status is Status.SKIPPED and self.message.startswith(_NEEDS):
            return self.message.removeprefix(_NEEDS)
        return None

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def green(message: str) -> Verdict:
    """All is well."""
    return Verdict(Status.GREEN, message)


def yellow(message: str, advice: str = "", *, blocks: bool = False) -> Verdict:
    """It does not fail, but somebody should know."""
    return Verdict(Status.YELLOW, message, advice, blocks)


def red(message: str, advice: str) -> Verdict:
    """It does not work, and this is what to do."""
    return Verdict(Status.RED, message, advice)


def skipped(reason: str) -> Verdict:
    """Not examined; what needs it is not examined either."""
    return Verdict(Status.SKIPPED, reason)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Several answers to one step as one: all messages, the worst colour, and its advice."""
    order = [Status.GREEN, Status.SKIPPED, Status.YELLOW, Status.RED]
    status = max((verdict.status for verdict in verdicts), key=order.index)
    return Verdict(
        status,
        "; ".join(verdict.message for verdict in verdicts if verdict.message),
        "; ".join(verdict.advice for verdict in verdicts if verdict.advice),
        any(verdict.blocks for verdict in verdicts),
    )


def one_line(error: Exception) -> str:
    """An error's message, of whatever number of lines."""
    lines = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return lines.replace(":; ", ": ")


_NEEDS = "needs: "


class Examination:
    """Runs steps in order and tells each finding as soon as it is there.

    A step is skipped when one that it needs was red, was skipped, or blocks.
    """

    def __init__(
        self,
        tell: Callable[[Finding], None],
        begin: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``begin`` is told the title of what begins; an empty one leaves the terminal alone."""
        self.findings: list[Finding] = []
        self._tell = tell
        self._begin = begin
        self._blocking: dict[str, str] = {}
        """Steps that cannot be built on, each with the title of the one that began it."""

    def step(
        self,
        name: str,
        title: str,
        check: Callable[[], Verdict],
        *,
        needs: Sequence[str] = (),
        may_ask: bool = False,
    ) -> bool:
        """Run a check; returns whether what needs it can be examined.

        ``may_ask``: it may ask on the terminal, for a password perhaps.
        """
        missing = [self._blocking[need] for need in needs if need in self._blocking]
        started = time.monotonic()
        if missing:
            verdict = skipped(f"{_NEEDS}{missing[0]}")
        else:
            self._begin("" if may_ask else title)
            try:
                verdict = check()
            except HPCBridgeError as error:
                verdict = red(one_line(error), "do as it says, then run hpc-bridge doctor again")
        if verdict.blocks or verdict.status in (Status.RED, Status.SKIPPED):
            self._blocking[name] = missing[0] if missing else title
        finding = Finding(
            name,
            title,
            verdict.status,
            verdict.message,
            verdict.advice,
            time.monotonic() - started,
        )
        self.findings.append(finding)
        self._tell(finding)
        return name not in self._blocking

    @property
    def summary(self) -> str:
        """How many of which colour, in a few words."""
        of = Counter(finding.status for finding in self.findings)
        counts = [f"{of[one]} {one}" for one in (Status.RED, Status.YELLOW) if of[one]]
        missing = sum(finding.needs is not None for finding in self.findings)
        rest = [f"{missing} not examined"] if missing else []
        return ", ".join([*(counts or ["all green"]), *rest])

    @property
    def exit_code(self) -> int:
        """1 when something is red."""
        return int(any(finding.status is Status.RED for finding in self.findings))
