"""What is asked of a job, in words that no scheduler owns."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import units

_GPUS = re.compile(r"(?:(?P<type>\w[\w.-]*):)?(?P<count>\d+)")
_NOT_CAUGHT = frozenset({"KILL", "STOP"})
_SIGNAL = re.compile(r"(?:SIG)?([A-Z]+\d*)@(\d+)")
NO_WARNING = "off"
_WARNING_SECONDS = 60
_SHORTEST_WARNED = 20
"""Seconds of walltime; a shorter job has no time to be warned of its end."""
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _one_line(value: object) -> object:
    if isinstance(value, str):
        broken = sorted({char for char in value if char in "\n\r\0\x0b\x0c\x1c\x1d\x1e\x85"})
        if broken:
            raise ValueError(f"{value!r} holds {broken!r}; a directive is one line of text")
        if not value.strip():
            raise ValueError("is empty; leave it out instead")
    return value


def _count(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _gpus(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    match = _GPUS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or int(match["count"]) == 0:
        raise ValueError(
            f"{value!r} is not a number of GPUs; write 2 or 'a100:2' (type:count, at least 1)"
        )
    return match[0]


def _warning(value: object) -> str:
    if isinstance(value, str) and value.strip().lower() in ("off", "none"):
        return NO_WARNING
    match = _SIGNAL.fullmatch(value.strip().upper()) if isinstance(value, str) else None
    known = match is not None and f"SIG{match[1]}" in signal.Signals.__members__
    if match is not None and match[1] in _NOT_CAUGHT:
        raise ValueError(f"{value!r}: no process can handle {match[1]}; write 'TERM@120'")
    if match is None or not known or int(match[2]) == 0:
        raise ValueError(
            f"{value!r} is not a warning signal; write 'USR1@120' (seconds before), or 'off'"
        )
    return f"{match[1]}@{match[2]}"


def _directives(value: object) -> object:
    lines = [value] if isinstance(value, str) else value
    if isinstance(lines, (list, tuple)):
        for line in lines:
            _one_line(line)
            if not isinstance(line, str) or not line.startswith("-"):
                raise ValueError(f"{line!r} is not a directive; write it like '--exclusive=user'")
    return lines


def check_environment(variables: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """Raise ValueError for a name or value that no process can be given."""
    for name, text in variables.items():
        if not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of an environment variable")
        if text is not None and "\0" in text:
            raise ValueError(f"the value of {name} holds a NUL byte")
    return variables


Text = Annotated[str, BeforeValidator(_one_line)]
Count = Annotated[int, BeforeValidator(_count), Field(ge=1)]
Memory = Annotated[
    int,
    BeforeValidator(lambda v: units.parse_memory(v)),
    PlainSerializer(units.format_memory),
    WithJsonSchema({"type": "string", "examples": ["16G", "1500M"]}),
]
Walltime = Annotated[
    int,
    BeforeValidator(lambda v: units.parse_walltime(v)),
    PlainSerializer(units.format_walltime),
    WithJsonSchema({"type": "string", "examples": ["2h", "90m", "1-12:00:00"]}),
]
Gpus = Annotated[
    str,
    BeforeValidator(_gpus),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1}]}),
]
Warning_ = Annotated[str, BeforeValidator(_warning), WithJsonSchema({"type": "string"})]
Directives = Annotated[list[str], BeforeValidator(_directives)]
Environment = Annotated[dict[str, str | None], AfterValidator(check_environment)]


class Resources(BaseModel):
    """The part of a job request that a person fills in; every field may be left out.

    Titles and descriptions are those of the dashboard's form.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    partition: Text | None = Field(
        default=None,
        title="Partition",
        description="Partition (queue) to submit to. Empty: the cluster's default.",
    )
    account: Text | None = Field(
        default=None,
        title="Account",
        description="Account (project, allocation) that the job is charged to.",
    )
    qos: Text | None = Field(default=None, title="QOS", description="Quality of service.")
    reservation: Text | None = Field(
        default=None, title="Reservation", description="Name of a reservation to run in."
    )
    constraint: Text | None = Field(
        default=None,
        title="Constraint",
        description="Node features that are needed, e.g. 'skylake&ib'.",
    )
    nodes: Count | None = Field(default=None, title="Nodes", description="Number of nodes.")
    tasks: Count | None = Field(
        default=None,
        title="Tasks",
        description="Number of tasks (processes) that the allocation has room for.",
    )
    tasks_per_node: Count | None = Field(
        default=None, title="Tasks per node", description="Number of tasks on each node."
    )
    cpus_per_task: Count | None = Field(
        default=None, title="CPUs per task", description="Cores for each task."
    )
    memory: Memory | None = Field(
        default=None,
        title="Memory per node",
        description="Memory on each node, with a unit: '16G', '1500M'.",
    )
    memory_per_cpu: Memory | None = Field(
        default=None,
        title="Memory per CPU",
        description="Memory for each core, with a unit. Not together with memory per node.",
    )
    gpus: Gpus | None = Field(
        default=None,
        title="GPUs",
        description="GPUs of the whole job: 2, or with their type 'a100:2'.",
    )
    gpus_per_node: Gpus | None = Field(
        default=None, title="GPUs per node", description="GPUs on each node: 2 or 'a100:2'."
    )
    walltime: Walltime | None = Field(
        default=None,
        title="Walltime",
        description="Longest run time: '90m', '2h', '1-12:00:00'. Empty: the queue's default.",
    )
    begin: Text | None = Field(
        default=None,
        title="Begin",
        description="Earliest start, e.g. '2027-01-31T08:00:00' or 'now+1hour'.",
    )
    exclusive: bool = Field(
        default=False, title="Exclusive", description="Share the nodes with no other job."
    )
    licenses: Text | None = Field(
        default=None, title="Licenses", description="Licenses that are needed, e.g. 'matlab:1'."
    )
    nodelist: Text | None = Field(
        default=None, title="Node list", description="Nodes that must be part of the job."
    )
    exclude: Text | None = Field(
        default=None, title="Exclude", description="Nodes that must not be part of the job."
    )
    dependency: Text | None = Field(
        default=None,
        title="Dependency",
        description="Jobs to wait for, e.g. 'afterok:1234'.",
    )
    requeue: bool | None = Field(
        default=None,
        title="Requeue",
        description="Whether the scheduler may requeue the job. Empty: the cluster's default.",
    )
    warning: Warning_ | None = Field(
        default=None,
        title="Warning signal",
        description=(
            "Signal and seconds before the walltime at which it is sent: 'USR1@120'; 'off' for"
            " none. Empty: 'USR1@60', for short jobs a quarter of the walltime. A flow that does"
            " not catch it ends then, with its logs sent."
        ),
    )
    on_walltime: Literal["end", "resubmit"] = Field(
        default="end",
        title="On walltime",
        description=(
            "What follows when the walltime was not enough: 'end' (Crashed), or 'resubmit' (the"
            " run goes on in a new job, with its persisted task results)."
        ),
    )
    max_resubmissions: Count = Field(
        default=10,
        title="Max resubmissions",
        description="How often a run is resubmitted because of its walltime.",
    )
    comment: Text | None = Field(
        default=None,
        title="Comment",
        description="Free text kept with the job. Empty: the names of the flow and its run.",
    )
    directives: Directives = Field(
        default_factory=list,
        title="Further directives",
        description="Options for the scheduler as it knows them, e.g. '--mail-type=END'.",
    )
    working_directory: Text | None = Field(
        default=None,
        title="Working directory",
        description=(
            "Absolute folder on the cluster in which the flow runs. Empty: where the flow was"
            " called on the cluster, else a fresh folder of the run."
        ),
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.memory is not None and self.memory_per_cpu is not None:
            raise ValueError("memory and memory_per_cpu exclude each other; give one of them")
        if self.gpus is not None and self.gpus_per_node is not None:
            raise ValueError("gpus and gpus_per_node exclude each other; give one of them")
        if self.working_directory is not None and not self.working_directory.startswith("/"):
            raise ValueError(f"working_directory {self.working_directory!r} is not absolute")
        if self.on_walltime == "resubmit" and self.warning_in_effect() is None:
            raise ValueError(
                "on_walltime='resubmit' needs the warning before the walltime: leave warning out,"
                f" and ask for a walltime of at least {_SHORTEST_WARNED} s"
            )
        if self.on_walltime == "resubmit" and (self.warning or "").startswith("TERM@"):
            raise ValueError(
                f"on_walltime='resubmit' cannot go by warning {self.warning!r}: a cancelled job"
                " gets that signal, too; leave warning out, or take 'USR1@120'"
            )
        if self.warning not in (None, NO_WARNING) and self.walltime is not None:
            seconds = int(self.warning.partition("@")[2])
            if seconds >= self.walltime:
                raise ValueError(f"warning {self.warning!r} is not before the end of the walltime")
        return self

    def warning_in_effect(self) -> str | None:
        """What the scheduler is asked for: as given, else a minute or a quarter of the walltime."""
        if self.warning == NO_WARNING:
            return None
        if self.warning is not None or self.walltime is None:
            return self.warning or f"USR1@{_WARNING_SECONDS}"
        if self.walltime < _SHORTEST_WARNED:
            return None
        return f"USR1@{min(_WARNING_SECONDS, self.walltime // 4)}"


class JobSpec(Resources):
    """One job as it is handed to a script template."""

    model_config = ConfigDict(frozen=True)

    name: Text = Field(description="Unique, and safe in every scheduler: the submission id.")
    environment: Environment = Field(
        default_factory=dict, description="Variables of the flow's process; never in the script."
    )


def checked(model: type[Resources], values: Mapping[str, Any]) -> Resources:
    """``model`` filled with ``values``.

    Raises InvalidJobSpec naming every wrong field, with the nearest known name for an unknown one.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise InvalidJobSpec(explain(error, model)) from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The problems of a validation error, one per line, each with the field's name."""
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_name(field, model.model_fields))
            continue
        cause = problem.get("ctx", {}).get("error")
        text = str(cause) if cause is not None else f"{problem['msg']}, got {problem['input']!r}"
        lines.append(f"{field}: {text}" if field else text)
    return "\n".join(lines)


# What other tools and Slurm itself call it.
_SYNONYMS = {
    "cpus": "cpus_per_task",
    "cores": "cpus_per_task",
    "cpus_per_node": "tasks_per_node",
    "ncpus": "cpus_per_task",
    "mpiprocs": "tasks_per_node",
    "ngpus": "gpus",
    "project": "account",
    "select": "directives",
    "ntasks": "tasks",
    "ntasks_per_node": "tasks_per_node",
    "mem": "memory",
    "mem_per_cpu": "memory_per_cpu",
    "gres": "gpus",
    "queue": "partition",
    "time": "walltime",
    "time_limit": "walltime",
    "environment": "env",
    "chdir": "working_directory",
    "signal": "warning",
}


def unknown_name(name: str, known: Collection[str]) -> str:
    """A sentence about an unknown option with the nearest known one."""
    own = _SYNONYMS.get(name)
    near = [own] if own in known else difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
    return f"{name!r} is not an option of a job; {hint}"
