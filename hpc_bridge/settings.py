"""Settings: ``HPC_BRIDGE_*`` variables, then the user file, then the package's defaults.

The fields of RunSettings are job variables of the same name too; which of the places that may set
one has the say is in ``workers/precedence.py``.
"""

from __future__ import annotations

import difflib
import getpass
import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from hpc_bridge.errors import SettingsError
from hpc_bridge.files import expanded_path
from hpc_bridge.jobs.spec import Count, explain
from hpc_bridge.jobs.units import parse_walltime
from hpc_bridge.transports.login import TransportName

SchedulerName = Literal["slurm", "pbs", "local"]
PoolType = Literal["slurm", "pbs"]
SERVED_BY: dict[PoolType, tuple[SchedulerName, ...]] = {
    "slurm": ("slurm", "local"),
    "pbs": ("pbs",),
}
"""The schedulers of each type of pool, its own first; the embedded one reads Slurm's scripts."""

logger = logging.getLogger(__name__)

# Set for processes of jobs, for the embedded scheduler, and by those who test with a site.
_OTHER_VARIABLES = (
    *("run_dir", "element", "attempt", "started", "ends", "reports", "local_cpus", "local_job"),
    *("sites", "scratch", "site_cache", "site_mirror"),
)

DEFAULT_SHARED_DIR = "~/.hpc-bridge"
POLL_INTERVAL = {"slurm": 30.0, "pbs": 30.0, "local": 1.0}


def _lines(value: object) -> object:
    return value.splitlines() if isinstance(value, str) else value


def _web_address(value: object) -> object:
    if isinstance(value, str):
        parts = urlsplit(value)
        if parts.username or parts.password:
            raise ValueError("holds a user name or password; set PREFECT_API_AUTH_STRING instead")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not a web address; it begins with http:// or https://")
    return value


WebAddress = BeforeValidator(_web_address)


def _absolute(value: object) -> object:
    if isinstance(value, str) and not value.startswith(("/", "~", "$")):
        raise ValueError(f"{value!r} is not an absolute path")
    return value


def parse_retention(value: object) -> timedelta | None:
    """``"30d"``, ``"12h"`` -> timedelta; ``"forever"`` -> None. Raises ValueError."""
    if value is None or value == "forever":
        return None
    try:
        return timedelta(seconds=parse_walltime(value))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{value!r} is not a time to keep; write '30d', '12h' or 'forever'"
        ) from None


class RunSettings(BaseModel):
    """How and where jobs run; every field is also a job variable."""

    scheduler: SchedulerName | None = Field(
        default=None,
        title="Scheduler",
        description="'slurm', 'pbs', or 'local' for the embedded scheduler of this machine.",
    )
    shared_dir: Annotated[str, BeforeValidator(_absolute)] | None = Field(
        default=None,
        title="Shared directory",
        description=(
            "Folder that login and compute nodes see alike, for run directories, bundles and"
            " results; ~, $VARIABLES and {user} are as on the cluster. Empty: ~/.hpc-bridge."
        ),
    )
    python: str | None = Field(
        default=None,
        title="Python on the node",
        description=(
            "Interpreter, virtual environment or conda environment on the compute nodes. Empty: the"
            " path of the submitter's own interpreter, on a cluster that is not reached over SSH."
        ),
    )
    setup: Annotated[list[str], BeforeValidator(_lines)] | None = Field(
        default=None,
        title="Setup lines",
        description="Shell lines that run before Python starts, e.g. 'module load cuda'.",
    )
    api_url: Annotated[str, WebAddress] | None = Field(
        default=None,
        title="API address for nodes",
        description=(
            "Address at which compute nodes reach the Prefect server. Empty: the submitter's own"
            " PREFECT_API_URL, on a cluster that is not reached over SSH."
        ),
    )
    template: str | None = Field(
        default=None,
        title="Job script template",
        description="Own Jinja template of the job script: a path, or the text itself.",
    )
    poll_interval: float | None = Field(
        default=None,
        title="Polling interval",
        description="Seconds between two questions to the scheduler about all live jobs.",
        gt=0,
    )
    arrays: bool | None = Field(
        default=None,
        title="Job arrays",
        description=(
            "Whether a worker submits like runs that are ready together as one job array. Empty:"
            " it does, where the scheduler has arrays."
        ),
    )
    array_throttle: Count | None = Field(
        default=None,
        title="Array throttle",
        description="Largest number of runs of one job array that run at the same time.",
    )


