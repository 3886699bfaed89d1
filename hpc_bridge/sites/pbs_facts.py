"""What PBS says of a cluster when a profile is drafted on its login node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpc_bridge.errors import CommandError, UnexpectedOutput
from hpc_bridge.schedulers import pbs_site
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.pbs_errors import failure, is_cut_short
from hpc_bridge.schedulers.pbs_site import SiteHost, SiteQueue, SiteServer, gpu_resources
from hpc_bridge.sites.facts import Ask

_OLDER_COMMAND = re.compile(r"usage:|invalid option|conflicting options", re.IGNORECASE)

_OLDEST = 8
"""Of PBS Pro; Torque counts from 2 to 6."""


@dataclass(frozen=True)
class PBSFacts:
    """Answers of qstat and pbsnodes. What was refused is empty and named in ``refused``."""

    server: SiteServer
    queues: list[SiteQueue]
    hosts: list[SiteHost]
    refused: dict[str, str] = field(default_factory=dict)
    """Why something is not known, in PBS's words: ``nodes``."""

    @property
    def scheduler(self) -> str:
        """As people write it."""
        return "PBS"

    @property
    def cluster(self) -> str:
        """The server's name without its domain."""
        return self.server.name.partition(".")[0] or "cluster"

    @property
    def gpu_resources(self) -> list[str]:
        """Names of resources that may count GPUs, the likeliest first."""
        return gpu_resources(self.hosts)


def ask_pbs(ask: Ask) -> PBSFacts:
    """Three commands, or six of an old PBS.

    Raises CommandError when the server does not answer or refuses, and UnexpectedOutput.
    """
    server = pbs_site.parse_server(_needed(_in_json(ask, pbs_site.SERVER_COMMAND)))
    if server is None:
        raise UnexpectedOutput(
            "qstat -B -f names no server: it is not that of PBS (other schedulers have a qstat too)"
        )
    version = re.match(r"\d+", server.version or "")
    if version and int(version[0]) < _OLDEST:
        raise UnexpectedOutput(
            f"the server says that it is of version {server.version}, which is Torque's; only the"
            " answers of OpenPBS and PBS Pro are read"
        )
    queues = pbs_site.parse_queues(_needed(_in_json(ask, pbs_site.QUEUES_COMMAND)))
    hosts, refused = [], {}
    try:
        hosts = pbs_site.parse_hosts(_needed(_in_json(ask, pbs_site.NODES_COMMAND)))
    except CommandError as error:
        refused["nodes"] = (error.stderr.strip() or str(error)).splitlines()[-1]
    return PBSFacts(server, queues, hosts, refused)


def _in_json(ask: Ask, command: Sequence[str]) -> Answer:
    """The answer as JSON, or as text from a command that has none."""
    answer = ask([*command, *pbs_site.AS_JSON])
    older = answer.exit_code != 0 and _OLDER_COMMAND.search(answer.stderr)
    return ask(command) if older else answer


def _needed(answer: Answer) -> str:
    if answer.exit_code != 0 or is_cut_short(answer):
        name = next(word for word in answer.command if word in ("qstat", "pbsnodes"))
        raise failure(answer, CommandError, f"{name} failed", None)
    return answer.stdout
