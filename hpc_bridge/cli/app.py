"""Commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt, PositiveFloat
from rich.console import Console

import hpc_bridge.cli.site_publish  # noqa: F401  its commands are those of site too
from hpc_bridge import __version__
from hpc_bridge.cli.site import site
from hpc_bridge.errors import HPCBridgeError, SettingsError
from hpc_bridge.settings import load_settings, parse_retention

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
    site: str | None = None,
    explain: Annotated[bool, Parameter(negative=())] = False,
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
    site
        The site's name. Default: the one that your flows would go to.
    explain
        Say for each line where it comes from.
    """
    from hpc_bridge.cli.render import rendered_script

    script = rendered_script(flow, set_ or [], work_pool, site=site, explain=explain)
    sys.stdout.write(script)


@app.command
def logs(
    run: str,
    *,
    follow: bool = False,
    lines: NonNegativeInt | None = None,
    site: str | None = None,
) -> None:
    """Print the output of a run's job as it is in its file, also what came before and after Python.

    Parameters
    ----------
    run
        A flow run's id or name, a submission id (the job's name), or a job id, for an element of a
        job array with its index: '123_4', of PBS '123[4]'.
    follow
        Go on until the run is over, or Ctrl-C.
    lines
        Only the last so many lines.
    site
        The site's name. Default: the one that your flows would go to.
    """
    from hpc_bridge.cli.here import look_here
    from hpc_bridge.cli.logs import show_output

    show_output(run, look_here(site), follow=follow, lines=lines)


@app.command
def jobs(
    *,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
    site: str | None = None,
) -> None:
    """List your live jobs with their flow runs, by one question to the scheduler.

    Parameters
    ----------
    all_
        Also jobs that are over, as long as the scheduler still shows them.
    json
        As JSON, with all fields.
    site
        The site's name. Default: the one that your flows would go to.
    """
    from hpc_bridge.cli.here import look_here
    from hpc_bridge.cli.jobs import list_jobs

    list_jobs(look_here(site), all_=all_, as_json=json)


@app.command
def reconcile(*, site: str | None = None) -> None:
    """Give every flow run the state that its job's records call for, as a worker does.

    For runs whose script or worker has ended. Live jobs go on; what never reached the scheduler is
    submitted. Exit code 1 when something could not be told.

    Parameters
    ----------
    site
        The site's name. Default: the one that your flows would go to.
    """
    from hpc_bridge.cli.here import look_here
    from hpc_bridge.cli.reconcile import reconcile as reconcile_now

    sys.exit(reconcile_now(Console(), look_here(site)))


@app.command
def clean(*, older_than: str | None = None, dry_run: bool = False, site: str | None = None) -> None:
    """Remove the files of runs that ended long ago, and bundles that no run needs any more.

    Live runs and results are never removed.

    Parameters
    ----------
    older_than
        How long ago they ended: '30d', '12h'. Default: the setting 'retention', else the site's
        own time, else 30 days.
    dry_run
        Only say what would be removed.
    site
        The site's name. Default: the one that your flows would go to.
    """
    from hpc_bridge.cli.clean import clean as clean_now
    from hpc_bridge.cli.here import look_here

    here = look_here(site)
    try:
        retention = here.settings.retention if older_than is None else parse_retention(older_than)
    except ValueError as error:
        raise SettingsError(f"--older-than: {error}") from None
    if retention is None:
        sys.stdout.write("everything is kept for ever\n")
    else:
        sys.exit(clean_now(here.shared, retention, here.files, dry_run=dry_run))


@app.command
def doctor(
    site: str | None = None,
    *,
    json: Annotated[bool, Parameter(negative=())] = False,
    partition: Annotated[str | None, Parameter(name=("--partition", "--queue"))] = None,
    no_job: Annotated[bool, Parameter(negative=())] = False,
    wait: PositiveFloat = 120.0,
) -> None:
    """Examine server, profile, cluster and a node, and say what to do where something is wrong.

    Submits two jobs of a minute: one asks a node, the other runs a flow. Exit code 1 when
    something is red.

    Parameters
    ----------
    site
        The site's name. Default: the one that your flows would go to.
    json
        As JSON, with all fields.
    partition
        Partition, or of PBS queue, of the two jobs. Default: where yours go.
    no_job
        Submit nothing, and so ask no node.
    wait
        Longest to wait for each of the jobs to start, in seconds.
    """
    from hpc_bridge.cli.doctor import run_doctor

    code = run_doctor(site, as_json=json, partition=partition, with_jobs=not no_job, wait=wait)
    sys.exit(code)


@app.command
def queue(
    site: Annotated[str | None, Parameter(name=("site", "--site"))] = None,
    *,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """List partitions or queues with free nodes and GPUs and the jobs that wait, for choosing.

    Parameters
    ----------
    site
        The site's name. Default: the one that your flows would go to.
    json
        As JSON, with all fields.
    """
    from hpc_bridge.cli.queue import show_queues

    show_queues(load_settings(), site, as_json=json)


service = App(name="service", help="Print a unit file that keeps a worker running.")
app.command(service)
app.command(site)


@service.command
def systemd(*, pool: str | None = None, name: str | None = None) -> None:
    """Print a unit for 'systemd --user', with what to do with it.

    Parameters
    ----------
    pool
        The work pool. Default: your personal one.
    name
        The worker's name. Default: '<login name>@<this host>'.
    """
    from hpc_bridge.cli.here import settings_here
    from hpc_bridge.cli.service import pool_type_of, systemd_unit

    named = pool or load_settings().default_work_pool
    sys.stdout.write(systemd_unit(named, name, pool_type_of(named, settings_here())))


@service.command
def scrontab(
    *,
    pool: str | None = None,
    name: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    walltime: str = "1d",
) -> None:
    """Print an entry for Slurm's scrontab, with what to do with it.

    Parameters
    ----------
    pool
        The work pool. Default: your personal one.
    name
        The worker's name. Default: '<login name>@scrontab'.
    partition
        Partition of the worker's job. Default: the cluster's.
    account
        Account of the worker's job. Default: yours.
    walltime
        After this time Slurm ends the worker and starts the next one.
    """
    from hpc_bridge.cli.here import settings_here
    from hpc_bridge.cli.service import pool_type_of, scrontab_entry

    settings = settings_here()
    named = pool or settings.default_work_pool
    entry = scrontab_entry(
        named,
        name,
        settings.shared,
        partition=partition,
        account=account,
        walltime=walltime,
        kind=pool_type_of(named, settings),
    )
    sys.stdout.write(entry)


def main() -> None:
    """Run the command; what goes wrong on purpose is one message and exit code 1."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # now, where it can be told that nobody reads
    except HPCBridgeError as error:
        sys.stderr.write(f"hpc-bridge: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever reads, head for instance, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
