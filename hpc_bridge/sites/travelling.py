"""The profile as jobs find it on a cluster that does not have the file that it came from."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from hpc_bridge.sites.resolve import as_yaml
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.template_check import with_template_text

SITES = "sites"
"""Where they lie in the shared directory, each in a folder of its own."""


def travelling(site: Site) -> tuple[PurePosixPath, bytes]:
    """Path below the shared directory, the same for the same profile, and content of the file.

    The user's own part stays where it is. Raises SiteError when the template cannot be read.
    """
    profile = with_template_text(site.profile).model_dump_json(exclude_defaults=True)
    digest = hashlib.sha256(profile.encode()).hexdigest()[:16]
    return PurePosixPath(SITES) / digest / f"{site.name}.yaml", as_yaml(profile).encode()
