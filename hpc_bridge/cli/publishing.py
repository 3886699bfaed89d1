"""``hpc-bridge site diff``, ``publish``, ``unpublish`` and ``export``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from hpc_bridge.cli.confirming import confirmed
from hpc_bridge.cli.server_access import ask
from hpc_bridge.errors import HPCBridgeError, ServerUnreachable, SiteError
from hpc_bridge.sites.files import read_profile
from hpc_bridge.sites.published import read_published
from hpc_bridge.sites.publishing import (
    Plan,
    Removal,
    not_published,
    plan_publishing,
    plan_removal,
    profile_text,
    publish,
    unpublish,
)
from hpc_bridge.workers.kinds import worker_for

_READ_SECONDS, _WRITE_SECONDS = 60.0, 300.0
_RETRIES = 3

Answer = TypeVar("Answer")


def show_difference(file: Path, name: str | None) -> None:
    """Print what publishing would change. Raises SiteError or ServerUnreachable."""
    plan = _plan(file, name)
    if name is not None and name != plan.profile.name:
        sys.stdout.write(plan.difference)
        return
    _say(_unchanged(plan) if plan.is_empty else described(plan))


def publish_profile(file: Path, *, yes: bool) -> int:
    """Show, ask and write; the exit code. Raises SiteError or ServerUnreachable."""
    plan = _plan(file, None)
    if plan.is_empty:
        _say(_unchanged(plan))
        return 0
    _say(described(plan))
    if not _agreed("Publish this?", yes=yes):
        _say(["nothing was changed"])
        return 1
    _told(lambda client: publish(client, plan), _WRITE_SECONDS)
    _say([f"published site {plan.profile.name!r} on {_server()}"])
    return 0


def unpublish_site(name: str, *, yes: bool, force: bool) -> int:
    """Show, ask and remove; the exit code. Raises SiteError or ServerUnreachable."""
    removal = _told(lambda client: plan_removal(client, name))
    if not force:
        _check_unused(removal)
    _say(_removed(removal))
    if not _agreed("Remove this?", yes=yes):
        _say(["nothing was changed"])
        return 1
    _told(lambda client: unpublish(client, removal), _WRITE_SECONDS)
    _say([f"unpublished site {name!r} on {_server()}"])
    return 0


def export_profile(name: str) -> None:
    """Print the published profile. Raises SiteError or ServerUnreachable."""

    async def text(client: PrefectClient) -> str:
        profile = await read_published(client, name)
        if profile is None:
            raise SiteError(await not_published(client, name))
        return profile_text(profile)

    sys.stdout.write(_told(text))


def described(plan: Plan) -> list[str]:
    """What the plan changes, in lines."""
    profile, lines = plan.profile, [f"On {_server()}:"]
    if plan.replaces_broken:
        lines.append("the published profile cannot be read, and is replaced:")
    if plan.difference:
        lines += [f"profile of site {profile.name!r}:", *plan.difference.splitlines()]
    for change in plan.changed_pools:
        made = change.pool is None
        lines.append(f"work pool {change.name!r}{' is made' if made else ':'}")
        if not made:
            lines += [f"  {words}" for words in change.renewed.changes]
            lines += ["  storage for bundles and results"] if change.lacks_storage else []
        lines += [f"  note: {warning}" for warning in change.renewed.warnings]
    return lines


def _plan(file: Path, name: str | None) -> Plan:
    profile = read_profile(file)  # all that is wrong with it is told before the server is asked
    base = worker_for(profile.scheduler.type).get_default_base_job_template()
    return _told(lambda client: plan_publishing(client, profile, base, name))


def _unchanged(plan: Plan) -> list[str]:
    where = f"{_server()} has this profile of site {plan.profile.name!r}"
    return [f"{where} and its pools already; nothing to change"]


def _check_unused(removal: Removal) -> None:
    if removal.pool is None or removal.adopted:
        return
    users = [f"deployment {name!r}" for name in removal.deployments]
    if removal.active_runs:
        users.append(f"{removal.active_runs} flow runs that have not ended")
    if users:
        raise SiteError(
            f"work pool {removal.name!r} is used by {', '.join(users)}; move them to another pool,"
            " or remove it all the same with --force"
        )


def _removed(removal: Removal) -> list[str]:
    lines = [f"On {_server()}:"]
    if removal.profile:
        lines.append(f"the profile of site {removal.name!r} is removed")
    if removal.pool is not None and removal.adopted:
        lines.append(
            f"work pool {removal.name!r} was there before the site was published: it stays, and"
            " follows the site no more"
        )
    elif removal.pool is not None:
        lines.append(f"work pool {removal.name!r} is removed")
        lines += [f"  deployment {name!r} loses its pool" for name in removal.deployments]
        if removal.active_runs:
            lines.append(f"  {removal.active_runs} flow runs lose their pool")
    lines += [f"work pool {name!r} stays" for name in removal.personal_pools]
    return lines


def _agreed(question: str, *, yes: bool) -> bool:
    """Whether to go on. Raises SiteError where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise SiteError("there is no terminal to ask on; nothing was changed. Add --yes to do it")
    return confirmed(question)


def _told(
    question: Callable[[PrefectClient], Coroutine[Any, Any, Answer]],
    seconds: float = _READ_SECONDS,
) -> Answer:
    """What the server answers. Raises SiteError for a refusal, and ServerUnreachable."""
    if not get_current_settings().api.url:  # an empty one too: Prefect would start its own
        raise ServerUnreachable("no Prefect server is set; set PREFECT_API_URL")

    async def asked(client: PrefectClient) -> Answer:
        try:
            # A server that keeps its data in SQLite says 503 when two write at a time.
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: _RETRIES}):
                return await question(client)
        except (ObjectAlreadyExists, ObjectNotFound):
            raise SiteError(f"{_server()} was changed by somebody meanwhile; try again") from None
        except PrefectHTTPStatusError as error:
            raise _refused(error) from None

    return ask(asked, timeout=seconds)


def _refused(error: PrefectHTTPStatusError) -> HPCBridgeError:
    status, asked = error.response.status_code, error.request
    words = f"the Prefect server at {_server()} refused {asked.method} {asked.url.path}"
    if status == 401:
        return SiteError(
            f"{words}: it does not know you; set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
        )
    if status >= 500:
        return ServerUnreachable(f"{words}: it is busy or broken ({status}); try again later")
    told = _detail(error)
    if status == 404 and not _server().rstrip("/").endswith("/api"):
        return SiteError(f"{words} ({status}); is its address {_server().rstrip('/')}/api?")
    if status == 403:
        return SiteError(
            f"{words}: you have not the right to do that{told}. Ask who runs it, then try again:"
            " that completes what was begun"
        )
    return SiteError(f"{words} ({status}){told}")


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        detail = error.response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {detail}"


def _server() -> str:
    return str(get_current_settings().api.url)


def _say(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
