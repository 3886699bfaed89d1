"""A drafted profile as YAML, with its remarks as comments and examples of what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from hpc_bridge.sites.draft import Draft, walltime_words
from hpc_bridge.sites.words import in_word
from hpc_bridge.sites.yaml_text import dump

_WIDTH = 94
_HEAD = ("name", "description", "contact")
_SECTIONS = (
    *("scheduler", "login", "paths", "partitions", "accounts", "qos"),
    *("environment", "containers", "network"),
)


def draft_text(draft: Draft) -> str:
    """Read back, it is the draft's profile again."""
    content = _content(draft)
    blocks = ["".join(_head(content, draft))]
    blocks += ["".join(_section(name, content.get(name), draft)) for name in _SECTIONS]
    return "\n".join(block for block in blocks if block)


def _content(draft: Draft) -> dict[str, Any]:
    """What differs from the schema's defaults; the shared directory in any case."""
    profile = draft.profile
    content = profile.model_dump(mode="json", exclude_defaults=True)
    content["paths"] = {"shared_dir": profile.paths.shared_dir, **content.get("paths", {})}
    for written, partition in zip(content.get("partitions", ()), profile.partitions, strict=True):
        for field in ("walltime", "default_walltime"):
            if field in written:
                written[field] = walltime_words(getattr(partition, field))
    for name in ("accounts", "qos"):
        offers = content.get(name, ())
        if offers and not any(offer.get("description") for offer in offers):
            content[name] = [offer["name"] for offer in offers]
    return content


def _head(content: dict[str, Any], draft: Draft) -> Iterator[str]:
    yield _comments(draft.remarks.get("", ()))
    for name in _HEAD:
        if name in content:
            yield dump({name: content[name]})
        elif name in draft.examples:
            yield _commented_out(name, draft)


def _section(name: str, value: Any, draft: Draft) -> Iterator[str]:
    yield _comments(draft.remarks.get(name, ()))
    if value is None:
        yield _commented_out(name, draft)
    elif name != "partitions":
        yield dump({name: value})
    else:
        yield f"{in_word(name, draft.profile.scheduler.type)}:\n"
        for partition in value:
            remarks = draft.remarks.get(f"partitions.{partition['name']}", ())
            yield _prefixed("  ", _comments(remarks) + dump([partition]))


def _commented_out(name: str, draft: Draft) -> str:
    example = draft.examples.get(name)
    return "" if example is None else _prefixed("# ", dump({name: example}))


def _comments(lines: Sequence[str]) -> str:
    """Texts of the site are among them, and must stay comments."""
    found = []
    for line in lines:
        printable = "".join(char if char.isprintable() else "?" for char in line)
        indent = " " * (len(printable) - len(printable.lstrip()))
        found += wrap(printable, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return "".join(f"# {line}\n" for line in found)


def _prefixed(prefix: str, text: str) -> str:
    return "".join(f"{prefix}{line}\n" for line in text.splitlines())
