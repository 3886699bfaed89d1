"""From prepared job configurations to a job in the queue. Everything here blocks."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from prefect.settings import Settings as PrefectSettings
from prefect.settings import get_current_settings

from hpc_bridge.connections import NO_OPTIONS, ClusterOptions, Connection, connect
from hpc_bridge.errors import BundleError, SettingsError, SubmissionRefused, TemplateError
from hpc_bridge.jobs import JobSpec
from hpc_bridge.journal import (
    SUBMISSION,
    RunDirectory,
    environment_file,
    new_submission_id,
    prepare_shared_directory,
    submission_file,
)
from hpc_bridge.node.attempt import FLOW_RUN_ID
from hpc_bridge.schedulers.base import Scheduler
from hpc_bridge.script import is_array, render, with_site_directives
from hpc_bridge.sites.files import SEARCH_VARIABLE, named_folders
from hpc_bridge.sites.travelling import travelling
from hpc_bridge.storage import spool
from hpc_bridge.storage.bundle import BundleStore
from hpc_bridge.tracking.claims import claims_of
from hpc_bridge.tracking.delivery import deliver
from hpc_bridge.tracking.job import TrackedJob, stored_costs
from hpc_bridge.tracking.resubmission import now
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.login import LOCAL
from hpc_bridge.workers.prepared import one_line

if TYPE_CHECKING:
    from hpc_bridge.workers.configuration import BatchJobConfiguration

logger = logging.getLogger(__name__)

EXECUTE = "hpc_bridge.node.execute"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One flow run that is to become a job."""

    configuration: BatchJobConfiguration
    flow_run_id: UUID
    comment: str
    work_pool: str | None = None
    work_pool_id: UUID | None = None
    """Tells one Prefect server from another, which may have a pool of the same name."""


def connection_of(configuration: BatchJobConfiguration) -> Connection:
    """The scheduler that a configuration names, asked as its site wants."""
    return connect(
        configuration.scheduler_name,
        configuration.shared,
        configuration.polling_seconds,
        _options(configuration),
        configuration.login,
    )


def _options(configuration: BatchJobConfiguration) -> ClusterOptions:
    site = configuration.profiled_site
    return NO_OPTIONS if site is None else ClusterOptions.of(site.profile)


def job_script(
    configuration: BatchJobConfiguration, spec: JobSpec, *, array: str | None = None
) -> str:
    """The script that ``submit`` would hand over for ``spec``; ``array`` are the indices of one."""
    scheduler = connection_of(configuration).cluster.scheduler
    scheduler.check_directives(spec.directives)
    script = render(
        spec,
        script_context(configuration, spec, array),
        packaged=scheduler.template,
        template=configuration.template,
    )
    site = configuration.profiled_site
    if site is None:
        return script
    options = site.profile.scheduler
    return with_site_directives(
        script,
        scheduler,
        skip=options.skip_directives,
        add=options.add_directives,
        own=spec.directives,
    )


def script_context(
    configuration: BatchJobConfiguration, spec: JobSpec, array: str | None
) -> dict[str, Any]:
    """What a template knows besides ``spec``."""
    run_dir = configuration.shared / "runs" / spec.name
    context: dict[str, Any] = {
        "run_dir": str(run_dir),
        "output": str(run_dir / "job.out"),
        "python": configuration.interpreter,
        "setup": configuration.setup or [],
        "array": array,
    }
    if (site := configuration.profiled_site) is not None:
        environment, scratch = site.profile.environment, site.profile.paths.node_scratch
        context |= {
            "site_modules": list(environment.modules),
            "site_prologue": environment.prologue.rstrip(),
            "node_scratch": None if scratch is None else site.path(scratch),
        }
        part = site.profile.scheduler
        of_pbs = {"gpu_resource": part.gpu_resource, "account_option": part.account_option}
        context |= {name: value for name, value in of_pbs.items() if value is not None}
    return context


def likeness(request: JobRequest) -> str:
    """Equal for requests that one job array can serve.

    That is all that shapes the script, the environment and the journal. Raises what ``submit``
    raises before it has written anything, so that one request's fault is not that of others.
    """
    configuration = request.configuration
    alike: list[Any] = [
        configuration.model_dump(mode="json", exclude={"name", "labels", "command", "env"}),
        node_environment(configuration),
        _journal_command(configuration),
        request.work_pool,
        None if configuration.profiled_site is None else configuration.profiled_site.text,
    ]
    if (key := bundle_key(configuration.command)) is not None:
        store = BundleStore(configuration.shared, configuration.files)
        store.check(key)
        alike += [store.python_of(key), store.has_files(key)]
    return hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()


def may_be_array(configuration: BatchJobConfiguration, scheduler: Scheduler) -> bool:
    """Whether arrays are wanted, the scheduler takes one of such jobs, and the job script's
    template, perhaps a user's own, makes it.
    """
    if configuration.arrays is False:
        return False
    spec = configuration.spec(new_submission_id(), "comment")
    if not scheduler.takes_array(spec):
        return False
    return is_array(job_script(configuration, spec, array="0-1"))


