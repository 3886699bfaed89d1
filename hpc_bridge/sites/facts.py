"""What drafts of profiles need of any scheduler's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hpc_bridge.schedulers.base import Answer

Ask = Callable[[Sequence[str]], Answer]
"""Runs one command on the login node."""


class Facts(Protocol):
    """What a cluster says of itself."""

    @property
    def scheduler(self) -> str:
        """As people write it."""

    @property
    def cluster(self) -> str:
        """Its own name."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Why something is not known, in the scheduler's words."""
