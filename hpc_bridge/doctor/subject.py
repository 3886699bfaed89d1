"""The set-up that is examined: what a job of this user on this site would be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.settings import get_current_settings
from pydantic import ValidationError

from hpc_bridge.cluster import Cluster
from hpc_bridge.connections import Connection
from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs.spec import explain
from hpc_bridge.settings import PoolType, Settings, personal_pool, pool_type
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.words import queue_word
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.transports.login import LOCAL, Login
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.kinds import WORKERS
from hpc_bridge.workers.precedence import over_the_pool, over_the_site
from hpc_bridge.workers.submission import api_url, connection_of, job_script

WALLTIME = "2m"


@dataclass
class Subject:
    """Filled in step by step; a step that needs a part runs only when the part is there."""

    settings: Settings
    partition: str | None = None
    """Asked for on the command line."""
    site: Site | None = None
    pool_template: Mapping[str, Any] | None = None
    """Of the pool; None is what a new one begins with."""
    partitions: Sequence[str] = ()
    """Those to choose from, as far as profile or scheduler have said so."""
    _configuration: BatchJobConfiguration | None = None

    @property
    def profile(self) -> SiteProfile | None:
        """The admin's part, if there is one."""
        return self.site.profile if self.site else None

    @property
    def login(self) -> Login:
        """How the login side is reached from this machine. Raises SiteError."""
        return self.site.login if self.site else LOCAL

    @property
    def pool_type(self) -> PoolType:
        """Of the pools that serve the scheduler."""
        if self.site is not None:
            return pool_type(self.site.profile.scheduler.type)
        return pool_type(self.settings.effective_scheduler)

    @property
    def queue_option(self) -> str:
        """That of the command line which says where the jobs go."""
        return f"--{queue_word(self.pool_type)}"

    @property
    def work_pool(self) -> str:
        """The pool that a decorated flow would go to."""
        if self.site is None or self.settings.work_pool:
            return self.settings.default_work_pool
        return personal_pool(self.site.name)

    @property
    def job_variables(self) -> dict[str, Any]:
        """What is asked for beyond what a flow without any option gets."""
        site = self.site.name if self.site else None
        asked = {"walltime": WALLTIME, "partition": self.partition, "site": site}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def configuration(self) -> BatchJobConfiguration:
        """Of a job that asks for nothing but a short walltime. Raises InvalidJobSpec."""
        if self._configuration is None:
            worker = WORKERS[self.pool_type]
            pool = self.pool_template or worker.get_default_base_job_template()
            template = over_the_site(dict(pool), self.site)
            defaults = {
                name: described["default"]
                for name, described in template["variables"]["properties"].items()
                if described.get("default") is not None
            }
            asked = over_the_pool(self.job_variables, self.settings, self.site)
            try:
                configuration = worker.job_configuration(**defaults | asked)
            except ValidationError as error:
                raise InvalidJobSpec(explain(error, worker.job_configuration)) from None
            self._configuration = configuration.put_at(self.site)
        return self._configuration

    @property
    def scheduler_name(self) -> str:
        """'slurm', 'local', ..."""
        return self.configuration.scheduler_name

    @property
    def connection(self) -> Connection:
        """As a job's submitter has it."""
        return connection_of(self.configuration)

    @property
    def files(self) -> ClusterFiles:
        """Those that its login and compute nodes see."""
        return self.connection.files

    @property
    def here(self) -> str:
        """The login side, in words."""
        return "here" if self.login == LOCAL else f"on {self.login.host}"

    @property
    def cluster(self) -> Cluster:
        """Where jobs go."""
        return self.connection.cluster

    @property
    def api_url(self) -> str:
        """The server's address that a job would be given. Raises SettingsError."""
        return api_url(self.configuration, get_current_settings())

    def script(self, name: str, *, python: str) -> str:
        """The script of a job of that name, with another program in the place of Python."""
        copied = self.configuration.model_copy(update={"python": python})
        configuration = copied.put_at(self.site)
        return job_script(configuration, configuration.spec(name, "hpc-bridge doctor"))

    def where_to_set(self, field_: str, variable: str) -> str:
        """How a user and the admin's profile say the same thing."""
        if self.profile is None:
            return variable
        return f"{variable}, or {field_} in the profile of {self.profile.name}"
