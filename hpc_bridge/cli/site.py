"""``hpc-bridge site``: the commands about site profiles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

site = App(name="site", help="Profiles that describe clusters.")


@site.command(name="list")
def list_(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the known sites, broken profiles included.

    Parameters
    ----------
    json
        As JSON, with all fields.
    """
    from hpc_bridge.cli.site_list import list_sites

    list_sites(as_json=json)


@site.command
def show(name: str, *, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Print a profile as it is in effect, with the file that each part comes from.

    Parameters
    ----------
    name
        The site's.
    json
        As JSON.
    """
    from hpc_bridge.cli.site_show import show_site

    show_site(name, as_json=json)


@site.command
def validate(file: Path) -> None:
    """Check a profile and print every problem with its line. Exit code 1 when there is one.

    Parameters
    ----------
    file
        The profile's file, wherever it is.
    """
    from hpc_bridge.cli.site_validate import validate_profile

    sys.exit(validate_profile(file))


@site.command
def accept(name: str, *, yes: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Accept what a published profile lets your jobs execute, after showing it.

    Parameters
    ----------
    name
        The site's.
    yes
        Without asking.
    """
    from hpc_bridge.cli.site_show import accept_site

    sys.exit(accept_site(name, yes=yes))


@site.command
def schema() -> None:
    """Print the JSON schema of a profile, for editors."""
    from hpc_bridge.sites.schema import schema_text

    sys.stdout.write(schema_text())


@site.command
def init(
    *,
    name: str | None = None,
    output: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    yes: Annotated[bool, Parameter(negative=())] = False,
    force: Annotated[bool, Parameter(negative=())] = False,
    host: str | None = None,
    transport: Literal["openssh", "paramiko"] = "openssh",
    user: str | None = None,
    master: Literal["reuse", "manage"] = "manage",
) -> None:
    """Draft a profile from what the scheduler says on a login node: this machine, or --host.

    Parameters
    ----------
    name
        Of the site. Default: that of the file in --output, else the cluster's own.
    output
        File or folder to write to, '-' for standard output. Default: NAME.yaml here.
    yes
        Ask nothing and take what is suggested, as without a terminal.
    force
        Replace a file that exists.
    host
        A login host to ask over SSH: a name, or an alias of your SSH configuration.
    transport
        How: 'openssh', the system's ssh; 'paramiko', SSH within this process.
    user
        Login name there. Default: as your SSH configuration says.
    master
        Of openssh: 'reuse' only uses the connection that you have opened (ssh -fNM), for sites with
        a second factor.
    """
    from rich.console import Console

    from hpc_bridge.cli.site_init import init_site
    from hpc_bridge.transports.login import LOCAL, Login

    login = LOCAL if host is None else Login(transport, host, user, master)
    init_site(name, output, yes=yes, force=force, console=Console(stderr=True), login=login)
