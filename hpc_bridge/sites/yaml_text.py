"""YAML as people mean it: what a file says and at which line, and back.

Scalars are those of YAML 1.2, as in editors: ``1:30:00``, ``on`` and ``NO`` are text, not a number
and two booleans. A key that is there twice is an error, and so is a file that is too large, nested
too deep or grows out of all proportion through aliases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

LARGEST = 256 * 1024
_DEEPEST = 40
_MOST_NODES = 50_000
_NO_FOLDING = 10_000
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")

Location = tuple[str | int, ...]
_Resolvers = dict[Any, list[tuple[str, re.Pattern[str]]]]


class NotYaml(ValueError):
    """The text cannot be read; ``line`` counts from 1 and is None when no line is to blame."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Document:
    """What one file says."""

    content: Any
    problems: tuple[tuple[int, str], ...]
    """Line and text of what is wrong with it as YAML, though it could be read."""
    root: Node | None

    def line(self, location: Location) -> int | None:
        """Where the value at ``location`` is, or what is nearest above it."""
        return None if self.root is None else _line(self.root, location)


def load(text: str) -> Document:
    """Raises NotYaml."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Document(None, (), None)
            _check_size(root)
            problems = tuple(_repeated_keys(root))
            return Document(loader.construct_document(root), problems, root)
        finally:
            loader.dispose()
    except NotYaml:
        raise
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYaml(f"holds the character {chr(error.character)!a}", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise NotYaml(words, mark.line + 1 if mark else None) from None
    except (ValueError, TypeError) as error:  # what a tag in the text asks for
        raise NotYaml(str(error)) from None


def dump(content: Any) -> str:
    """Text that ``load`` reads as the same again, in the order of ``content``."""
    return yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=_NO_FOLDING,
    )


_SCALARS = {
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9]{0,17})", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", "~nN\0"),
    "tag:yaml.org,2002:merge": (r"<<", "<"),
}


def _resolvers() -> _Resolvers:
    found: _Resolvers = {}
    for tag, (pattern, first) in _SCALARS.items():
        for char in first:
            found.setdefault("" if char == "\0" else char, []).append(
                (tag, re.compile(f"(?:{pattern})\\Z"))
            )
    return found


def _merged(*tables: _Resolvers) -> _Resolvers:
    first = {char for table in tables for char in table}
    return {char: [one for table in tables for one in table.get(char, [])] for char in first}


class _Loader(yaml.SafeLoader):
    """Plain values only; a tag for anything else is unknown to it."""

    yaml_implicit_resolvers = _resolvers()
    yaml_constructors = {  # noqa: RUF012  as in the class above
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _KINDS
    }
    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        if self.depth > _DEEPEST:
            mark = self.get_mark()
            raise NotYaml(f"is nested deeper than {_DEEPEST} levels", mark.line + 1)
        node = super().compose_node(parent, index)
        self.depth -= 1
        # An escape can stand for what no file, command or terminal takes.
        if isinstance(node, ScalarNode) and (odd := _NO_TEXT.search(node.value)):
            raise NotYaml(f"holds the character {odd[0]!a}", _at(node))
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than text."""

    yaml_implicit_resolvers = _merged(yaml.SafeDumper.yaml_implicit_resolvers, _resolvers())

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  each value is written out
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _number(dumper: yaml.SafeDumper, number: float) -> Node:
    return (
        dumper.represent_int(int(number)) if number.is_integer() else dumper.represent_float(number)
    )


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _number)


def _check_size(root: Node) -> None:
    """Aliases share a node, so that a few lines can stand for billions of values."""
    sizes: dict[int, int] = {}

    def size(node: Node) -> int:
        known = sizes.get(id(node))
        if known == 0:
            raise NotYaml("an alias stands for something that holds itself", _at(node))
        if known is None:
            sizes[id(node)] = 0
            known = 1 + sum(size(child) for child in _children(node))
            if known > _MOST_NODES:
                raise NotYaml("its aliases stand for too much; write it out", _at(node))
            sizes[id(node)] = known
        return known

    size(root)


def _children(node: Node) -> Iterator[Node]:
    for child in node.value if isinstance(node, MappingNode | SequenceNode) else ():
        yield from child if isinstance(child, tuple) else (child,)


def _repeated_keys(root: Node) -> Iterator[tuple[int, str]]:
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        pending += reversed(list(_children(node)))
        first: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if not isinstance(key, ScalarNode):
                continue
            if key.value in first:
                yield _at(key), f"{key.value!r} is there twice, first at line {first[key.value]}"
            first.setdefault(key.value, _at(key))


def _line(root: Node, location: Sequence[str | int]) -> int:
    node, line = root, _at(root)
    for part in location:
        if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = _at(node)
        elif isinstance(node, MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
            if not pairs:
                continue
            key, node = pairs[-1]
            line = _at(key)
    return line


def _at(node: Node) -> int:
    return int(node.start_mark.line) + 1
