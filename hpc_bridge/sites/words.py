"""What is a partition to Slurm is a queue to PBS: one field inside, a site's own word in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_QUEUES = {"partitions": "queues", "partition": "queue"}
_INSIDE = {queue: partition for partition, queue in _QUEUES.items()}
_NAMES = {"slurm": "Slurm", "pbs": "PBS", "local": "the embedded scheduler"}

Location = tuple[str | int, ...]


def queue_word(scheduler: str) -> str:
    """``queue`` or ``partition``."""
    return in_word("partition", scheduler)


def in_word(name: str, scheduler: str) -> str:
    """The name of a field or job variable as people of such a site write it."""
    return _QUEUES.get(name, name) if scheduler == "pbs" else name


def scheduler_name(scheduler: str) -> str:
    """As people write it: ``PBS``."""
    return _NAMES.get(scheduler, scheduler)


def scheduler_in(content: Any) -> str:
    """The type that a profile names, as far as it can be read; Slurm's words are the usual ones."""
    part = content.get("scheduler") if isinstance(content, Mapping) else None
    named = part.get("type") if isinstance(part, Mapping) else None
    return named if isinstance(named, str) else "slurm"


def in_our_words(content: Any, scheduler: str) -> Any:
    """A profile or a user's part with the names that the fields have inside."""
    if not isinstance(content, Mapping):
        return content
    found = {}
    for name, value in content.items():
        ours = _inside(name)
        if name != (right := in_word(ours, scheduler)) and right in content:
            continue  # there twice, and the right one counts
        found[ours] = in_our_words(value, scheduler) if name == "job_variables" else value
    return found


def in_their_words(content: Mapping[str, Any], scheduler: str) -> dict[str, Any]:
    """The same in the words that files and people have for it."""
    return {
        in_word(name, scheduler): (
            in_their_words(value, scheduler) if name == "job_variables" else value
        )
        for name, value in content.items()
    }


def wrong_words(content: Any, scheduler: str) -> Iterator[tuple[Location, str]]:
    """Where the other scheduler's word stands, and a sentence about it."""
    if not isinstance(content, Mapping):
        return
    for name, value in content.items():
        right = in_word(_inside(name), scheduler)
        if name in (*_QUEUES, *_INSIDE) and name != right:
            other = "PBS" if name in _INSIDE else "Slurm"
            here = scheduler_name(scheduler)
            yield (name,), f"{name}: is {other}'s word, and this site has {here}; write {right}"
        if name == "job_variables":
            inner = wrong_words(value, scheduler)
            yield from (((name, *where), f"{name}.{text}") for where, text in inner)


def _inside(name: str) -> str:
    return _INSIDE.get(name, name)


def as_written(location: Location, content: Any) -> Location:
    """Where in a file stands what is at ``location`` inside."""
    found: list[str | int] = []
    for part in location:
        if isinstance(content, Mapping):
            if part not in content and _QUEUES.get(str(part)) in content:
                part = _QUEUES[str(part)]
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
        else:
            content = None
        found.append(part)
    return tuple(found)
