"""The pool's form and the job configuration that comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prefect.client.utilities import inject_client
from prefect.workers.base import BaseJobConfiguration, BaseVariables
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import JobSpec, Resources
from hpc_bridge.jobs.spec import check_environment, explain, unknown_name
from hpc_bridge.settings import POLL_INTERVAL, RunSettings, SchedulerName, load_settings
from hpc_bridge.storage.bundle import default_interpreter

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient


class _Caller(BaseModel):
    """What both have besides resources and run settings."""

    @field_validator("env", mode="after", check_fields=False)
    @classmethod
    def _check_env(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        check_environment(value)
        return value

    called_from: str | None = Field(
        default=None,
        title="Called from",
        description="Filled in when a decorated flow is called: the folder of the call.",
    )


class BatchVariables(BaseVariables, Resources, RunSettings, _Caller):
    """What can be set on a pool, in a deployment and in a decorator."""

    # The server checks what a form sends; unknown names are found on our side.
    model_config = ConfigDict(extra="ignore")

    name: str | None = Field(
        default=None,
        title="Name",
        description="A name for people; it goes into the job's comment.",
    )


class BatchJobConfiguration(BaseJobConfiguration, Resources, RunSettings, _Caller):
    """One flow run's job, before it becomes a JobSpec."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    @classmethod
    @inject_client
    async def from_template_and_values(
        cls,
        base_job_template: dict[str, Any],
        values: dict[str, Any],
        client: PrefectClient | None = None,
    ) -> Self:
        """As Prefect does, with this account's settings between the pool and ``values``.

        Raises InvalidJobSpec naming every job variable that is unknown or wrong.
        """
        check_values(values)
        try:
            configuration: Self = await super().from_template_and_values(
                base_job_template, load_settings().job_variables() | values, client=client
            )
        except ValidationError as error:
            raise InvalidJobSpec(explain(error, cls)) from None
        return configuration

    @classmethod
    def _base_environment(cls) -> dict[str, str]:
        """Nothing: Prefect would copy every setting of the submitter here, its API key too."""
        return {}

    @property
    def scheduler_name(self) -> SchedulerName:
        """The batch system that takes the job."""
        return self.scheduler or "slurm"

    @property
    def shared(self) -> Path:
        """The folder that login and compute nodes see alike."""
        return Path(self.shared_dir) if self.shared_dir else Path.home() / ".hpc-bridge"

    @property
    def interpreter(self) -> str:
        """Python, or the environment that holds it, on the node."""
        return self.python or default_interpreter()

    @property
    def polling_seconds(self) -> float:
        """Pause between two status commands."""
        return self.poll_interval or POLL_INTERVAL[self.scheduler_name]

    def spec(self, submission_id: str, comment: str) -> JobSpec:
        """The neutral request. Raises InvalidJobSpec."""
        asked = {name: getattr(self, name) for name in Resources.model_fields}
        asked["comment"] = self.comment or comment
        asked["warning"] = self.warning_in_effect()
        # Validated when this object was made; units have become numbers since.
        return JobSpec.model_construct(name=submission_id, environment=dict(self.env), **asked)


def check_names(values: Mapping[str, Any]) -> None:
    """Raise InvalidJobSpec for a job variable that no pool of ours has."""
    known = BatchVariables.model_fields
    wrong = [name for name in values if name.split(".")[0] not in known]
    if wrong:
        raise InvalidJobSpec("\n".join(unknown_name(name, known) for name in wrong))


def check_values(values: Mapping[str, Any]) -> None:
    """Raise InvalidJobSpec naming every job variable that is unknown or wrong."""
    check_names(values)
    try:
        BatchVariables(**{name: value for name, value in values.items() if "." not in name})
    except ValidationError as error:
        raise InvalidJobSpec(explain(error, BatchVariables)) from None
