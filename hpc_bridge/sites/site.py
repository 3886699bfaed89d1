"""One cluster as one user sees it: the admin's profile and the user's own part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpc_bridge.sites.login import login_to, name_on_cluster
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.user_part import UserPart
from hpc_bridge.transports.login import Login

_OWN_VARIABLES = ("account", "partition", "qos", "api_url", "python", "shared_dir")


@dataclass(frozen=True, slots=True)
class Site:
    """A profile that has been read, checked and trusted."""

    profile: SiteProfile
    user: UserPart = field(default_factory=UserPart)
    source: str = ""
    """Path of the profile's file, or the address of the server that it came from."""
    text: str = ""
    """The profile as it is written there."""

    @property
    def name(self) -> str:
        """The site's."""
        return self.profile.name

    @property
    def login(self) -> Login:
        """How the cluster is reached from this machine. Raises SiteError for SSH without a host."""
        return login_to(self.profile, self.user)

    @property
    def login_name(self) -> str:
        """The user's on the cluster, as their part or SSH configuration says, else as here."""
        return self.user.user or name_on_cluster(self.login)

    def path(self, text: str) -> str:
        """A path of the profile with ``{user}`` replaced; ``~`` and variables stay."""
        return text.replace("{user}", self.login_name) if "{user}" in text else text

    def admin_variables(self) -> dict[str, Any]:
        """Job variables that the profile has values for."""
        profile, python = self.profile, self.profile.environment.python
        given = {
            "scheduler": profile.scheduler.type,
            "shared_dir": self.path(profile.paths.shared_dir),
            "python": python if python is None else self.path(python),
            "template": profile.environment.template,
            "api_url": profile.network.api_url,
            "poll_interval": profile.scheduler.poll_interval,
            "arrays": None if profile.scheduler.arrays else False,
        }
        given = {name: value for name, value in given.items() if value is not None}
        rules = profile.job_variables.items()
        return given | {name: rule.default for name, rule in rules if rule.default is not None}

    def user_variables(self) -> dict[str, Any]:
        """Job variables that the user's part has values for."""
        given = {name: getattr(self.user, name) for name in _OWN_VARIABLES}
        given = {name: value for name, value in given.items() if value is not None}
        paths = {name: self.path(given[name]) for name in ("python", "shared_dir") if name in given}
        return given | paths
