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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from prefect.settings import Settings as PrefectSettings
from prefect.settings import get_current_settings

from hpc_bridge.connections import NO_OPTIONS, ClusterOptions, Connection, connect
from hpc_bridge.errors import (
    BundleError,
    HPCBridgeError,
    SettingsError,
    TemplateError,
)
from hpc_bridge.jobs import JobSpec
from hpc_bridge.journal import (
    RunDirectory,
    environment_file,
    new_submission_id,
    prepare_shared_directory,
    shared_directory_errors,
)
from hpc_bridge.node.attempt import FLOW_RUN_ID
from hpc_bridge.script import is_array, render, with_site_directives
from hpc_bridge.sites.files import SEARCH_VARIABLE, named_folders
from hpc_bridge.storage.bundle import BundleStore
from hpc_bridge.tracking.claims import claims_on
from hpc_bridge.tracking.job import TrackedJob, stored_costs
from hpc_bridge.tracking.resubmission import note_job_id, now
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
        script, skip=options.skip_directives, add=options.add_directives, own=spec.directives
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
        store = BundleStore(configuration.shared)
        store.check(key)
        alike += [store.python_of(key), store.has_files(key)]
    return hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()


def may_be_array(configuration: BatchJobConfiguration) -> bool:
    """Whether arrays are wanted and the job script's template, perhaps a user's own, makes them."""
    if configuration.arrays is False:
        return False
    spec = configuration.spec(new_submission_id(), "comment")
    return is_array(job_script(configuration, spec, array="0-1"))


def submit(requests: Sequence[JobRequest]) -> list[TrackedJob]:
    """Write the run directory, then submit with one command.

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
    bundles = _bundles(requests)
    run = RunDirectory.create(prepare_shared_directory(configuration.shared), spec.name)
    claims_on(run.shared).take(run)
    try:
        _link_elements(run, bundles)
        run.write("job.sh", script.encode())
        run.write("env", environment_file(node_environment(configuration)))
        journal = _journal(requests, spec) | _about_bundle(configuration, bundles[0])
        run.write_submission(journal)
        job_id = connection.cluster.submit(script, spec.name)
    except HPCBridgeError as error:
        if not error.retryable:  # else there may be a job all the same, which its name will find
            run.close()
        raise
    note_job_id(run, journal, job_id)
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


def _bundles(requests: Sequence[JobRequest]) -> list[str | None]:
    """The key of each request's bundle, which is there and is this account's."""
    store = BundleStore(requests[0].configuration.shared)
    keys = [bundle_key(request.configuration.command) for request in requests]
    for key in keys:
        if key is not None:
            store.check(key)
    return keys


def _link_elements(run: RunDirectory, bundles: Sequence[str | None]) -> None:
    """The folder of each flow run, with its bundle and, in an array, its own output file."""
    store = BundleStore(run.shared)
    for element, key in enumerate(bundles):
        folder = run.element(element)
        if key is not None:
            store.link(key, folder)
        # Slurm opens it before the job could make its folder.
        output = folder if len(bundles) > 1 else run.path
        with shared_directory_errors(run.shared):
            (output / "job.out").touch(mode=0o600)


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
        **({SEARCH_VARIABLE: ":".join(map(str, folders))} if (folders := named_folders()) else {}),
        **credentials(prefect),
    }
    named = {name: value for name, value in configuration.env.items() if value is not None}
    named.pop(FLOW_RUN_ID, None)  # which the node knows: an array's elements share these variables
    return base | named


def api_url(configuration: BatchJobConfiguration, prefect: PrefectSettings) -> str:
    """Where compute nodes find the server. Raises SettingsError when nothing says so."""
    url = configuration.api_url or prefect.api.url
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
    store = BundleStore(configuration.shared)
    about: dict[str, Any] = {} if key is None else {"bundle_python": store.python_of(key)}
    if configuration.working_directory:
        return about | {"working_directory": configuration.working_directory}
    if configuration.called_from and not (key is not None and store.has_files(key)):
        called_from = configuration.called_from
        return about | {"working_directory": called_from, "working_directory_implied": True}
    return about
