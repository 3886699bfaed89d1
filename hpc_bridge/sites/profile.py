"""The schema of a site profile: one YAML file that describes one cluster.

Its descriptions are the reference: the JSON schema for editors and the docs come from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpc_bridge.jobs.spec import Count, Memory, Text, Walltime
from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.schedulers.pbs_select import NOT_IN_PBS
from hpc_bridge.settings import WebAddress
from hpc_bridge.sites.rules import Part, Rule, check_rule
from hpc_bridge.sites.scheduler_part import SchedulerPart
from hpc_bridge.sites.values import ClusterPath, Retention, Texts
from hpc_bridge.sites.words import in_our_words, scheduler_in
from hpc_bridge.transports.login import Master, TransportName

FORMAT = 1
NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"


class LoginPart(Part):
    """How the cluster is reached. Who logs in, and with which key, is the user's own part."""

    transport: TransportName = Field(
        default="local",
        description=(
            "How a login node is reached from elsewhere: 'openssh', the system's ssh; 'paramiko',"
            " SSH within the process; 'local' where users are always on it."
        ),
    )
    host: Text | None = Field(
        default=None, description="Name of the login host, on which commands run directly."
    )
    machines: Texts = Field(
        default=(),
        description=(
            "Patterns of other host names on which commands run directly: ['login*.example.org']."
        ),
    )
    master: Master = Field(
        default="manage",
        description=(
            "Of openssh: 'reuse' only ever uses the connection that the user has opened, for sites"
            " with a second factor; 'manage' opens one and keeps it."
        ),
    )

    @model_validator(mode="after")
    def _a_host_for_ssh(self) -> Self:
        if self.transport != "local" and self.host is None:
            raise ValueError(f"transport {self.transport!r} needs a host")
        return self


class PathsPart(Part):
    """``{user}`` is the login name; ``~`` and ``$VARIABLES`` are expanded on the cluster."""

    shared_dir: ClusterPath = Field(
        default="~/.hpc-bridge",
        description="Folder of each user that login and compute nodes see alike.",
    )
    node_scratch: ClusterPath | None = Field(
        default=None, description="Fast folder on each compute node, e.g. '/local/{user}'."
    )


class Partition(Part):
    """One partition (PBS: queue). A limit that is left out is not known, and not checked."""

    name: Text
    description: str = ""
    default: bool = Field(default=False, description="Whether jobs go here when none is named.")
    walltime: Walltime | None = Field(default=None, description="Longest walltime of a job.")
    default_walltime: Walltime | None = Field(
        default=None, description="Walltime of a job that asks for none."
    )
    nodes: Count | None = Field(default=None, description="Nodes that the partition has.")
    nodes_per_job: Count | None = Field(default=None, description="Most nodes of one job.")
    cpus_per_node: Count | None = Field(default=None, description="Cores of its largest node.")
    memory_per_node: Memory | None = Field(
        default=None, description="Memory of its largest node that jobs can have."
    )
    gpus_per_node: dict[Text, Count] = Field(
        default_factory=dict,
        description="GPUs of one node by type: {a100: 4}. Empty: it has none.",
    )
    accounts: tuple[Text, ...] = Field(
        default=(), description="Accounts that may use it. Empty: all."
    )
    qos: tuple[Text, ...] = Field(default=(), description="QOS that may use it. Empty: all.")
    groups: tuple[Text, ...] = Field(
        default=(), description="Unix groups whose members may use it. Empty: all."
    )

    @model_validator(mode="after")
    def _limits_hold_the_defaults(self) -> Self:
        if self.walltime and self.default_walltime and self.default_walltime > self.walltime:
            raise ValueError(
                f"default_walltime {format_walltime(self.default_walltime)} is above walltime"
                f" {format_walltime(self.walltime)}"
            )
        if self.nodes and self.nodes_per_job and self.nodes_per_job > self.nodes:
            raise ValueError(f"nodes_per_job {self.nodes_per_job} is above nodes {self.nodes}")
        return self

    @property
    def most_nodes(self) -> int | None:
        """Of one job; None when that is not known."""
        return self.nodes_per_job or self.nodes


class Offer(Part):
    """Something to choose by name."""

    name: Text
    description: str = ""


def _named(value: object) -> object:
    # A number too: that it is no text is said of the name.
    return {"name": value} if isinstance(value, str | int | float) else value


Offers = tuple[Annotated[Offer, BeforeValidator(_named)], ...]


class EnvironmentPart(Part):
    """What runs on a node before the flow."""

    modules: tuple[Text, ...] = Field(default=(), description="Modules to load, in this order.")
    prologue: str = Field(
        default="", description="Shell text after the modules and before the user's setup lines."
    )
    python: ClusterPath | None = Field(
        default=None, description="Interpreter or environment folder on the nodes."
    )
    template: str | None = Field(
        default=None, description="Jinja template of the job script: a path, or the text itself."
    )


class Image(Offer):
    """A container image that the site offers."""

    path: Text = Field(description="File or address of the image.")


