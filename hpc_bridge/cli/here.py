"""What commands that look at this account's files and jobs go by."""

from __future__ import annotations

from pydantic import ValidationError

from hpc_bridge.errors import ServerUnreachable, SettingsError
from hpc_bridge.jobs.spec import explain
from hpc_bridge.settings import RunSettings, Settings, load_settings
from hpc_bridge.sites.choosing import default_site_in_files, of_profile, of_user
from hpc_bridge.sites.files import place_of
from hpc_bridge.sites.resolve import resolve_site
from hpc_bridge.sites.site import Site

_FIELDS = ("scheduler", "shared_dir", "poll_interval")


def settings_here() -> Settings:
    """The settings, with what the default site says where they say nothing.

    The server is asked only for a site that the settings name and no file describes; when it does
    not answer, the settings stand alone. Raises SettingsError.
    """
    settings = load_settings()
    site = _default_site(settings)
    if site is None:
        return settings
    known = of_profile(site) | of_user(site) | settings.job_variables()
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
        return default_site_in_files(settings.scheduler)
    from hpc_bridge.cli.server_access import ask

    try:
        site = ask(lambda client: resolve_site(None, client))
    except ServerUnreachable:
        return default_site_in_files(settings.scheduler)
    wanted = settings.scheduler
    return site if site and wanted in (None, site.profile.scheduler.type) else None