class Settings(BaseSettings, RunSettings):
    """Everything that can be set outside of a flow's own code."""

    model_config = SettingsConfigDict(
        env_prefix="HPC_BRIDGE_", env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )

    site: str | None = Field(
        default=None,
        description="Name of the cluster: of its profile, and first part of the personal pool's.",
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$",
    )
    work_pool: str | None = Field(default=None, description="Pool to use instead.")
    retention: Annotated[timedelta | None, BeforeValidator(parse_retention)] = Field(
        default=timedelta(days=30),
        description=(
            "How long run directories are kept after the end: '30d', or 'forever'. Where nothing is"
            " said a site profile's own time counts."
        ),
    )
    transport: TransportName | None = Field(
        default=None,
        description=(
            "How login hosts are reached: 'local', 'openssh' or 'paramiko', whatever the site's"
            " profile and your part of it say."
        ),
    )
    array_window: float = Field(
        default=15.0,
        description=(
            "Longest that a worker lets a run wait for like ones that it was handed together with"
            " it, in seconds."
        ),
        ge=0,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, toml_file=user_file())
        return init_settings, env_settings, file

    @property
    def effective_scheduler(self) -> SchedulerName:
        """The scheduler, Slurm when nothing is said."""
        return self.scheduler or "slurm"

    @property
    def default_work_pool(self) -> str:
        """The named pool, else the personal one of the site: ``<site>-<login name>``."""
        schedulers = (self.scheduler,) if self.scheduler else ()
        return self.pool_for(schedulers, pool_type(self.effective_scheduler))

    def pool_for(self, schedulers: Sequence[SchedulerName], kind: PoolType) -> str:
        """The default pool of a type for jobs of one of these, which the only site may lack.

        No schedulers are any.
        """
        if self.work_pool:
            return self.work_pool
        if (site := self.site or _only_site(schedulers)) is None:
            return f"{self.scheduler_of(kind)}-{getpass.getuser()}"
        return personal_pool(site)

    def scheduler_of(self, kind: PoolType) -> SchedulerName:
        """What the account has set, where pools of the type serve it, else the type's own."""
        served = SERVED_BY[kind]
        return self.scheduler if self.scheduler in served else served[0]

    @property
    def shared(self) -> Path:
        """The shared directory as it is named on this machine. Raises SettingsError."""
        return absolute_path("shared_dir", expanded_path(self.shared_dir or DEFAULT_SHARED_DIR))

    def job_variables(self) -> dict[str, Any]:
        """Those run settings that somebody has set."""
        return {
            name: value
            for name in RunSettings.model_fields
            if (value := getattr(self, name)) is not None
        }


def pool_type(scheduler: SchedulerName) -> PoolType:
    """Of the pools whose jobs go to that scheduler."""
    return next(kind for kind, served in SERVED_BY.items() if scheduler in served)


def absolute_path(field: str, expanded: str) -> Path:
    """Raise SettingsError for a path that is not absolute, as a variable in it has no value."""
    if not expanded.startswith("/"):
        raise SettingsError(f"{field}: {expanded!r} is not an absolute path")
    return Path(expanded)


def on_compute_node() -> bool:
    """Whether this process runs within a job, where no profiles are looked for at decoration."""
    return "HPC_BRIDGE_RUN_DIR" in os.environ


def _only_site(schedulers: Sequence[SchedulerName]) -> str | None:
    if on_compute_node():
        return None
    from hpc_bridge.sites.choosing import only_site_with

    return only_site_with(schedulers)


def personal_pool(site: str) -> str:
    """``<site>-<login name>``; the name is that on the cluster, by the user's part of the site."""
    if on_compute_node():
        return f"{site}-{getpass.getuser()}"
    from hpc_bridge.sites.choosing import login_name

    return f"{site}-{login_name(site)}"


@lru_cache(maxsize=1)
def _warn_of_unknown_variables(names: tuple[str, ...]) -> None:
    """A mistyped variable would silently change nothing."""
    prefix = "HPC_BRIDGE_"
    known = {*Settings.model_fields, "config", *_OTHER_VARIABLES}
    for name in names:
        if name.startswith(prefix) and name.removeprefix(prefix).lower() not in known:
            near = difflib.get_close_matches(name.removeprefix(prefix).lower(), known, n=1)
            hint = f"; did you mean {prefix}{near[0].upper()}?" if near else ""
            logger.warning("%s is not a setting of hpc-bridge%s", name, hint)


def user_file() -> Path:
    """``$HPC_BRIDGE_CONFIG``, else ``hpc-bridge/config.toml`` where a user's configuration is."""
    if named := os.environ.get("HPC_BRIDGE_CONFIG"):
        if not Path(named).exists():
            raise SettingsError(f"HPC_BRIDGE_CONFIG names {named}, which does not exist")
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "hpc-bridge" / "config.toml"


def load_settings() -> Settings:
    """The settings as they are now. Raises SettingsError naming the variable or the file."""
    _warn_of_unknown_variables(tuple(sorted(os.environ)))
    try:
        return Settings()
    except ValidationError as error:
        lines = explain(error, Settings).splitlines()
        where = f"(HPC_BRIDGE_* variables, or {user_file()})"
        raise SettingsError("\n".join([f"wrong settings {where}:", *lines])) from None
    except SettingsError:
        raise
    except (OSError, ValueError) as error:
        raise SettingsError(f"the user file {user_file()} cannot be read: {error}") from error
