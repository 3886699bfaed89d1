"""``hpc-bridge site``: the commands that ask or change the Prefect server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hpc_bridge.cli.site import site

_Flag = Annotated[bool, Parameter(negative=())]


@site.command
def diff(file: Path, name: str | None = None) -> None:
    """Print what publishing a profile would change on the Prefect server. Nothing is written.

    Parameters
    ----------
    file
        The profile's file.
    name
        Compare with the published profile of this site. Default: the profile's own name.
    """
    from hpc_bridge.cli.publishing import show_difference

    show_difference(file, name)


@site.command
def publish(file: Path, *, yes: _Flag = False) -> None:
    """Put a profile on the Prefect server, and bring the pools of the site up to date.

    What changes is shown first. Comments of the file are not kept there; the text of its template
    is. Settings of pools that the profile does not set, and defaults that a pool's owner has
    changed, stay as they are. Needs the server's address and key and nothing else.

    Parameters
    ----------
    file
        The profile's file.
    yes
        Without asking.
    """
    from hpc_bridge.cli.publishing import publish_profile

    sys.exit(publish_profile(file, yes=yes))


@site.command
def unpublish(name: str, *, yes: _Flag = False, force: _Flag = False) -> None:
    """Remove a published profile and the site's own pool from the Prefect server.

    Pools of people stay, and so does the storage through which results are read.

    Parameters
    ----------
    name
        The site's.
    yes
        Without asking.
    force
        Even if deployments or live runs use the site's own pool.
    """
    from hpc_bridge.cli.publishing import unpublish_site

    sys.exit(unpublish_site(name, yes=yes, force=force))


@site.command
def export(name: str) -> None:
    """Print a published profile as YAML. Publishing that again changes nothing.

    What is as it is by default is left out, and comments are not kept on the server.

    Parameters
    ----------
    name
        The site's.
    """
    from hpc_bridge.cli.publishing import export_profile

    export_profile(name)
