"""From a prepared job configuration to a job in the queue. Everything here blocks."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from prefect.settings import Settings as PrefectSettings
from prefect.settings import get_current_settings

from hpc_bridge.connections import Connection, connect
from hpc_bridge.errors import BundleError, SettingsError, SharedDirectoryError
from hpc_bridge.jobs import JobSpec
from hpc_bridge.journal import (
    RunDirectory,
    environment_file,
    new_submission_id,
    prepare_shared_directory,
)
from hpc_bridge.script import render
from hpc_bridge.storage.bundle import BundleStore
from hpc_bridge.tracking.job import TrackedJob

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


def connection_of(configuration: BatchJobConfiguration) -> Connection:
    """The scheduler that a configuration names."""
    return connect(
        configuration.scheduler_name, configuration.shared, configuration.polling_seconds
    )


def job_script(configuration: BatchJobConfiguration, spec: JobSpec) -> str:
    """The script that ``submit`` would hand over for ``spec``."""
    run_dir = configuration.shared / "runs" / spec.name
    context = {
        "run_dir": str(run_dir),
        "output": str(run_dir / "job.out"),
        "python": configuration.interpreter,
        "setup": configuration.setup or [],
    }
    scheduler = connection_of(configuration).cluster.scheduler
    scheduler.check_directives(spec.directives)
    return render(spec, context, packaged=scheduler.template, template=configuration.template)


def submit(request: JobRequest) -> TrackedJob:
    """Write the run directory, then submit.

    Nothing is submitted unless all of the directory could be written. Raises SharedDirectoryError,
    TemplateError, BundleError, SubmissionRefused and the other CommandErrors.
    """
    configuration = request.configuration
    submission_id = new_submission_id()
    spec = configuration.spec(submission_id, request.comment)
    script = job_script(configuration, spec)
    connection = connection_of(configuration)
    store, key = BundleStore(configuration.shared), bundle_key(configuration.command)
    if key is not None:
        store.check(key)
    run = RunDirectory.create(prepare_shared_directory(configuration.shared), submission_id)
    journal = _journal(request, spec)
    if key is not None:
        store.link(key, run.element(0))
        journal["bundle_python"] = store.python_of(key)
    journal |= _working_directory(configuration, run)
    run.write("job.sh", script.encode())
    run.write("env", environment_file(node_environment(configuration)))
    run.write("job.out", b"")
    run.write_submission(journal)
    job_id = connection.cluster.submit(script, submission_id)
    try:
        run.write_submission(journal | {"job_id": str(job_id), "submitted": _now()})
    except SharedDirectoryError as error:
        # The job is in the queue; its name is enough to find it again.
        logger.warning("The id of job %s could not be noted: %s", job_id, error)
    return TrackedJob(
        run, 0, request.flow_run_id, job_id, configuration.scheduler_name, connection, spec
    )


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
        **_credentials(prefect),
    }
    named = {name: value for name, value in configuration.env.items() if value is not None}
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


def _credentials(prefect: PrefectSettings) -> dict[str, str]:
    found = {}
    if prefect.api.key is not None:
        found["PREFECT_API_KEY"] = prefect.api.key.get_secret_value()
    if prefect.api.auth_string is not None:
        found["PREFECT_API_AUTH_STRING"] = prefect.api.auth_string.get_secret_value()
    if prefect.client.custom_headers:
        found["PREFECT_CLIENT_CUSTOM_HEADERS"] = json.dumps(prefect.client.custom_headers)
    return found


def _journal(request: JobRequest, spec: JobSpec) -> dict[str, Any]:
    configuration = request.configuration
    default = configuration._base_flow_run_command()
    return {
        "submission": spec.name,
        "flow_runs": {"0": str(request.flow_run_id)},
        "work_pool": request.work_pool,
        "scheduler": configuration.scheduler_name,
        "command": None if configuration.command == default else configuration.command,
        "spec": spec.model_dump(mode="json", exclude_defaults=True, exclude={"environment"}),
        "submitted_by": f"{os.getuid()}@{socket.gethostname()}",
        "created": _now(),
    }


def _working_directory(configuration: BatchJobConfiguration, run: RunDirectory) -> dict[str, Any]:
    """Where the flow runs: as asked, else where it was called, unless files are to be unpacked."""
    if configuration.working_directory:
        return {"working_directory": configuration.working_directory}
    if configuration.called_from and not (run.element(0) / "files.zip").exists():
        return {
            "working_directory": configuration.called_from,
            "working_directory_implied": True,
        }
    return {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
