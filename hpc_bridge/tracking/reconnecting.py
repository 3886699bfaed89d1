"""The connection to the cluster that a submission went to, from its journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hpc_bridge.connections import NO_OPTIONS, ClusterOptions, Connection, connect
from hpc_bridge.errors import SettingsError
from hpc_bridge.journal import RunDirectory
from hpc_bridge.settings import POLL_INTERVAL, SchedulerName, Settings

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0


def reconnect(
    run: RunDirectory,
    submission: Mapping[str, Any],
    poll_interval: float | None = None,
) -> Connection:
    """The connection for a submission, ``submission.json`` of ``run``. Blocks."""
    scheduler: SchedulerName = submission["scheduler"]
    return connect(
        scheduler,
        run.shared,
        poll_interval or POLL_INTERVAL[scheduler],
        options_of(submission),
        run.files.login,
    )


def options_of(submission: Mapping[str, Any]) -> ClusterOptions:
    """How the submission's cluster is asked.

    As the site's profile in this machine's files says now, since its commands may have moved; else
    as the profile said when the job was submitted, which may be on the server only; without either
    as there is no site.
    """
    name = submission.get("site")
    stored = submission.get("cluster_options")
    now = None if name is None else _in_files(name, int(time.monotonic() // _LOOK_SECONDS))
    if now is not None and (stored is None or not now.is_packaged):
        return now.options
    return ClusterOptions.read(stored) if stored else NO_OPTIONS


def default_options(settings: Settings) -> ClusterOptions:
    """How the cluster is asked that is meant when nobody names one, by the files of this machine.

    Raises SiteError for a profile that cannot be used.
    """
    from hpc_bridge.sites.resolve import local_site  # it reads YAML

    site = local_site(None)
    if site is None or site.profile.scheduler.type != settings.effective_scheduler:
        return NO_OPTIONS
    return ClusterOptions.of(site.profile)


@dataclass(frozen=True, slots=True)
class _Found:
    options: ClusterOptions
    is_packaged: bool
    """A site of the same name may be published, and be the one that is meant."""


@lru_cache(maxsize=8)
def _in_files(name: str, _minute: int) -> _Found | None:
    """None for a profile that is gone, is on the server only, or cannot be used now."""
    from hpc_bridge.sites.files import load_site, place_of  # they read YAML

    place = place_of(name)
    if place is None:
        return None
    try:
        return _Found(ClusterOptions.of(load_site(name).profile), place.kind == "packaged")
    except SettingsError as error:
        logger.info("The profile of site %s is not used for earlier jobs: %s", name, error)
        return None
