"""The worker of pools of type ``pbs``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import Field

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs.spec import Directives, Gpus, Text
from hpc_bridge.schedulers.pbs_select import NOT_IN_PBS, check_request
from hpc_bridge.settings import PoolType
from hpc_bridge.workers.base import BatchWorker
from hpc_bridge.workers.configuration import BatchJobConfiguration, BatchVariables


class PBSVariables(BatchVariables):
    """The form of a pool of type ``pbs``: the same fields, in the words of PBS."""

    partition: Text | None = Field(
        default=None,
        title="Queue",
        description="Queue to submit to. Empty: the cluster's default.",
    )
    account: Text | None = Field(
        default=None,
        title="Account or project",
        description="What the job is charged to: PBS's -A, or its -P where the site says so.",
    )
    reservation: Text | None = Field(
        default=None,
        title="Reservation",
        description="Name of a reservation to run in, which is a queue of its own in PBS: 'R123'.",
    )
    constraint: Text | None = Field(
        default=None,
        title="Constraint",
        description="Resources that each node must have, e.g. 'cpu_type=rome:ib=True'.",
    )
    gpus: Gpus | None = Field(
        default=None, title="GPUs", description="GPUs of the whole job, without a type: 2."
    )
    gpus_per_node: Gpus | None = Field(
        default=None, title="GPUs per node", description="GPUs on each node, without a type: 2."
    )
    begin: Text | None = Field(
        default=None,
        title="Begin",
        description="Earliest start, in the cluster's time: '2027-01-31T08:00:00'.",
    )
    licenses: Text | None = Field(
        default=None,
        title="Licenses",
        description="Resources of the whole job that are counted, e.g. 'matlab:1'.",
    )
    directives: Directives = Field(
        default_factory=list,
        title="Further directives",
        description=(
            "Options for qsub as it knows them, e.g. '-m e'; '-l select=...' takes the place of the"
            " nodes, tasks, cores, memory and GPUs above."
        ),
    )


class PBSJobConfiguration(BatchJobConfiguration):
    """One flow run's job on a PBS cluster, before it becomes a JobSpec."""

    pool_type: ClassVar[PoolType] = "pbs"
    form: ClassVar[type[BatchVariables]] = PBSVariables

    @classmethod
    def in_our_words(cls, values: Mapping[str, Any], *, only_own: bool = False) -> dict[str, Any]:
        """As the base class; ``queue`` is the field that is called ``partition`` inside."""
        if only_own and "partition" in values:
            raise InvalidJobSpec("'partition' is Slurm's word; PBS's is 'queue'")
        named = {name: value for name, value in values.items() if name != "queue"}
        return named | ({"partition": values["queue"]} if "queue" in values else {})

    @classmethod
    def known_names(cls) -> Collection[str]:
        """As the base class."""
        return [*{*cls.form.model_fields, "queue"} - {"partition", *NOT_IN_PBS}]

    @classmethod
    def check_asked(cls, asked: BatchVariables) -> None:
        """As the base class."""
        super().check_asked(asked)
        check_request(asked)


class PBSWorker(BatchWorker):
    """Runs flow runs as jobs of OpenPBS or PBS Pro."""

    type = "pbs"
    job_configuration = PBSJobConfiguration
    job_configuration_variables = PBSVariables
    _display_name = "PBS"
    _description = "Run flows as batch jobs on an OpenPBS or PBS Pro cluster."

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """As the base class, without what PBS has no word for."""
        template = super().get_default_base_job_template()
        for name in NOT_IN_PBS:
            del template["variables"]["properties"][name], template["job_configuration"][name]
        return template
