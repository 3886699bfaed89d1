"""What Slurm says of a cluster when a profile is drafted on its login node."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hpc_bridge.errors import CommandError, CommandNotFound, UnexpectedOutput
from hpc_bridge.schedulers import slurm_site
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.slurm_errors import complaints, failure
from hpc_bridge.schedulers.slurm_site import SiteNode, SitePartition, SiteQos
from hpc_bridge.sites.facts import Ask


@dataclass(frozen=True)
class SlurmFacts:
    """Answers of scontrol and sacctmgr. What was refused is empty and named in ``refused``."""

    config: dict[str, str]
    partitions: list[SitePartition]
    nodes: list[SiteNode]
    accounts: list[tuple[str, str]] = field(default_factory=list)
    """Names and descriptions."""
    qos: list[SiteQos] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Why something is not known, in Slurm's words: ``nodes``, ``accounts`` or ``qos``."""

    @property
    def scheduler(self) -> str:
        """As people write it."""
        return "Slurm"

    @property
    def cluster(self) -> str:
        """Its own name."""
        return self.config.get("ClusterName", "cluster")

    @property
    def version(self) -> str | None:
        return self.config.get("SLURM_VERSION")

    @property
    def has_accounting(self) -> bool:
        """Whether Slurm keeps records of jobs that are over."""
        return self.config.get("AccountingStorageType", "").endswith("/slurmdbd")

    @property
    def private(self) -> frozenset[str]:
        """Kinds of data of which users see only their own: ``accounts``, ``nodes``, ..."""
        return frozenset(self.config.get("PrivateData", "").split(","))


def ask_slurm(ask: Ask) -> SlurmFacts:
    """Five commands at most. Raises CommandError when the controller does not answer or refuses."""
    config = slurm_site.parse_config(_needed(ask(slurm_site.CONFIG_COMMAND)))
    if "ClusterName" not in config:
        raise UnexpectedOutput("scontrol show config names no ClusterName")
    partitions = slurm_site.parse_partitions(_needed(ask(slurm_site.PARTITIONS_COMMAND)))
    refused: dict[str, str] = {}

    def offered(what: str, command: list[str]) -> str:
        try:
            return _needed(ask(command))
        except CommandError as error:
            refused[what] = _reason(error)
            return ""

    nodes = slurm_site.parse_nodes(offered("nodes", slurm_site.NODES_COMMAND))
    facts = SlurmFacts(config, partitions, nodes, refused=refused)
    if facts.has_accounting:
        facts.accounts.extend(
            slurm_site.parse_accounts(offered("accounts", slurm_site.ACCOUNTS_COMMAND))
        )
        facts.qos.extend(slurm_site.parse_qos(offered("qos", slurm_site.QOS_COMMAND)))
    return facts


def _needed(answer: Answer) -> str:
    if answer.exit_code != 0:
        command = next(word for word in answer.command[1:] if "=" not in word)
        raise failure(answer, CommandError, f"{command} failed", None)
    return answer.stdout


def _reason(error: CommandError) -> str:
    """The first thing that the command complained of."""
    if isinstance(error, CommandNotFound):
        return "sacctmgr is not on PATH"
    said = complaints(error.stderr) or [str(error)]
    return re.sub(r"^[\w.-]+: (?:error|fatal): ", "", said[0]).strip()