def submit(requests: Sequence[JobRequest]) -> list[TrackedJob]:
    """Write the run directory and submit; on a cluster elsewhere by one remote command.

    Several requests, which must be alike, become one job array with an element for each. Nothing is
    submitted unless all of the directory could be written. Raises SharedDirectoryError,
    TemplateError, BundleError, SubmissionRefused and the other CommandErrors.
    """
    configuration = requests[0].configuration
    array = _indices(len(requests), configuration.array_throttle)
    spec = configuration.spec(new_submission_id(), _comment(requests))
    script = job_script(configuration, spec, array=array)
    if array is not None and not is_array(script):
        raise TemplateError("the job script's template makes no job array; set arrays to false")
    connection = connection_of(configuration)
    shared = prepare_shared_directory(configuration.shared, connection.files)
    run = RunDirectory(shared / "runs" / spec.name, connection.files)
    keys = _checked_keys(requests, BundleStore(shared, connection.files))
    journal = _journal(requests, spec) | _about_bundle(configuration, keys[0])
    files = _files_of(run, keys, script, configuration, journal)
    try:
        job_id = deliver(connection, run, script, files, journal)
    except SubmissionRefused:  # by the scheduler: the bundles have arrived
        spool.drop(*filter(None, keys))
        raise
    spool.drop(*filter(None, keys))
    element_id = connection.cluster.scheduler.element_id
    return [
        TrackedJob(
            run,
            element,
            request.flow_run_id,
            job_id if array is None else element_id(job_id, element),
            configuration.scheduler_name,
            connection,
            spec,
            stored_costs(journal),
            journal.get("site"),
        )
        for element, request in enumerate(requests)
    ]


def _indices(count: int, throttle: int | None) -> str | None:
    """What ``--array`` takes; None for one job, which is no array."""
    if count == 1:
        return None
    return f"0-{count - 1}" + (f"%{throttle}" if throttle else "")


def _comment(requests: Sequence[JobRequest]) -> str:
    if len(requests) == 1:
        return requests[0].comment
    flow = requests[0].configuration._related_objects.get("flow")
    return one_line(f"{flow.name if flow else 'flow'}: array of {len(requests)} runs")


def _keys(requests: Sequence[JobRequest]) -> list[str | None]:
    """Of each request's bundle; None for a deployment's."""
    return [bundle_key(request.configuration.command) for request in requests]


def _checked_keys(requests: Sequence[JobRequest], store: BundleStore) -> list[str | None]:
    """Of bundles that are there and this account's. Raises BundleError and NotOwned."""
    keys = _keys(requests)
    for key in filter(None, keys):
        store.check(key)
    return keys


def _files_of(
    run: RunDirectory,
    keys: Sequence[str | None],
    script: str,
    configuration: BatchJobConfiguration,
    journal: dict[str, Any],
) -> Files:
    """All that a submission leaves on the shared directory, its journal last."""
    name = f"runs/{run.submission_id}"
    claim, holder = claims_of(run).first(run)
    content: dict[str, bytes | Path] = {
        f"live/{run.submission_id}": b"",
        f"{name}/{claim}": holder,
    }
    links: dict[str, str] = {}
    store = BundleStore(run.shared, run.files)
    for element, key in enumerate(keys):
        if key is not None:
            content |= store.content(key)
            links |= store.links(key, f"{name}/{element}")
        # Slurm opens it before the job could make its folder.
        content[f"{name}/{element}/job.out" if len(keys) > 1 else f"{name}/job.out"] = b""
    if configuration.login != LOCAL and (site := configuration.profiled_site) is not None:
        path, profile = travelling(site)
        content[str(path)] = profile
    content |= {
        f"{name}/job.sh": script.encode(),
        f"{name}/env": environment_file(node_environment(configuration)),
        f"{name}/{SUBMISSION}": submission_file(journal),
    }
    return Files(str(run.shared), content, links)


def bundle_key(command: str | None) -> str | None:
    """The key in an execution command; None for any other command."""
    words = shlex.split(command or "")
    if EXECUTE not in words:
        return None
    try:
        return str(UUID(words[words.index("--key") + 1]))
    except (ValueError, IndexError):
        raise BundleError(f"the command {command!r} names no bundle with --key") from None


