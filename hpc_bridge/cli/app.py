"""Commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from hpc_bridge import __version__
from hpc_bridge.errors import HPCBridgeError

app = App(
    name="hpc-bridge",
    help="Run Prefect flows as batch jobs on HPC clusters.",
    version=f"hpc-bridge {__version__}",
)


@app.command
def demo(*, serve: bool = False, folder: Path | None = None) -> None:
    """Run an example flow as a job on this machine, with a Prefect server of its own.

    Parameters
    ----------
    serve
        Keep the server and its dashboard up afterwards, until Ctrl-C.
    folder
        Where server, job scripts and results go. Default: a new temporary folder.
    """
    from hpc_bridge.cli.demo import run_demo

    run_demo(Console(), serve=serve, folder=folder)


@app.command
def render(
    flow: str | None = None,
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    work_pool: str | None = None,
) -> None:
    """Print the job script of a flow, or of job variables, without submitting anything.

    Parameters
    ----------
    flow
        A decorated flow: 'path/to/file.py:name' or 'package.module:name'.
    set_
        A job variable, 'memory=16G'; may be given several times and wins over the decorator.
    work_pool
        Take the defaults of this pool from the Prefect server, rather than the package's.
    """
    from hpc_bridge.cli.render import rendered_script

    sys.stdout.write(rendered_script(flow, set_ or [], work_pool))


def main() -> None:
    """Run the command; what goes wrong on purpose is one message and exit code 1."""
    try:
        app()
    except HPCBridgeError as error:
        sys.stderr.write(f"hpc-bridge: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
