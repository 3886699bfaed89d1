"""The pool's form and the job configuration that comes out of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from prefect.client.utilities import inject_client
from prefect.workers.base import BaseJobConfiguration, BaseVariables
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)

from hpc_bridge.errors import InvalidJobSpec, SettingsError
from hpc_bridge.jobs import JobSpec, Resources
from hpc_bridge.jobs.spec import check_environment, explain, unknown_name
from hpc_bridge.settings import (
    DEFAULT_SHARED_DIR,
    POLL_INTERVAL,
    SERVED_BY,
    PoolType,
    RunSettings,
    SchedulerName,
    absolute_path,
    load_settings,
    on_compute_node,
    pool_type,
)
from hpc_bridge.sites.choosing import groups_asked, groups_at, wanted_schedulers
from hpc_bridge.sites.files import user_part_file
from hpc_bridge.sites.limits import check_request
from hpc_bridge.sites.profile import NAME_PATTERN
from hpc_bridge.sites.rules import VARIABLES
from hpc_bridge.storage.bundle import default_interpreter
from hpc_bridge.transports.login import LOCAL, Login
from hpc_bridge.workers.precedence import over_the_pool, over_the_site, requested_site

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from hpc_bridge.sites.site import Site
    from hpc_bridge.storage.cluster_files import ClusterFiles

logger = logging.getLogger(__name__)


class _Site(BaseModel):
    """First on the form."""

    site: str | None = Field(
        default=None,
        title="Site",
        description="Name of the site profile: what the cluster has, and its defaults and limits.",
        pattern=NAME_PATTERN,
    )


class _Caller(BaseModel):
    """Last on the form."""

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


# The form has the fields of the last base first.
class BatchVariables(_Caller, BaseVariables, RunSettings, Resources, _Site):
    """What can be set on a pool, in a deployment and in a decorator."""

    # The server checks what a form sends; unknown names are found on our side.
    model_config = ConfigDict(extra="ignore")

    name: str | None = Field(
        default=None,
        title="Name",
        description="A name for people; it goes into the job's comment.",
    )


class BatchJobConfiguration(BaseJobConfiguration, Resources, RunSettings, _Caller, _Site):
    """One flow run's job, before it becomes a JobSpec."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    pool_type: ClassVar[PoolType] = "slurm"
    form: ClassVar[type[BatchVariables]] = BatchVariables
    """What a pool of the type can be asked for."""

    _site: Site | None = PrivateAttr(default=None)
    _login: Login | None = PrivateAttr(default=None)

    @classmethod
    @inject_client
    async def from_template_and_values(
        cls,
        base_job_template: dict[str, Any],
        values: dict[str, Any],
        client: PrefectClient | None = None,
    ) -> Self:
        """As Prefect does, with this account's settings between the pool and ``values``.

        The site's profile comes below the pool (``workers/precedence.py``). Raises SiteError, and
        InvalidJobSpec naming every job variable that is unknown or wrong.
        """
        values = cls.in_our_words(values)
        cls.check_values(values)
        site = await requested_site(values, base_job_template, client, cls.pool_type)
        return await cls.at_site(site, base_job_template, values, client)

    @classmethod
    def in_our_words(
        cls,
        values: Mapping[str, Any],
        *,
        only_own: bool = False,  # noqa: ARG003  Slurm's words are those of every pool
    ) -> dict[str, Any]:
        """The job variables by the names that they have in every pool.

        With ``only_own`` as a person writes them: the other scheduler's word is refused then, by
        InvalidJobSpec.
        """
        if "queue" in values:
            raise InvalidJobSpec("'queue' is PBS's word; Slurm's is 'partition'")
        return dict(values)

    @classmethod
    def check_values(cls, values: Mapping[str, Any]) -> None:
        """Raise InvalidJobSpec naming every job variable that is unknown or wrong."""
        cls.check_names(values)
        try:
            asked = cls.form(**{name: value for name, value in values.items() if "." not in name})
        except ValidationError as error:
            raise InvalidJobSpec(explain(error, cls.form)) from None
        cls.check_asked(asked)

    @classmethod
    def check_names(cls, values: Mapping[str, Any]) -> None:
        """Raise InvalidJobSpec for a job variable that no pool of the type has."""
        wrong = [name for name in values if name.split(".")[0] not in cls.form.model_fields]
        if wrong:
            known = cls.known_names()
            raise InvalidJobSpec("\n".join(unknown_name(name, known) for name in wrong))

    @classmethod
    def known_names(cls) -> Collection[str]:
        """Those that a person writes."""
        return cls.form.model_fields

    @classmethod
    def check_asked(cls, asked: BatchVariables) -> None:
        """Raise InvalidJobSpec for what no cluster of this kind can be asked for."""
        if asked.scheduler is not None:
            _check_scheduler(asked.scheduler, cls.pool_type)

    @classmethod
    def check_wanted(cls, asked: Mapping[str, Any]) -> None:
        """Raise InvalidJobSpec when the job would go to a scheduler that such pools do not serve.

        That is the one that ``asked``, the environment or the user file names.
        """
        for scheduler in wanted_schedulers(asked.get("scheduler"), cls.pool_type):
            _check_scheduler(scheduler, cls.pool_type)

    @classmethod
    async def at_site(
        cls,
        site: Site | None,
        base_job_template: dict[str, Any],
        values: Mapping[str, Any],
        client: PrefectClient | None,
    ) -> Self:
        """As ``from_template_and_values``, when the site is known or there is none."""
        # Whose name it is on the cluster may be asked of ssh.
        template = await asyncio.to_thread(over_the_site, base_job_template, site)
        given = await asyncio.to_thread(over_the_pool, values, load_settings(), site)
        try:
            configuration: Self = await super().from_template_and_values(
                template, given, client=client
            )
        except ValidationError as error:
            raise InvalidJobSpec(explain(error, cls)) from None
        configuration.check_scheduler()
        return configuration.put_at(site)

    def put_at(self, site: Site | None) -> Self:
        """Let the site's limits, script and polling count for the job."""
        self._site, self._login = site, None
        # A pool that was made by an earlier version does not hand it on.
        self.site = self.site if site is None else site.name
        return self

    @property
    def profiled_site(self) -> Site | None:
        """The site whose profile counts for the job; None where there is no profile."""
        return self._site

    def check_limits(self, *, asks: bool = False) -> None:
        """Raise InvalidJobSpec with all that the site forbids or does not have.

        With ``asks`` a cluster elsewhere may be asked for the account's groups, which blocks, and
        raises CommandError when it is not reached.
        """
        if self._site is not None:
            asked = self.model_dump(mode="json", include=set(VARIABLES), exclude_defaults=True)
            groups = groups_asked(self._site) if asks else groups_at(self._site)
            check_request(self._site, asked, groups=groups)

    @classmethod
    def _base_environment(cls) -> dict[str, str]:
        """Nothing: Prefect would copy every setting of the submitter here, its API key too."""
        return {}

    @property
    def scheduler_name(self) -> SchedulerName:
        """The batch system that takes the job."""
        return self.scheduler or SERVED_BY[self.pool_type][0]

    def check_scheduler(self) -> None:
        """Raise InvalidJobSpec when pools of this type have no jobs there."""
        _check_scheduler(self.scheduler_name, self.pool_type)

    @property
    def login(self) -> Login:
        """How the cluster is reached from this machine. Raises SettingsError for SSH to nowhere."""
        if self._login is None:
            site = self._site
            self._login = _without_site(self.scheduler_name) if site is None else site.login
        return self._login

    @property
    def files(self) -> ClusterFiles:
        """Those that its login and compute nodes see. It blocks: ssh is asked what it is told."""
        from hpc_bridge.storage.reach import files_at

        return files_at(self.login)

    @property
    def shared(self) -> Path:
        """The folder that login and compute nodes see alike.

        It blocks, as does ``interpreter``: a cluster that is reached over SSH is asked once what
        ``~`` is there. Raises SettingsError, and CommandError where the cluster is not reached.
        """
        return absolute_path(
            "shared_dir", self.files.expanded(self.shared_dir or DEFAULT_SHARED_DIR)
        )

    @property
    def interpreter(self) -> str:
        """Python, or the environment that holds it, on the node. Raises as ``shared`` does."""
        if self.python:
            return self.files.expanded(self.python)
        if self.login == LOCAL:
            return default_interpreter()
        site = self.site or "SITE"
        raise SettingsError(
            f"no Python on {self.login} is known, and this machine's own is not there: set 'python'"
            f" in your part of the site, {user_part_file(site)}, in HPC_BRIDGE_PYTHON, with"
            f" @{self.pool_type}(python=...), or environment.python in the site's profile"
        )

    @property
    def polling_seconds(self) -> float:
        """Pause between two status commands; never below what the site allows."""
        seconds = self.poll_interval or POLL_INTERVAL[self.scheduler_name]
        shortest = self._site.profile.scheduler.shortest_poll_interval if self._site else None
        if self._site is None or shortest is None or seconds >= shortest:
            return seconds
        _say_raised(self._site.name, seconds, shortest)
        return shortest

    def spec(self, submission_id: str, comment: str) -> JobSpec:
        """The neutral request. Raises InvalidJobSpec."""
        asked = {name: getattr(self, name) for name in Resources.model_fields}
        asked["comment"] = self.comment or comment
        asked["warning"] = self.warning_in_effect()
        # Validated when this object was made; units have become numbers since.
        return JobSpec.model_construct(name=submission_id, environment=dict(self.env), **asked)


