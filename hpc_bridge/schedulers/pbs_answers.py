"""What PBS's commands print, as records of text: the full form of qstat, and JSON.

Of jobs the wide full form is asked for (``qstat -f -w``): one attribute a line, line breaks in
values escaped, every value as it was given. v23.06.06 writes JSON that is invalid as a whole when
one value of anybody's job is ``nan`` or not ASCII; in either form here damage stays in its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hpc_bridge.errors import UnexpectedOutput

_ATTRIBUTE = re.compile(r" {4}([\w.]+) = (.*)", re.DOTALL)
_MEMBER = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*(.*)', re.DOTALL)


@dataclass(slots=True)
class Record:
    """One job; attributes of a resource are named ``Resource_List.ncpus``."""

    id: str
    attributes: dict[str, str] = field(default_factory=dict)

    def get(self, name: str, default: str = "") -> str:
        """An attribute's text."""
        return self.attributes.get(name, default)


def jobs(stdout: str) -> list[Record]:
    """Every job of an answer of ``qstat -f``, whatever its form."""
    if stdout.lstrip().startswith("{"):
        return [
            Record(name, dict(flat(attributes)))
            for name, attributes in read_json(stdout, "Jobs").items()
        ]
    return list(_text_records(stdout))


def read_json(stdout: str, part: str) -> dict[str, dict[str, Any]]:
    """The objects of one part of an answer by name, with every value as text.

    Without jobs, or without an answer, the part is missing: exit code and stderr tell which.
    """
    # A login script may print before the command does.
    begin = re.search(r"^\{\s*$", stdout, re.MULTILINE)
    if begin is None:
        raise UnexpectedOutput(f"PBS printed no JSON but {stdout[-200:]!r}")
    text = stdout[begin.start() :]
    try:
        whole = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except ValueError:
        whole = _by_lines(text)
    found = whole.get(part, {})
    if not isinstance(found, dict):
        raise UnexpectedOutput(f"PBS printed {part} as {found!r:.200}")
    return {name: fields for name, fields in found.items() if isinstance(fields, dict)}


def _text_records(stdout: str) -> Iterator[Record]:
    record: Record | None = None
    last = ""
    # Not splitlines: a value may hold what Unicode counts as a line break.
    for line in stdout.split("\n"):
        if line.startswith("Job Id: "):
            if record is not None:
                yield record
            record, last = Record(line.removeprefix("Job Id: ").strip()), ""
        elif record is None:
            continue
        elif match := _ATTRIBUTE.fullmatch(line):
            last = match[1]
            record.attributes.setdefault(last, match[2])
        elif last and line.startswith("\t"):  # without -w lines are wrapped
            record.attributes[last] += line[1:]
    if record is not None:
        yield record


def _by_lines(text: str) -> dict[str, Any]:
    """JSON as PBS prints it, a member a line, where some value of it is invalid."""
    whole: dict[str, Any] = {}
    open_parts: list[dict[str, Any]] = []
    for line in text.split("\n"):
        bare = line.strip()
        member = _MEMBER.fullmatch(bare)
        if bare == "{" and not open_parts:
            open_parts.append(whole)
        elif bare.rstrip(",") == "}" and open_parts:
            open_parts.pop()
        elif member is None or not open_parts:
            continue  # of a list, which nobody here reads
        elif member[2] == "{":
            part: dict[str, Any] = {}
            open_parts[-1].setdefault(_string(f'"{member[1]}"'), part)
            open_parts.append(part)
        elif member[2] != "[":
            open_parts[-1].setdefault(_string(f'"{member[1]}"'), _value(member[2]))
    return whole


def _value(text: str) -> Any:
    text = text.removesuffix(",")
    return _string(text) if text.startswith('"') else text


def _string(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text.removeprefix('"').removesuffix('"')


def flat(attributes: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Those of a record as text, with ``Resource_List.ncpus`` for what is an object in JSON."""
    for name, value in attributes.items():
        if isinstance(value, dict):
            for inner, text in value.items():
                yield f"{name}.{inner}", str(text)
        else:
            yield name, str(value)