class ContainersPart(Part):
    """What of containers there is."""

    runtime: Literal["apptainer", "singularity"] | None = Field(
        default=None, description="Command that runs images on the nodes. Empty: none."
    )
    images: tuple[Image, ...] = Field(default=(), description="Images that users choose by name.")
    binds: tuple[Text, ...] = Field(
        default=(), description="Folders that every container sees: ['/scratch', '/data:/mnt:ro']."
    )


class NetworkPart(Part):
    """What the compute nodes reach."""

    nodes_reach_server: bool | None = Field(
        default=None, description="Whether nodes reach the Prefect server. Empty: not known."
    )
    api_url: Annotated[Text, WebAddress] | None = Field(
        default=None, description="Address of the Prefect server as nodes see it."
    )


class CostsPart(Part):
    """What an hour costs, in whatever unit the site counts."""

    unit: Text = Field(description="'EUR', 'SU', ...")
    node_hour: float | None = Field(default=None, ge=0)
    cpu_hour: float | None = Field(default=None, ge=0)
    gpu_hour: float | None = Field(default=None, ge=0)


class SiteProfile(Part):
    """One cluster.

    A profile guides users and gives early errors; the scheduler enforces. Raises ValidationError
    naming every wrong field.
    """

    format: int = Field(default=FORMAT, ge=1, description="Version of this schema.")
    name: str = Field(
        pattern=NAME_PATTERN,
        description="Of the site: letters, digits, '.', '_' and '-'. Pools are named after it.",
    )
    description: str = Field(default="", description="For people who choose a site.")
    contact: str = Field(default="", description="Whom to ask: an address or a page.")
    example: bool = Field(
        default=False, description="Whether this is only an example, not a cluster that exists."
    )
    scheduler: SchedulerPart
    login: LoginPart = LoginPart()
    paths: PathsPart = PathsPart()
    partitions: tuple[Partition, ...] = Field(
        default=(),
        description="Partitions of Slurm to choose from. Empty: not known, any is taken.",
    )
    accounts: Offers = Field(
        default=(), description="Accounts to choose from. Empty: not known, any is taken."
    )
    qos: Offers = Field(
        default=(), description="QOS to choose from. Empty: not known, any is taken."
    )
    environment: EnvironmentPart = EnvironmentPart()
    containers: ContainersPart = ContainersPart()
    network: NetworkPart = NetworkPart()
    job_variables: dict[str, Rule] = Field(
        default_factory=dict,
        description="Rules for job variables: {walltime: {default: 1h, maximum: 3d}}.",
    )
    retention: Retention = Field(
        default=timedelta(days=30), description="How long run directories are kept: '30d'."
    )
    costs: CostsPart | None = Field(default=None, description="What an hour costs.")

    @model_validator(mode="before")
    @classmethod
    def _is_of_a_known_format(cls, data: Any) -> Any:
        written = data.get("format", FORMAT) if isinstance(data, dict) else FORMAT
        if isinstance(written, int) and written > FORMAT:
            raise ValueError(
                f"format: {written} is newer than this version of hpc-bridge reads ({FORMAT});"
                " upgrade hpc-bridge"
            )
        return data

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, data: Any) -> Any:
        """``queues`` of PBS; that a file has the wrong word is told by whoever reads it."""
        return in_our_words(data, "pbs") if scheduler_in(data) == "pbs" else data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [
            *_names_twice("partitions", (partition.name for partition in self.partitions)),
            *_names_twice("accounts", (account.name for account in self.accounts)),
            *_names_twice("qos", (qos.name for qos in self.qos)),
            *_names_twice("containers.images", (image.name for image in self.containers.images)),
        ]
        defaults = [partition.name for partition in self.partitions if partition.default]
        if len(defaults) > 1:
            names = " and ".join(defaults)
            problems.append(f"partitions: {names} are all the default; keep one")
        offered = {
            "partition": [partition.name for partition in self.partitions],
            "account": [account.name for account in self.accounts],
            "qos": [qos.name for qos in self.qos],
        }
        for name, rule in self.job_variables.items():
            try:
                check_rule(name, rule, offered.get(name, ()))
            except ValueError as error:
                problems.append(str(error))
        problems += self._not_in_its_scheduler()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _not_in_its_scheduler(self) -> Iterator[str]:
        if self.scheduler.type != "pbs":
            return
        named = {"qos": self.qos, **self.job_variables}
        for name, words in NOT_IN_PBS.items():
            if named.get(name):
                where = "" if name == "qos" and self.qos else "job_variables."
                yield f"{where}{name}: {words}"
        for number, partition in enumerate(self.partitions):
            if partition.qos:
                yield f"partitions.{number}.qos: {NOT_IN_PBS['qos']}"

    @property
    def default_partition(self) -> Partition | None:
        """Where jobs go that name none; None when that is not known."""
        chosen = self.job_variables.get("partition", Rule()).default
        for partition in self.partitions:
            if partition.name == chosen or (chosen is None and partition.default):
                return partition
        return None

    def partition(self, name: str | None) -> Partition | None:
        """The partition of that name, the default one for None; None when it is not known."""
        if name is None:
            return self.default_partition
        return next((known for known in self.partitions if known.name == name), None)


def _names_twice(field: str, names: Iterable[str]) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    return [f"{field}: {', '.join(map(repr, twice))} is there twice"] if twice else []
