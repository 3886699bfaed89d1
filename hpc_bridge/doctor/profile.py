"""The site's profile: where it comes from, and whether the published one is the same."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.utilities.asyncutils import run_coro_as_sync

from hpc_bridge.doctor.findings import Verdict, green, one_line, red, worst, yellow
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import SiteError
from hpc_bridge.sites.choosing import default_site, wanted_schedulers
from hpc_bridge.sites.files import place_of, places, user_part_file
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.published import published_names, read_published
from hpc_bridge.sites.resolve import resolve_site
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.words import in_their_words
from hpc_bridge.workers.precedence import requested_site


def check_profile(subject: Subject, name: str | None, *, has_server: bool) -> Verdict:
    """Find the site; the subject has it afterwards. ``has_server``: whether one can be asked."""
    try:
        found: tuple[Site | None, SiteProfile | None] = run_coro_as_sync(
            _asked(subject, name) if has_server else _in_files(subject, name)
        )
    except SiteError as error:
        return judge_error(error)
    site, published = found
    subject.site = site
    if site is None:
        named = subject.settings.site
        if named is not None and name is None and place_of(named) is None:
            known: list[str] = run_coro_as_sync(_known(has_server=has_server))
            if known and named not in known:
                return judge_misspelling(named, known)
        scheduler = subject.settings.effective_scheduler
        return green(f"none is needed: {scheduler} with your own settings")
    verdicts = [green(_found(site))]
    if site.profile.example:
        verdicts.append(yellow("it is only an example", "write your own: hpc-bridge site init"))
    return worst([*verdicts, *judge_published(site, published)])


def judge_error(error: SiteError) -> Verdict:
    """The verdict on a profile that cannot be used, with what to do about just that."""
    words = str(error)
    if accept := re.search(r"hpc-bridge site accept \S+", words):  # which shows what there is
        return red(words.partition("\n")[0].rstrip(":"), accept[0])
    folder = re.escape(str(user_part_file("-").parent))
    if own := re.search(rf"{folder}/[\w.-]+\.yaml", words):
        return red(one_line(error), f"correct {own[0]}, which is your own part of the site")
    return red(
        one_line(error),
        "'hpc-bridge site list' shows what is known, and 'hpc-bridge site validate FILE' all"
        " that is wrong in a profile",
    )


def judge_misspelling(named: str, known: Sequence[str]) -> Verdict:
    """The verdict on a setting that names none of the profiles that there are."""
    near = difflib.get_close_matches(named, known, n=1) or known
    return yellow(
        f"no profile is used: there is none of site {named!r}; did you mean"
        f" {' or '.join(map(repr, near))}?",
        "correct HPC_BRIDGE_SITE, or site in your user file; 'hpc-bridge site list' shows what is"
        " known",
    )


async def _known(*, has_server: bool) -> list[str]:
    """Sites that somebody has described for use here; not the packaged ones."""
    names = {name for name, place in places().items() if place.kind != "packaged"}
    if has_server:
        async with get_client() as client:
            names |= set(await published_names(client))
    return sorted(names)


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
    return await default_site(wanted_schedulers(subject.settings.scheduler, None), None), None


def _found(site: Site) -> str:
    written = in_their_words(site.user.model_dump(exclude_none=True), site.profile.scheduler.type)
    own = ", ".join(f"{name}={value}" for name, value in written.items())
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
