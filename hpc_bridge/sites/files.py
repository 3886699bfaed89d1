"""Profiles in files: the folders they are looked for in, and how one is read."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpc_bridge.data import data_folder
from hpc_bridge.errors import SiteError
from hpc_bridge.files import expanded_home
from hpc_bridge.settings import user_file
from hpc_bridge.sites.contradictions import contradictions
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.reading import (
    broken_file,
    parsed_document,
    read_document,
    read_text,
    validated,
)
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.template_check import (
    prologue_problem,
    template_file,
    template_problem,
    with_template_found,
)
from hpc_bridge.sites.trust import check_trusted
from hpc_bridge.sites.user_part import UserPart, not_offered
from hpc_bridge.sites.words import Location, as_written

if TYPE_CHECKING:
    from hpc_bridge.sites.yaml_text import Document

SYSTEM = Path("/etc/hpc-bridge/sites")
SEARCH_VARIABLE = "HPC_BRIDGE_SITES"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of profiles."""

    folder: Path
    kind: Literal["system", "variable", "user", "packaged"]
    problem: str | None = None
    """Why it cannot be looked into."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file; ``site`` and ``error`` exclude each other."""

    name: str
    path: Path
    place: Place
    site: Site | None
    error: str | None


def search_path() -> list[Place]:
    """Where a name is looked for, in this order; the first file of a name wins."""
    found = [
        Place(SYSTEM, "system"),
        *(Place(folder, "variable") for folder in named_folders()),
        Place(user_file().parent / "sites", "user"),
        Place(data_folder("site_configs"), "packaged"),
    ]
    return [Place(place.folder, place.kind, _problem(place)) for place in found]


def named_folders() -> list[Path]:
    """Those of HPC_BRIDGE_SITES, as they are from any working directory."""
    parts = os.environ.get(SEARCH_VARIABLE, "").split(":")
    return [Path(expanded_home(part)).absolute() for part in parts if part]


def known_sites() -> dict[str, Found]:
    """Every profile by its name, broken ones included; a broken file raises nothing."""
    return {name: _found(name, path, place) for name, (path, place) in _files().items()}


def load_site(name: str) -> Site:
    """The profile with the user's part. Raises SiteError with file, line and every wrong field."""
    found = _files().get(name)
    if found is None:
        raise SiteError(_unknown(name))
    return _load(name, *found)


def places() -> dict[str, Place]:
    """Where the profile of each name lies, without a look into it."""
    return {name: place for name, (_, place) in _files().items()}


def place_of(name: str) -> Place | None:
    """Where the profile of that name lies; None when there is none."""
    return places().get(name)


def only_site() -> str | None:
    """The one site whose profile is not a packaged one, if there is just one."""
    names = [name for name, place in places().items() if place.kind != "packaged"]
    return names[0] if len(names) == 1 else None


def read_profile(path: Path) -> SiteProfile:
    """The admin's part in a file, wherever that is and whoever owns it, as its author checks it.

    More is found than when a site is loaded: contradictions, and a prologue that bash cannot read.
    Raises SiteError with every problem, one per line, each with its line number and field.
    """
    text = read_text(path)
    profile = with_template_found(_parsed(path, text), path.absolute().parent)
    problems = list(contradictions(profile))
    if problem := template_problem(profile):
        problems.append((("environment", "template"), problem))
    if problem := prologue_problem(profile):
        problems.append((("environment", "prologue"), problem))
    if problems:
        document = parsed_document(path, text)
        raise broken_file(
            path, [_by_line(document, location, problem) for location, problem in problems]
        )
    return profile


def check_name(profile: SiteProfile, path: Path) -> None:
    """Raise SiteError for a file that is not named after its site."""
    if path.name != f"{profile.name}.yaml":
        line = read_document(path).line(("name",)) or 1
        raise broken_file(
            path,
            [(line, f"name: {profile.name!r} is not the file's; rename it to {profile.name}.yaml")],
        )


def user_part_file(name: str) -> Path:
    """Where the user's own part of a site is kept."""
    return user_file().parent / "my-sites" / f"{name}.yaml"


def load_user_part(profile: SiteProfile) -> UserPart:
    """What the user has written about the site; an empty part when nothing is written.

    Raises SiteError for what is the admin's to say, and for what the profile does not allow.
    """
    path = user_part_file(profile.name)
    if not os.path.lexists(path):
        return UserPart()
    check_trusted(path)
    document = read_document(path, empty={})
    kind = profile.scheduler.type
    part = validated(document, UserPart, path, scheduler=kind, admins=SiteProfile.model_fields)
    problems = [
        _by_line(document, (field,), sentence) for field, sentence in not_offered(part, profile)
    ]
    if problems:
        raise broken_file(path, problems)
    return part


def _files() -> dict[str, tuple[Path, Place]]:
    found: dict[str, tuple[Path, Place]] = {}
    for place in search_path():
        for path in _profiles_in(place):
            found.setdefault(path.stem, (path, place))
    return found


def _profiles_in(place: Place) -> Iterator[Path]:
    """Those of ``.yml`` last: they are errors, and hide no file that is named as it should be."""
    try:
        names = sorted(os.listdir(place.folder))  # noqa: PTH208  names, and as fast as can be
    except OSError:
        return  # which the place's own problem says, if it is one
    for suffix in (".yaml", ".yml"):
        for name in names:
            if name.endswith(suffix) and not name.startswith("."):
                yield place.folder / name


def _problem(place: Place) -> str | None:
    try:
        with os.scandir(place.folder):
            return None
    except FileNotFoundError:
        return None if place.kind != "variable" else f"{place.folder} does not exist"
    except OSError as error:
        return f"{place.folder} cannot be read: {error.strerror}"


def _found(name: str, path: Path, place: Place) -> Found:
    try:
        return Found(name, path, place, _load(name, path, place), None)
    except SiteError as error:
        return Found(name, path, place, None, str(error))


def _load(name: str, path: Path, place: Place) -> Site:
    if path.suffix != ".yaml":
        raise SiteError(f"{path} is not used as it is named; rename it to {name}.yaml")
    if place.kind != "packaged":
        check_trusted(path)
    text = read_text(path)
    profile = with_template_found(_parsed(path, text), path.absolute().parent)
    template = template_file(profile)
    if place.kind != "packaged" and template is not None:
        check_trusted(template)
    _check_template(profile, path, text)
    check_name(profile, path)
    return Site(profile, load_user_part(profile), str(path), text)


def _by_line(document: Document, location: Location, sentence: str) -> tuple[int, str]:
    """Line and text of a problem, with the field as it is called in the file."""
    written = as_written(location, document.content)
    return document.line(written) or 1, f"{'.'.join(map(str, written))}: {sentence}"


@lru_cache(maxsize=16)
def _parsed(path: Path, text: str) -> SiteProfile:
    """Kept, because the file is read for every decorated flow and every run, and YAML is slow."""
    return validated(parsed_document(path, text), SiteProfile, path)


def _check_template(profile: SiteProfile, path: Path, text: str) -> None:
    if problem := template_problem(profile):
        line = parsed_document(path, text).line(("environment", "template")) or 1
        raise broken_file(path, [(line, f"environment.template: {problem}")])


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _files(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(_real_sites())}"
    problems = [place.problem for place in search_path() if place.problem]
    return "\n".join([f"there is no site profile {name!r}; {hint}", *problems])


def _real_sites() -> list[str]:
    """Names of all but the examples, broken ones included."""
    known = known_sites().values()
    return sorted(one.name for one in known if one.site is None or not one.site.profile.example)
