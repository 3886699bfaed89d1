"""The part of a profile that is about the batch system."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hpc_bridge.errors import InvalidJobSpec, SettingsError
from hpc_bridge.jobs.spec import Count, Directives, Text
from hpc_bridge.schedulers.base import Commands, Scheduler
from hpc_bridge.schedulers.local_directives import option_name, option_words
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.schedulers.pbs_select import DEFAULT_GPU_RESOURCE
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.schedulers.torque import TorqueScheduler
from hpc_bridge.sites.rules import Part
from hpc_bridge.sites.values import Texts, Words

# A variable such as BASH_ENV, which bash reads first, is enough.
_EXECUTES = ("container", "export-file")


class SchedulerPart(Part):
    """The batch system and how it wants to be asked."""

    type: Literal["slurm", "pbs", "local"] = Field(
        description="'slurm', 'pbs', or 'local' for the embedded scheduler of one machine."
    )
    dialect: Literal["openpbs", "torque"] | None = Field(
        default=None,
        description=(
            "Of PBS: 'torque' for the Torque-style wrappers of Slurm, with which less can be asked"
            " for. Empty: 'openpbs', which PBS Pro speaks too."
        ),
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
        default=True,
        description="Whether ended jobs can be looked up (Slurm: sacct; PBS: qstat -x).",
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
        scheduler = self._without_options()
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
            elif self.dialect == "torque":
                TorqueScheduler(commands)
            elif self.type == "pbs":
                PBSScheduler(commands, gpu_resource=self.gpu_resource or DEFAULT_GPU_RESOURCE)
        except SettingsError as error:
            raise ValueError(str(error).removeprefix("scheduler.")) from None
        of_openpbs = [name for name in ("gpu_resource", "account_option") if getattr(self, name)]
        of_pbs = [*of_openpbs, *(["dialect"] if self.dialect else [])]
        if self.type != "pbs" and of_pbs:
            raise ValueError(f"{of_pbs[0]}: this is for type 'pbs' only")
        if self.dialect == "torque" and of_openpbs:
            raise ValueError(f"{of_openpbs[0]}: this is not for dialect 'torque'")
        if self.type == "pbs" and self.cluster is not None:
            raise ValueError("cluster: this is for Slurm's -M; write a profile for each PBS server")
        return self

    def _without_options(self) -> Scheduler:
        if self.dialect == "torque":
            return TorqueScheduler()
        return PBSScheduler() if self.type == "pbs" else SlurmScheduler()
