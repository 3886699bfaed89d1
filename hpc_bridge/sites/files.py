"""Profiles in files: the folders they are looked for in, and how one is read."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_bridge.data import data_folder
from hpc_bridge.errors import SiteError
from hpc_bridge.settings import user_file
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.reading import broken_file, read_document, read_text, validated
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.template_check import template_file, template_problem, with_template_found
from hpc_bridge.sites.trust import check_trusted
from hpc_bridge.sites.user_part import UserPart, not_offered

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
    named = [part for part in os.environ.get(SEARCH_VARIABLE, "").split(":") if part]
    places = [
        Place(SYSTEM, "system"),
        *(Place(Path(folder).expanduser().absolute(), "variable") for folder in named),
        Place(user_file().parent / "sites", "user"),
        Place(data_folder("site_configs"), "packaged"),
    ]
    return [Place(place.folder, place.kind, _problem(place)) for place in places]


def known_sites() -> dict[str, Found]:
    """Every profile by its name, broken ones included; a broken file raises nothing."""
    return {name: _found(name, path, place) for name, (path, place) in _files().items()}


def load_site(name: str) -> Site:
    """The profile with the user's part. Raises SiteError with file, line and every wrong field."""
    found = _files().get(name)
    if found is None:
        raise SiteError(_unknown(name))
    return _load(name, *found)


def place_of(name: str) -> Place | None:
    """Where the profile of that name lies; None when there is none."""
    found = _files().get(name)
    return None if found is None else found[1]


def only_site() -> str | None:
    """The one site whose profile is not a packaged one, if there is just one."""
    names = [name for name, (_, place) in _files().items() if place.kind != "packaged"]
    return names[0] if len(names) == 1 else None


def read_profile(path: Path) -> SiteProfile:
    """The admin's part in a file, wherever that is and whoever owns it.

    Raises SiteError with every problem, one per line, each with its line number and field.
    """
    document = read_document(path)
    profile = validated(document, SiteProfile, path)
    profile = with_template_found(profile, path.absolute().parent)
    if problem := template_problem(profile):
        line = document.line(("environment", "template")) or 1
        raise broken_file(path, [(line, f"environment.template: {problem}")])
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
    part = validated(document, UserPart, path, admins=SiteProfile.model_fields)
    problems = [
        (document.line((field,)) or 1, f"{field}: {sentence}")
        for field, sentence in not_offered(part, profile)
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
    profile = read_profile(path)
    template = template_file(profile)
    if place.kind != "packaged" and template is not None:
        check_trusted(template)
    check_name(profile, path)
    return Site(profile, load_user_part(profile), str(path), read_text(path))


def _unknown(name: str) -> str:
    files = _files()
    near = difflib.get_close_matches(name, files, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(files))}"
    problems = [place.problem for place in search_path() if place.problem]
    return "\n".join([f"there is no site profile {name!r}; {hint}", *problems])
