"""Where each line of a job script comes from.

A variable's lines are those that change when it has another value: so the answer holds for any
template, and for lines that the template words in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from hpc_bridge.jobs import JobSpec, Resources
from hpc_bridge.script import load_template, render
from hpc_bridge.sites.words import in_word
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.submission import connection_of, job_script, script_context

PACKAGE_DEFAULT = "package default"
_OURS = "hpc-bridge: id of the submission"
_WIDTH = 64
"""Of the column of lines; a longer line pushes its own remark to the right."""
_OTHER = "a-text-that-is-nowhere-else-in-the-script"

_Changed = tuple[dict[str, Any], dict[str, Any]]
"""Fields of the spec and variables of the template with other values."""


def explained(
    configuration: BatchJobConfiguration, spec: JobSpec, origins: Mapping[str, str]
) -> str:
    """The script with a remark behind each line; ``origins`` are those of the job variables."""
    scheduler = connection_of(configuration).cluster.scheduler
    context = script_context(configuration, spec, None)

    def lines_with(changed: _Changed) -> list[str]:
        fields, variables = changed
        return render(
            spec.model_copy(update=fields),
            context | variables,
            packaged=scheduler.template,
            template=configuration.template,
        ).splitlines()

    lines = lines_with(({}, {}))
    name, _ = load_template(configuration.template, scheduler.template)
    of = origins.get("template", "package")
    remarks = [f"{of} (template {name})" if of != "package" else "package's template"] * len(lines)
    for origin, changed in _variants(configuration, spec, context, origins):
        for at in _differing(lines, lines_with(changed)):
            remarks[at] = origin
    script = job_script(configuration, spec).splitlines()
    return "".join(
        f"{line:<{_WIDTH}}  # {remark}\n" if line else "\n"
        for line, remark in _as_submitted(configuration, lines, remarks, script)
    )


def _variants(
    configuration: BatchJobConfiguration,
    spec: JobSpec,
    context: Mapping[str, Any],
    origins: Mapping[str, str],
) -> Iterator[tuple[str, _Changed]]:
    """Everything that has a value, by its origin, with a request in which it has another one."""
    yield _OURS, ({"name": "hb0"}, {})
    for name, field in Resources.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if getattr(spec, name) != default:
            own = "hpc-bridge: names of flow and run" if name == "comment" else PACKAGE_DEFAULT
            called = in_word(name, configuration.pool_type)
            yield f"{origins.get(name, own)} ({called})", ({name: default}, {})
    place = {"run_dir": f"/{_OTHER}", "output": f"/{_OTHER}/job.out"}
    yield _from("shared_dir", origins), ({}, place)
    yield _from("python", origins), ({}, {"python": _OTHER})
    if context["setup"]:
        yield _from("setup", origins), ({}, {"setup": [_OTHER]})
    if (site := configuration.profiled_site) is not None:
        given = {
            "environment.modules": ("site_modules", [_OTHER]),
            "environment.prologue": ("site_prologue", _OTHER),
            "paths.node_scratch": ("node_scratch", _OTHER),
        }
        for field_name, (variable, other) in given.items():
            if context[variable]:
                yield f"site {site.name!r}, {site.source} ({field_name})", ({}, {variable: other})


def _from(name: str, origins: Mapping[str, str]) -> str:
    return f"{origins.get(name, PACKAGE_DEFAULT)} ({name})"


def _differing(lines: Sequence[str], others: Sequence[str]) -> Iterator[int]:
    for kind, start, end, _, _ in SequenceMatcher(
        None, lines, others, autojunk=False
    ).get_opcodes():
        if kind != "equal":
            yield from range(start, end)


def _as_submitted(
    configuration: BatchJobConfiguration,
    lines: Sequence[str],
    remarks: Sequence[str],
    script: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """The lines after the site has left out directives and added its own."""
    site = configuration.profiled_site
    source = "" if site is None else f"site {site.name!r}, {site.source}"
    matcher = SequenceMatcher(None, lines, script, autojunk=False)
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            yield from zip(lines[start:end], remarks[start:end], strict=True)
            continue
        for at in range(start, end):
            yield f"# {lines[at]}", f"left out by {source} (scheduler.skip_directives)"
        for at in range(first, last):
            yield script[at], f"{source} (scheduler.add_directives)"
