"""The forms of an answer: full text, wide text, dsv and JSON, damage included.

What each does with odd values was recorded from v23.06.06 (``tests/data/pbs/json_trap``), and
``tests/unit/test_fake_pbs_answers.py`` holds it to every recorded answer byte by byte.
"""

from __future__ import annotations

import math
import re
import time

from .attributes import TIMES, Attributes, ordered

LINE_LIMIT = 78
Row = tuple[str, str | None, str]

_STRTOD = re.compile(
    r"[ \t\n\v\f\r]*([+-]?(?:inf(?:inity)?|nan(?:\(\w*\))?|0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)"
    r"(?:p[+-]?\d+)?|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?))[ \t\n\v\f\r]*",
    re.IGNORECASE,
)


def job_rows(attributes: Attributes) -> list[Row]:
    """What qstat shows of a job: times in words, an executable in its tag."""
    rows: list[Row] = []
    for name, resource, value in ordered(attributes):
        if name in TIMES:
            value = time.ctime(int(float(value)))
        elif name == "executable":
            value = f"<jsdl-hpcpa:Executable>{value}</jsdl-hpcpa:Executable>"
        rows.append((name, resource, value))
    return rows


def visible(text: str) -> str:
    """Control characters and bytes from 0x80 as ``^`` and the character 64 further."""
    return "".join(
        f"^{chr((ord(c) + 64) & 0xFF)}"
        if ord(c) >= 0x80 or (ord(c) < 32 and c not in "\n\t")
        else c
        for c in text
    )


def one_line(text: str) -> str:
    """Line feeds and form feeds as two characters."""
    return text.replace("\n", "\\n").replace("\f", "\\f")


def text_record(title: str, rows: list[Row], wide: bool) -> str:
    """``qstat -f`` and, with ``wide``, ``qstat -f -w``."""
    lines = [title]
    for name, resource, value in rows:
        name = f"{name}.{resource}" if resource else name
        if wide:
            shown = one_line(value)
            lines.append(f"    {name} = {shown if resource else visible(shown)}")
        else:
            lines.append(f"    {name} = {_wrapped(value, len(name) + 7)}")
    return "\n".join(lines) + "\n\n"


def _wrapped(value: str, column: int) -> str:
    """Broken after commas, or, where a piece alone is too long, anywhere."""
    pieces = [piece for piece in value.split(",") if piece]  # as strtok(3): no empty ones
    out: list[str] = []
    for number, piece in enumerate(pieces):
        if len(piece) + column < LINE_LIMIT:
            out.append(visible(piece))
            column += len(piece)
        else:
            if number:
                out.append("\n\t")
                column = 9
            for character in piece:
                out.append(visible(character))
                column += 1
                if column > LINE_LIMIT:
                    out.append("\n\t")
                    column = 8
        if number + 1 < len(pieces):
            out.append(",")
    return "".join(out)


def dsv_record(title: str, rows: list[Row], delimiter: str) -> str:
    """``qstat -f -F dsv``."""
    cells = [title]
    for name, resource, value in rows:
        name = f"{name}.{resource}" if resource else name
        value = value.replace("\\", "\\\\").replace(delimiter, f"\\{delimiter}")
        cells.append(f"{name}={visible(one_line(value))}")
    return delimiter.join(cells) + "\n"


def json_answer(server: str, version: str, kind: str, records: list[tuple[str, list[Row]]]) -> str:
    """``-F json``. Without a record the object has no key ``kind``, and no newline at its end."""
    lines = [
        f'    "timestamp":{int(time.time())}',
        f'    "pbs_version":"{version}"',
        f'    "pbs_server":"{server}"',
    ]
    if not records:
        return "{\n" + ",\n".join(lines) + "\n}"
    bodies = [_object(8, name, _members(rows)) for name, rows in records]
    lines.append(_object(4, kind, bodies))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _object(indent: int, name: str, members: list[str]) -> str:
    space = " " * indent
    inside = ",\n".join(members)
    return f'{space}"{name}":{{\n{inside}{chr(10) if inside else ""}{space}}}'


def _members(rows: list[Row]) -> list[str]:
    members: list[str] = []
    groups: dict[str, list[str]] = {}
    for name, resource, value in rows:
        if name == "Variable_List":
            pairs = [_pair(16, k, v) for k, v in split_variables(value) if v is not None]
            members.append(_object(12, name, pairs))
        elif resource is None:
            members.append(_pair(12, name, value))
        else:
            if name not in groups:
                groups[name] = []
                members.append(f"\0{name}")
            groups[name].append(_pair(16, resource, value))
    return [
        _object(12, member[1:], groups[member[1:]]) if member.startswith("\0") else member
        for member in members
    ]


def split_variables(value: str) -> list[tuple[str, str | None]]:
    """Split at commas as qstat does: the first character behind ``=`` is never looked at."""
    pairs: list[tuple[str, str | None]] = []
    at = 0
    while at < len(value):
        key: list[str] = []
        text: list[str] | None = None
        while at < len(value) and value[at] != ",":
            if value[at] == "\\" and value[at + 1 : at + 2] == ",":
                at += 1
            if text is None and value[at] == "=":
                text = []
                at += 1
                if at == len(value):
                    break
            (key if text is None else text).append(value[at])
            at += 1
        pairs.append(("".join(key), None if text is None else "".join(text)))
        at += 1
    return pairs


def _pair(indent: int, key: str, value: str) -> str:
    space = " " * indent
    if _is_numeric(value):
        return f'{space}"{key}":{value}'
    return f'{space}"{key}":"{visible(_escaped(value))}"'


def _is_numeric(value: str) -> bool:
    """Whatever strtod(3) takes whole, unless it begins with 0 and is 1 or more."""
    found = _STRTOD.fullmatch(value)
    if found is None or not value.strip():
        return False
    if value[0] != "0":
        return True
    word = found[1].lower()
    number = float.fromhex(word) if "x" in word else float(word)
    return not math.isnan(number) and number < 1


_ESCAPES = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(value: str) -> str:
    """A backslash stays with what follows it, and goes before ``'`` and ``,``."""
    out: list[str] = []
    at = 0
    while at < len(value):
        character = value[at]
        if character == "\\":
            following = value[at + 1 : at + 2]
            out.append(following if following in ("'", ",") else character + following)
            at += 2
            continue
        if character == '"':
            # The real one also leaves a quote at the very beginning as it is.
            out.append('\\"' if at and value[at - 1] != "\\" else '"')
        else:
            out.append(_ESCAPES.get(character, character))
        at += 1
    return "".join(out)
