"""A user's own part of a site: who they are there and what they usually take."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from hpc_bridge.jobs.spec import Text
from hpc_bridge.schedulers.pbs_select import NOT_IN_PBS
from hpc_bridge.settings import WebAddress
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.rules import Part, Rule, broken
from hpc_bridge.sites.values import ClusterPath
from hpc_bridge.transports.login import Master, TransportName


class UserPart(Part):
    """Merges over a site's profile, and cannot change what the profile fixes."""

    user: Text | None = Field(
        default=None, pattern=r"^[^/\s]+$", description="Login name on the cluster."
    )
    host: Text | None = Field(
        default=None, description="Login host, or its alias in the SSH configuration."
    )
    transport: TransportName | None = Field(
        default=None, description="'local', 'openssh' or 'paramiko', instead of the profile's."
    )
    master: Master | None = Field(
        default=None, description="'reuse' or 'manage', instead of the profile's; of openssh."
    )
    account: Text | None = Field(default=None, description="Account that jobs are charged to.")
    partition: Text | None = Field(
        default=None, description="Partition (of PBS: 'queue') of jobs that name none."
    )
    qos: Text | None = Field(default=None, description="QOS of jobs that name none.")
    api_url: Annotated[Text, WebAddress] | None = Field(
        default=None, description="Address of the Prefect server as nodes see it."
    )
    python: ClusterPath | None = Field(
        default=None, description="Interpreter or environment folder on the nodes."
    )
    shared_dir: ClusterPath | None = Field(
        default=None, description="Folder that login and compute nodes see alike."
    )


def not_offered(part: UserPart, profile: SiteProfile) -> Iterator[tuple[str, str]]:
    """Field and sentence of each choice that the profile does not offer."""
    offered = {
        "partition": [partition.name for partition in profile.partitions],
        "account": [account.name for account in profile.accounts],
        "qos": [qos.name for qos in profile.qos],
    }
    for name, names in offered.items():
        value = getattr(part, name)
        if value is None:
            continue
        if profile.scheduler.type == "pbs" and name in NOT_IN_PBS:
            yield name, NOT_IN_PBS[name]
            continue
        rule = profile.job_variables.get(name, Rule())
        if names and value not in names:
            near = difflib.get_close_matches(value, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
            yield name, f"{value!r} is not offered by {profile.name}; {hint}"
        elif problem := broken(name, rule, value):
            yield name, problem
