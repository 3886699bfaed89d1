"""Which of the places that may set a job variable has the say.

Highest first: the run's own overrides, the deployment's job variables, the decorator (all three
come as ``values``), HPC_BRIDGE_* variables and the user file, the user's part of the site, the
pool, the site's profile, the package. The limits of a site bind them all.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.settings import PoolType, Settings, load_settings, user_file
from hpc_bridge.sites.choosing import (
    check_serves,
    default_site,
    of_profile,
    wanted_schedulers,
)
from hpc_bridge.sites.resolve import resolve_site

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from hpc_bridge.sites.site import Site


def pool_defaults(base_job_template: Mapping[str, Any]) -> dict[str, Any]:
    """What a pool itself has decided, as far as that differs from what every pool begins with."""
    from hpc_bridge.workers.configuration import BatchVariables

    properties = base_job_template.get("variables", {}).get("properties", {})
    found = {}
    for name, described in properties.items():
        field = BatchVariables.model_fields.get(name)
        value = described.get("default")
        if value is not None and (
            field is None or value != field.get_default(call_default_factory=True)
        ):
            found[name] = value
    return found


async def requested_site(
    values: Mapping[str, Any],
    base_job_template: Mapping[str, Any],
    client: PrefectClient | None,
    pool_type: PoolType | None = None,
) -> Site | None:
    """The site that the job variables or the pool name, else the default one.

    Raises InvalidJobSpec when the two disagree or pools of the type do not serve it, and SiteError.
    """
    defaults = pool_defaults(base_job_template)
    asked, of_pool = values.get("site"), defaults.get("site")
    if asked is not None and of_pool is not None and asked != of_pool:
        raise InvalidJobSpec(
            f"the work pool is of site {of_pool!r}, but site is {asked!r}; leave one of the two out"
        )
    if (name := asked or of_pool) is not None:
        site = await resolve_site(name, client)
        if site is not None and pool_type is not None:
            check_serves(site, pool_type)
        return site
    asked = values.get("scheduler") or load_settings().scheduler or defaults.get("scheduler")
    return await default_site(wanted_schedulers(asked, pool_type), client)


def over_the_pool(
    values: Mapping[str, Any], settings: Settings, site: Site | None
) -> dict[str, Any]:
    """``values`` over the settings over the user's part of the site."""
    own = {} if site is None else site.user_variables()
    return own | settings.job_variables() | dict(values)


def over_the_site(base_job_template: dict[str, Any], site: Site | None) -> dict[str, Any]:
    """The pool's template with the profile's values where the pool has none of its own."""
    if site is None:
        return base_job_template
    template = copy.deepcopy(base_job_template)
    properties = template.setdefault("variables", {}).setdefault("properties", {})
    given = of_profile(site) | pool_defaults(base_job_template)
    if "shared_dir" in given:  # a pool that serves several people does not know the name
        given["shared_dir"] = site.path(given["shared_dir"])
    for name, value in given.items():
        properties[name] = {**properties.get(name, {}), "default": value}
    return template


def origins(
    named: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    site: Site | None,
    base_job_template: Mapping[str, Any],
    pool: str | None,
) -> dict[str, str]:
    """Where each job variable that has a value has it from, in words.

    ``named`` are the ``values`` by their place, highest first. What is not there has the package's
    default.
    """
    places: list[tuple[str, Mapping[str, Any]]] = [*named.items()]
    places += [(_setting(name), {name: value}) for name, value in settings.job_variables().items()]
    if site is not None:
        from hpc_bridge.sites.files import user_part_file

        places.append(
            (f"your part of the site: {user_part_file(site.name)}", site.user_variables())
        )
    places.append((f"pool {pool!r}", pool_defaults(base_job_template) if pool else {}))
    if site is not None:
        places.append((f"site {site.name!r}, {site.source}", of_profile(site)))
    found: dict[str, str] = {}
    for place, variables in places:
        for name in variables:
            found.setdefault(name, place)
    return found


def _setting(name: str) -> str:
    variable = f"HPC_BRIDGE_{name.upper()}"
    # As pydantic-settings has it: letter case is no matter, and an empty variable is none.
    given = {key.upper() for key, value in os.environ.items() if value}
    return variable if variable in given else f"user file: {user_file()}"