def _check_scheduler(scheduler: SchedulerName, kind: PoolType) -> None:
    if scheduler in SERVED_BY[kind]:
        return
    if scheduler == "local":
        raise InvalidJobSpec(
            f"scheduler: the embedded scheduler of this machine reads Slurm's scripts, and @{kind}"
            " writes PBS's; decorate the flow with @slurm to try it here, or leave"
            " HPC_BRIDGE_SCHEDULER out"
        )
    raise InvalidJobSpec(
        f"scheduler: {scheduler!r} takes no job of @{kind} and of a pool of type {kind!r}; decorate"
        f" the flow with @{pool_type(scheduler)}, or leave scheduler out (HPC_BRIDGE_SCHEDULER, the"
        " user file, or the job variable)"
    )


def _without_site(scheduler: SchedulerName) -> Login:
    transport = load_settings().transport
    if scheduler == "local" or transport in (None, "local") or on_compute_node():
        return LOCAL
    raise SettingsError(
        f"the setting transport says {transport}, but to which login host is said by a site only:"
        f" name one with HPC_BRIDGE_SITE or @{pool_type(scheduler)}(site=...); 'hpc-bridge site"
        " list' shows them"
    )


@lru_cache(maxsize=32)
def _say_raised(site: str, asked: float, shortest: float) -> None:
    """Once for the same."""
    logger.info("Site %s is asked every %g s, not every %g s", site, shortest, asked)
