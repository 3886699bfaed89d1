"""The site's profile: where it comes from, and whether the published one is the same."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.utilities.asyncutils import run_coro_as_sync

from hpc_bridge.doctor.findings import Verdict, green, one_line, red, worst, yellow
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import SiteError
from hpc_bridge.sites.choosing import default_site
from hpc_bridge.sites.files import user_part_file
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.published import read_published
from hpc_bridge.sites.resolve import resolve_site
from hpc_bridge.sites.site import Site
from hpc_bridge.workers.precedence import requested_site


def check_profile(subject: Subject, name: str | None, *, has_server: bool) -> Verdict:
    """Find the site; the subject has it afterwards. ``has_server``: whether one can be asked."""
    try:
        found: tuple[Site | None, SiteProfile | None] = run_coro_as_sync(
            _asked(subject, name) if has_server else _in_files(subject, name)
        )
    except SiteError as error:
        words, _, rest = str(error).partition("\n")
        if "hpc-bridge site accept" in rest:  # what is to be accepted is shown line by line
            return red(words, rest.strip())
        return red(
            one_line(error),
            "'hpc-bridge site list' shows what is known, and 'hpc-bridge site validate FILE' all"
            " that is wrong in a profile",
        )
    site, published = found
    subject.site = site
    if site is None:
        scheduler = subject.settings.effective_scheduler
        return green(f"none is needed: {scheduler} with your own settings")
    verdicts = [green(_found(site))]
    if site.profile.example:
        verdicts.append(yellow("it is only an example", "write your own: hpc-bridge site init"))
    return worst([*verdicts, *judge_published(site, published)])


async def _asked(subject: Subject, name: str | None) -> tuple[Site | None, SiteProfile | None]:
    """As a decorated flow's call finds its site, by its pool too, and what the server has of it."""
    template: dict[str, Any] = {}
    async with get_client() as client:
        if name is None or subject.settings.work_pool:
            with suppress(ObjectNotFound):
                pool = await client.read_work_pool(subject.settings.default_work_pool)
                template = pool.base_job_template
        values = {} if name is None else {"site": name}
        site = await requested_site(values, template, client)
        published = await read_published(client, site.name, broken_ok=True) if site else None
        return site, published


async def _in_files(subject: Subject, name: str | None) -> tuple[Site | None, None]:
    if name is not None:
        return await resolve_site(name, None), None
    return await default_site(subject.settings.scheduler, None), None


def _found(site: Site) -> str:
    own = ", ".join(f"{k}={v}" for k, v in site.user.model_dump(exclude_none=True).items())
    part = f"; your part: {own}" if own else f"; no part of yours ({user_part_file(site.name)})"
    return f"{site.name} from {site.source}{part}"


def judge_published(site: Site, published: SiteProfile | None) -> list[Verdict]:
    """Whether the server has what is used; nothing to say where the server's own is used."""
    if published is None or not site.source.startswith("/"):
        return []
    if published == site.profile:
        return [green("the published one is the same")]
    return [
        yellow(
            "the published one is different",
            f"see hpc-bridge site diff {site.source} {site.name}; its owner publishes it with"
            f" hpc-bridge site publish {site.source}",
        )
    ]
