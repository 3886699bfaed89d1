"""From the bytes of a file to a model, or to every problem with its line number and field."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.profile import NAME_PATTERN
from hpc_bridge.sites.rules import in_plain_words
from hpc_bridge.sites.words import (
    as_written,
    in_our_words,
    in_word,
    scheduler_in,
    wrong_words,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from hpc_bridge.sites.yaml_text import Document

_Model = TypeVar("_Model", bound=BaseModel)

# A cross-check's message begins with the field that it is about.
_FIELD = re.compile(r"([a-z_]+(?:\.[\w-]+)*): ", re.ASCII)
# What only Python can say.
_NO_YAML = re.compile(r", ('[^']*') or a timedelta")
_TAB = "found character '\\t' that cannot start any token"
_FORMS = {
    NAME_PATTERN: "use letters, digits, '.', '_' and '-', and begin with a letter or digit",
    r"^[^/\s]+$": "leave out '/' and white space",
}
_NO_MAPPING = ("dict_type", "model_type")
_NO_LIST = ("tuple_type", "list_type")


def read_text(path: Path) -> str:
    """The whole file. Raises SiteError for what is no text file of a sane size."""
    from hpc_bridge.sites.yaml_text import LARGEST

    try:
        # Opening a named pipe would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123  flags
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(LARGEST + 1) if stat.S_ISREG(mode) else None
    except FileNotFoundError:
        if path.is_symlink():
            raise SiteError(f"{path} links to {path.readlink()}, which does not exist") from None
        raise SiteError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise SiteError(f"{path} is a folder, not a file") from None
    except OSError as error:
        raise SiteError(f"{path} cannot be read: {error.strerror}") from None
    if content is None:
        raise SiteError(f"{path} is not a plain file")
    if len(content) > LARGEST:
        raise SiteError(f"{path} is larger than {LARGEST // 1024} KiB; that is no site profile")
    if b"\0" in content:
        raise SiteError(f"{path} is a binary file, not YAML")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise SiteError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8; save it so"
        ) from None


def read_document(path: Path, *, empty: Any = None) -> Document:
    """The file as YAML; ``empty`` stands for a file that says nothing. Raises SiteError."""
    return parsed_document(path, read_text(path), empty=empty)


def parsed_document(path: Path, text: str, *, empty: Any = None) -> Document:
    """As ``read_document``, of a file that has been read."""
    from hpc_bridge.sites.yaml_text import Document, NotYaml, load

    try:
        document = load(text)
    except NotYaml as error:
        where = f"{path}, line {error.line}" if error.line else str(path)
        words = "a tab is no indentation to YAML; indent with spaces"
        raise SiteError(f"{where}: {words if _TAB in str(error) else error}") from None
    if document.content is None and empty is not None:
        return Document(empty, document.problems, document.root)
    if document.content is None:
        raise SiteError(f"{path} is empty")
    if not isinstance(document.content, dict):
        kind = "a list" if isinstance(document.content, list) else "a single value"
        raise SiteError(f"{path}, line 1: is {kind}; a profile is made of 'name: value' lines")
    return document


def validated(
    document: Document,
    model: type[_Model],
    path: Path,
    *,
    scheduler: str | None = None,
    admins: Collection[str] = (),
) -> _Model:
    """Raises SiteError with all problems in the order of the file, one per line.

    ``scheduler`` is that of the site, if the file does not name it; ``admins`` are keys that belong
    to the admin's part, for a message that says so.
    """
    content, problems = document.content, list(document.problems)
    kind = scheduler or scheduler_in(content)
    problems += [(document.line(where) or 1, text) for where, text in wrong_words(content, kind)]
    try:
        made = model.model_validate(in_our_words(content, kind))
    except ValidationError as error:
        problems += [
            (document.line(location) or 1, text)
            for location, text in explained(error, model, content, kind, admins)
        ]
        made = None
    if made is None or problems:
        raise broken_file(path, problems)
    return made


def broken_file(path: Path, problems: list[tuple[int, str]]) -> SiteError:
    """What is wrong with a file, by line."""
    lines = [f"  line {line}: {text}" for line, text in sorted(problems)]
    return SiteError("\n".join([f"{path} cannot be used:", *lines]))


def explained(
    error: ValidationError,
    model: type[BaseModel],
    content: Any,
    scheduler: str,
    admins: Collection[str] = (),
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Location and sentence of each problem, the sentence beginning with the field.

    Both in the words of ``content``, which is what the file says of a site with that scheduler.
    """
    for problem in error.errors(include_url=False):
        location = _plain(problem["loc"])
        for line in _sentence(problem, location, model, scheduler, admins).splitlines():
            inside = location or _location_in(line)
            written = as_written(inside, content)
            field = ".".join(map(str, written))
            said = line if location else line.removeprefix(".".join(map(str, inside)))
            yield written, f"{field}: {said}" if location else f"{field}{said}"


def _sentence(
    problem: ErrorDetails,
    location: tuple[str | int, ...],
    model: type[BaseModel],
    scheduler: str,
    admins: Collection[str],
) -> str:
    kind, given = problem["type"], problem["input"]
    cause = problem.get("ctx", {}).get("error")
    if cause is not None:
        return _NO_YAML.sub(r" or \1", str(cause))
    if kind == "extra_forbidden" and location[0] in admins:
        return "belongs to the admin's part of the site, which your own part cannot change"
    if kind == "extra_forbidden":
        known = _model_at(location[:-1], model).model_fields
        name = in_word(str(location[-1]), scheduler)
        return unknown_key(name, [in_word(field, scheduler) for field in known])
    if kind == "missing":
        return "is missing"
    if words := in_plain_words(problem):
        return words
    if kind == "string_pattern_mismatch" and problem["ctx"]["pattern"] in _FORMS:
        return f"{given!r} cannot be taken: {_FORMS[problem['ctx']['pattern']]}"
    if given is None:
        return "is empty; fill it in or leave it out"
    if kind in _NO_MAPPING:
        return f"should be 'name: value' lines, not {_short(given)}"
    if kind in _NO_LIST:
        return f"should be a list, not {_short(given)}"
    return f"{problem['msg']}, got {_short(given)}"


def unknown_key(name: str, known: Collection[str]) -> str:
    """A sentence about an unknown key with the nearest known one."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
    return f"there is no such key; {hint}"


def _plain(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Without the mark that pydantic adds for a wrong key of a mapping."""
    return location[:-1] if len(location) > 1 and location[-1] == "[key]" else location


def _location_in(sentence: str) -> tuple[str | int, ...]:
    match = _FIELD.match(sentence)
    parts = match[1].split(".") if match else ()
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _model_at(location: tuple[str | int, ...], model: type[BaseModel]) -> type[BaseModel]:
    for part in location:
        field = model.model_fields.get(str(part))
        inner = next(_models(field.annotation), None) if field is not None else None
        model = inner or model
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
