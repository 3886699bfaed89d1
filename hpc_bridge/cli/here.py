"""What commands that look at this account's files and jobs go by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hpc_bridge.connections import ClusterOptions, Connection, connect
from hpc_bridge.errors import ServerUnreachable, SettingsError
from hpc_bridge.jobs.spec import explain
from hpc_bridge.settings import (
    DEFAULT_SHARED_DIR,
    POLL_INTERVAL,
    RunSettings,
    Settings,
    absolute_path,
    load_settings,
)
from hpc_bridge.sites.choosing import default_site_in_files, of_profile, wanted_schedulers
from hpc_bridge.sites.files import place_of
from hpc_bridge.sites.resolve import local_site, resolve_site
from hpc_bridge.sites.site import Site
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.storage.reach import files_at
from hpc_bridge.tracking.reconnecting import default_options
from hpc_bridge.transports.login import LOCAL, Login

_FIELDS = ("scheduler", "shared_dir", "poll_interval")


@dataclass(frozen=True, slots=True)
class Here:
    """A cluster as this account reaches it."""

    settings: Settings
    site: Site | None
    login: Login
    files: ClusterFiles
    shared: Path
    """The shared directory, as it is named on the cluster."""

    def connection(self) -> Connection:
        """To the scheduler. Raises SettingsError, also for a profile that cannot be used."""
        name = self.settings.effective_scheduler
        interval = self.settings.poll_interval or POLL_INTERVAL[name]
        if self.site is None:
            options = default_options(self.settings)
        else:
            options = ClusterOptions.of(self.site.profile)
        return connect(name, self.shared, interval, options, self.login)


def look_here(site: str | None = None) -> Here:
    """The named site, else the one that is meant when none is named, else this machine.

    Nobody logs in yet, unless the shared directory has to be asked for. Raises SettingsError, and
    CommandError when this machine lacks what the login needs.
    """
    settings = load_settings()
    found = _default_site(settings) if site is None else _named_site(site)
    settings = _with_site(settings, found, only_its_scheduler=site is not None)
    login = LOCAL if found is None else found.login
    files = files_at(login)
    text = settings.shared_dir or DEFAULT_SHARED_DIR
    shared = settings.shared if files.is_here else absolute_path("shared_dir", files.expanded(text))
    return Here(settings, found, login, files, shared)


def settings_here() -> Settings:
    """The settings, with what the default site says where they say nothing.

    The server is asked only for a site that the settings name and no file describes; when it does
    not answer, the settings stand alone. Raises SettingsError.
    """
    settings = load_settings()
    return _with_site(settings, _default_site(settings))


def _with_site(
    settings: Settings, site: Site | None, *, only_its_scheduler: bool = False
) -> Settings:
    if site is None:
        return settings
    known = of_profile(site) | site.user_variables() | settings.job_variables()
    if only_its_scheduler:
        known["scheduler"] = site.profile.scheduler.type
    try:
        checked = RunSettings(**{name: known[name] for name in _FIELDS if name in known})
    except ValidationError as error:
        words = explain(error, RunSettings)
        raise SettingsError(f"site {site.name!r}, {site.source}: {words}") from None
    update = {name: getattr(checked, name) for name in _FIELDS}
    if "retention" not in settings.model_fields_set:
        update["retention"] = site.profile.retention
    return settings.model_copy(update=update)


def _default_site(settings: Settings) -> Site | None:
    named = settings.site
    place = None if named is None else place_of(named)
    if named is None or (place is not None and place.kind != "packaged"):
        return default_site_in_files(wanted_schedulers(settings.scheduler, None))
    from hpc_bridge.cli.server_access import ask

    try:
        site = ask(lambda client: resolve_site(None, client))
    except ServerUnreachable:
        return default_site_in_files(wanted_schedulers(settings.scheduler, None))
    wanted = settings.scheduler
    return site if site and wanted in (None, site.profile.scheduler.type) else None


def _named_site(name: str) -> Site | None:
    """Raises SiteError when there is no such site, or none that can be used."""
    place = place_of(name)
    if place is not None and place.kind != "packaged":
        return local_site(name)
    from hpc_bridge.cli.server_access import ask

    try:
        return ask(lambda client: resolve_site(name, client))
    except ServerUnreachable:
        return local_site(name)
