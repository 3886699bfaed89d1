"""The Prefect server: asked from here, and the judgement of answers from anywhere."""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import prefect
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings

from hpc_bridge.cli.server_access import ask, server
from hpc_bridge.doctor.findings import Verdict, green, one_line, red, worst, yellow
from hpc_bridge.doctor.on_node import ask_server
from hpc_bridge.errors import ServerUnreachable
from hpc_bridge.workers.kinds import worker_for
from hpc_bridge.workers.pools import ensure_work_pool, find_pool
from hpc_bridge.workers.submission import credentials

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from hpc_bridge.settings import Settings
    from hpc_bridge.sites.site import Site

CREDENTIALS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")
"""Variables that let somebody in, the one that wins first."""
_PAUSES = (0.0, 1.0, 4.0)
"""Seconds before each try to write."""
_POOL_SECONDS = 30.0


def check_server() -> Verdict:
    """Whether the server is set, answers, is of our version, and lets us write."""
    settings = get_current_settings()
    url = settings.api.url
    if not url:
        return red(
            "no Prefect server is set",
            "export PREFECT_API_URL=http://<server>:4200/api, the address of the shared server",
        )
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        return red(
            f"PREFECT_API_URL is {url!r}, which is not a web address",
            "export PREFECT_API_URL=http://<server>:4200/api, the address of the shared server",
        )
    environment = credentials(settings)
    answer = ask_server(url, environment, context=_tls())
    verdict = judge(answer, environment)
    return verdict if verdict.blocks or answer["problem"] else worst([verdict, _check_writing()])


def judge(answer: Mapping[str, Any], environment: Mapping[str, str]) -> Verdict:
    """The verdict on ``ask_server``'s answer, asked from the login side."""
    url, words = answer["url"], answer["words"]
    host = urlsplit(url).hostname
    match answer["problem"]:
        case "":
            return judge_version(answer["version"], prefect.__version__, url)
        case "credentials":
            return _refused(url, environment, answer["status"])
        case "refused":
            return red(
                f"nothing listens at {url} (connection refused)",
                f"start the server on {host} (prefect server start --host 0.0.0.0), or set"
                " PREFECT_API_URL to where it runs",
            )
        case "unknown-host":
            return red(
                f"the name {host!r} is not known here (DNS)",
                "correct the host in PREFECT_API_URL, or give its IP address",
            )
        case "timeout":
            return red(
                f"{url} does not answer in time",
                f"ask whoever runs the server whether it is up, and whether a firewall between here"
                f" and {host} lets port {_port(url)} through",
            )
        case "certificate":
            return red(
                f"the certificate of {url} is not accepted: {words}",
                "set PREFECT_API_SSL_CERT_FILE to the file of the site's certificate authority",
            )
        case "not-prefect" | "status":
            return red(f"what answers at {url} is no Prefect API ({_what(answer)})", _api(url))
    return red(
        f"{url} cannot be reached: {words}",
        f"correct PREFECT_API_URL, or ask the site how to reach {host} from this machine",
    )


def judge_version(theirs: str, ours: str, url: str) -> Verdict:
    """Prefect promises that a server serves clients that are not newer than itself."""
    (major, minor), our_minor = _minor(theirs), _minor(ours)
    message = f"{url} runs Prefect {theirs}"
    if (major, minor) == our_minor:
        return green(message)
    if (major, minor) < our_minor or major != our_minor[0]:
        return red(
            f"{message}, and this is Prefect {ours}",
            f"upgrade the server: pip install 'prefect=={our_minor[0]}.{our_minor[1]}.*'",
        )
    return yellow(f"{message}, newer than Prefect {ours} here", "upgrade hpc-bridge when you can")


def _refused(url: str, environment: Mapping[str, str], status: int) -> Verdict:
    used = [name for name in CREDENTIALS if name in environment]
    if used:
        return red(
            f"{url} does not accept the credentials in {used[0]} ({status})",
            f"set {used[0]} to what the server's admin gave you: export {used[0]}='...', or"
            f" prefect config set {used[0]}='...'",
        )
    return red(
        f"{url} wants credentials and none are set ({status})",
        "export PREFECT_API_AUTH_STRING='<user>:<password>' (or PREFECT_API_KEY='<key>'), as the"
        " server's admin gave it to you",
    )


def _check_writing() -> Verdict:
    """Makes a variable and removes it; a server that is busy is asked again."""
    name = f"hpc_bridge_doctor_{secrets.token_hex(4)}"
    words = ""
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            _make_and_remove(name)
        except ServerUnreachable as error:
            words = one_line(error)
        except httpx.HTTPStatusError as error:
            words = f"it answers {error.response.status_code} when it is to write"
            if error.response.status_code < 500:
                return red(
                    f"but you may not write there ({error.response.status_code})",
                    "ask the server's admin for the right to make flow runs and work pools",
                )
        else:
            return green("you may write")
    return red(f"but {words}", "it may be busy: try again, then ask whoever runs it for its log")


def _make_and_remove(name: str) -> None:
    """What an earlier try has made without our hearing of it is removed too."""
    with server() as client:
        with suppress(ObjectAlreadyExists):
            client.create_variable(VariableCreate(name=name, value="may be deleted"))
        with suppress(ObjectNotFound):
            client.delete_variable_by_name(name)


@dataclass(frozen=True, slots=True)
class PoolAnswer:
    """The base job template of a pool."""

    template: dict[str, Any]
    renewed: bool
    """Whether it was behind its site until now."""


def pool_template(name: str, settings: Settings, site: Site | None) -> PoolAnswer | None:
    """A pool's template, brought up to date as a flow's call does; None when there is no such pool.

    Raises WorkPoolError and ServerUnreachable.
    """

    worker = worker_for(site.profile.scheduler.type if site else settings.effective_scheduler)

    async def asked(client: PrefectClient) -> PoolAnswer | None:
        before = await find_pool(client, name)
        if before is None:
            return None
        pool = await ensure_work_pool(
            client,
            name,
            worker_type=worker.type,
            base_job_template=worker.get_default_base_job_template,
            settings=settings,
            site=site,
        )
        renewed = pool.base_job_template != before.base_job_template
        return PoolAnswer(pool.base_job_template, renewed)

    return ask(asked, timeout=_POOL_SECONDS)


def _tls() -> ssl.SSLContext:
    api = get_current_settings().api
    context = ssl.create_default_context(cafile=api.ssl_cert_file or None)
    if api.tls_insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _what(answer: Mapping[str, Any]) -> str:
    if answer["problem"] == "status":
        return f"HTTP {answer['status']}"
    return "a web page" if answer["status"] in (None, 200) else str(answer["words"])


def _api(url: str) -> str:
    parts = urlsplit(url)
    if parts.path.rstrip("/").endswith("/api"):
        return "set PREFECT_API_URL to the address of a Prefect server, which ends in /api"
    return f"export PREFECT_API_URL={urlunsplit(parts._replace(path='/api'))}"


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
