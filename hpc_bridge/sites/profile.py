"""The schema of a site profile: one YAML file that describes one cluster.

Its descriptions are the reference: the JSON schema for editors and the docs come from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpc_bridge.errors import InvalidJobSpec, SettingsError
from hpc_bridge.jobs.spec import Count, Directives, Memory, Text, Walltime
from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.schedulers.base import Commands
from hpc_bridge.schedulers.local_directives import option_name, option_words
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.pbs_select import DEFAULT_GPU_RESOURCE
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.settings import WebAddress
from hpc_bridge.sites.rules import Part, Rule, check_rule
from hpc_bridge.sites.values import ClusterPath, Retention, Texts, Words
from hpc_bridge.transports.login import Master, TransportName

FORMAT = 1
# A variable such as BASH_ENV, which bash reads first, is enough.
_EXECUTES = ("container", "export-file")
NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"


class SchedulerPart(Part):
    """The batch system and how it wants to be asked."""

    type: Literal["slurm", "pbs", "local"] = Field(
        description="'slurm', 'pbs', or 'local' for the embedded scheduler of one machine."
    )
    version: Text | None = Field(
        default=None, description="Of the scheduler, for people and for `doctor`: '24.11.5'."
    )
    cluster: Text | None = Field(
        default=None,
        description="Name of the cluster where one server has several; Slurm is asked with -M.",
    )
    commands: dict[str, Words] = Field(
        default_factory=dict,
        description=(
            "Path of a command, or the wrapper to call instead of it, by its name:"
            " {sbatch: /opt/slurm/bin/sbatch, squeue: [/opt/site/wrap, squeue]}."
        ),
    )
    accounting: bool = Field(
        default=True, description="Whether ended jobs can be looked up (Slurm: sacct)."
    )
    gpu_resource: Text | None = Field(
        default=None, description="Of PBS: name of the resource that counts GPUs. Empty: 'ngpus'."
    )
    account_option: Literal["-A", "-P"] | None = Field(
        default=None,
        description="Of PBS: the option that takes the account, '-P' for projects. Empty: '-A'.",
    )
    arrays: bool = Field(default=True, description="Whether users may submit job arrays.")
    poll_interval: float | None = Field(
        default=None, gt=0, description="Seconds between two status commands of a process."
    )
    shortest_poll_interval: float | None = Field(
        default=None, gt=0, description="No process asks more often, whatever its user sets."
    )
    submissions_per_minute: Count | None = Field(
        default=None, description="No process submits faster."
    )
    live_jobs: Count | None = Field(
        default=None, description="Queued and running jobs that one user may have at a time."
    )
    skip_directives: Texts = Field(
        default=(),
        description=(
            "Options left out of every job script, since the site refuses them: ['--mem'], of PBS"
            " ['-l place']."
        ),
    )
    add_directives: Directives = Field(
        default_factory=list,
        description="Options added to every job script: ['--wckey=flows'], of PBS ['-l fs=home'].",
    )

    @model_validator(mode="after")
    def _polls_no_faster_than_allowed(self) -> Self:
        asked, floor = self.poll_interval, self.shortest_poll_interval
        if asked is not None and floor is not None and asked < floor:
            raise ValueError(f"poll_interval {asked:g} is below shortest_poll_interval {floor:g}")
        for option in self.skip_directives:
            if not option.startswith("-") or "=" in option:
                raise ValueError(
                    f"skip_directives: write the option alone, '--mem', not {option!r}"
                )
        scheduler = PBSScheduler() if self.type == "pbs" else SlurmScheduler()
        for field, check in (
            ("skip_directives", scheduler.check_skipped),
            ("add_directives", scheduler.check_directives),
        ):
            try:
                check(getattr(self, field))
            except InvalidJobSpec as error:
                raise ValueError(str(error).replace("directives", field, 1)) from None
        if self.type == "pbs":
            return self
        for option in (word for line in self.add_directives for word in option_words(line)):
            if option_name(option) in _EXECUTES:
                raise ValueError(
                    f"add_directives: {option!r} lets files decide what jobs execute; use"
                    " environment.prologue, which users see and accept"
                )
        return self

    @model_validator(mode="after")
    def _asks_a_scheduler_that_there_is(self) -> Self:
        commands = Commands.of(self.commands)
        try:
            if self.type == "slurm":
                SlurmScheduler(commands, cluster=self.cluster)
            elif self.type == "pbs":
                PBSScheduler(commands, gpu_resource=self.gpu_resource or DEFAULT_GPU_RESOURCE)
        except SettingsError as error:
            raise ValueError(str(error).removeprefix("scheduler.")) from None
        of_pbs = [name for name in ("gpu_resource", "account_option") if getattr(self, name)]
        if self.type != "pbs" and of_pbs:
            raise ValueError(f"{of_pbs[0]}: this is for type 'pbs' only")
        if self.type == "pbs" and self.cluster is not None:
            raise ValueError("cluster: this is for Slurm's -M; write a profile for each PBS server")
        return self


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
        default=(), description="Partitions to choose from. Empty: not known, any is taken."
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
        if problems:
            raise ValueError("\n".join(problems))
        return self

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