def node_environment(configuration: BatchJobConfiguration) -> dict[str, str]:
    """The variables of the flow's process, credentials included.

    Of the submitter's Prefect settings only the server's address and credentials travel. Jobs that
    the flow submits in turn go the same way as this one.
    """
    prefect = get_current_settings()
    shared = configuration.shared
    base = {
        "PREFECT_API_URL": api_url(configuration, prefect),
        "PREFECT_HOME": str(shared / "prefect"),
        "PYTHONUNBUFFERED": "1",
        "HPC_BRIDGE_SCHEDULER": configuration.scheduler_name,
        "HPC_BRIDGE_SHARED_DIR": str(shared),
        **({"HPC_BRIDGE_SITE": configuration.site} if configuration.site else {}),
        **({SEARCH_VARIABLE: folders} if (folders := _profile_folders(configuration)) else {}),
        **credentials(prefect),
    }
    named = {name: value for name, value in configuration.env.items() if value is not None}
    named.pop(FLOW_RUN_ID, None)  # which the node knows: an array's elements share these variables
    return base | named


def _profile_folders(configuration: BatchJobConfiguration) -> str:
    """Where jobs find profiles: as here, or on a cluster elsewhere the one that has come along."""
    if configuration.login == LOCAL:
        return ":".join(map(str, named_folders()))
    site = configuration.profiled_site
    return "" if site is None else str(configuration.shared / travelling(site)[0].parent)


def api_url(configuration: BatchJobConfiguration, prefect: PrefectSettings) -> str:
    """Where compute nodes find the server. Raises SettingsError when nothing says so.

    This machine's own address may be one of a tunnel or of a home network, and says nothing of what
    the nodes of a cluster elsewhere reach.
    """
    url = configuration.api_url
    if configuration.login != LOCAL and (not url or is_loopback(url)):
        wrong = f"cannot be {url}" if url else "is not known"
        raise SettingsError(
            f"the address of the Prefect server for jobs on {configuration.login} {wrong}: set"
            " HPC_BRIDGE_API_URL, the job variable api_url, or network.api_url in the site's"
            " profile to the address that compute nodes reach; this machine's PREFECT_API_URL is"
            " only used here"
        )
    url = url or prefect.api.url
    if not url:
        raise SettingsError(
            "there is no Prefect server for the job to talk to: set PREFECT_API_URL to the shared"
            " server, or HPC_BRIDGE_API_URL to the address that compute nodes reach"
        )
    return url


def is_loopback(url: str) -> bool:
    """Whether the address only works on the machine itself."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def credentials(prefect: PrefectSettings) -> dict[str, str]:
    """What the submitter's settings hold to be let in by the server, as variables."""
    found = {}
    if prefect.api.key is not None:
        found["PREFECT_API_KEY"] = prefect.api.key.get_secret_value()
    if prefect.api.auth_string is not None:
        found["PREFECT_API_AUTH_STRING"] = prefect.api.auth_string.get_secret_value()
    if prefect.client.custom_headers:
        found["PREFECT_CLIENT_CUSTOM_HEADERS"] = json.dumps(prefect.client.custom_headers)
    return found


def _journal(requests: Sequence[JobRequest], spec: JobSpec) -> dict[str, Any]:
    configuration = requests[0].configuration
    return {
        "submission": spec.name,
        "flow_runs": {str(n): str(request.flow_run_id) for n, request in enumerate(requests)},
        "work_pool": requests[0].work_pool,
        "work_pool_id": str(requests[0].work_pool_id) if requests[0].work_pool_id else None,
        "scheduler": configuration.scheduler_name,
        **_about_site(configuration),
        "command": _journal_command(configuration),
        "bundles": {str(n): key for n, key in enumerate(_keys(requests)) if key is not None},
        "spec": spec.model_dump(mode="json", exclude_defaults=True, exclude={"environment"}),
        "submitted_by": f"{os.getuid()}@{socket.gethostname()}",
        "created": now(),
    }


def _about_site(configuration: BatchJobConfiguration) -> dict[str, Any]:
    """What whoever adopts the job needs of the profile, which may be another one by then."""
    site = configuration.profiled_site
    if site is None:
        return {}
    about: dict[str, Any] = {"site": site.name}
    if options := _options(configuration).stored():
        about["cluster_options"] = options
    if site.profile.costs is not None:
        about["costs"] = site.profile.costs.model_dump(mode="json")
    return about


def _journal_command(configuration: BatchJobConfiguration) -> str | None:
    """What starts the flow's process, without the key of a bundle that lies in its folder."""
    command = configuration.command
    if command is None or command == configuration._base_flow_run_command():
        return None
    if bundle_key(command) is None:
        return command
    words = shlex.split(command)
    at = words.index("--key")
    return shlex.join(words[:at] + words[at + 2 :])


def _about_bundle(configuration: BatchJobConfiguration, key: str | None) -> dict[str, Any]:
    """The bundle's Python, and where the flow runs.

    That is as asked, else where it was called, unless files are to be unpacked.
    """
    store = BundleStore(configuration.shared, configuration.files)
    about: dict[str, Any] = {} if key is None else {"bundle_python": store.python_of(key)}
    if configuration.working_directory:
        return about | {"working_directory": configuration.working_directory}
    if configuration.called_from and not (key is not None and store.has_files(key)):
        called_from = configuration.called_from
        return about | {"working_directory": called_from, "working_directory_implied": True}
    return about
