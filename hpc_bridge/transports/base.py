"""The contract of a transport: where commands run and files lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind. Output is decoded as UTF-8 with replacement."""

    exit_code: int
    stdout: str
    stderr: str


class Transport(ABC):
    """Runs argv on the cluster's login side and answers from there. Every method blocks."""

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        unset: Sequence[str] = (),
    ) -> Completed:
        """Run ``argv`` without a shell.

        ``unset`` are shell-style patterns of environment variables that the command must not see.
        A command that does not exist gives exit code 127. Raises CommandTimeout after ``timeout``
        seconds, when the command and what it started have been ended.
        """

    @abstractmethod
    def user(self) -> str:
        """Login name of the account that the commands run as."""
