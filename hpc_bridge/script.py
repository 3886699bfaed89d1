"""Job scripts: a template, a JobSpec and what a run needs, to the text that is submitted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hpc_bridge.data import data_folder
from hpc_bridge.errors import InvalidJobSpec, TemplateError
from hpc_bridge.files import expanded_home
from hpc_bridge.jobs import JobSpec, units
from hpc_bridge.schedulers.base import Scheduler
from hpc_bridge.schedulers.pbs_select import (
    DEFAULT_GPU_RESOURCE,
    pbs_begin,
    pbs_licenses,
    pbs_place,
    pbs_select,
    pbs_walltime,
    pbs_word,
)
from hpc_bridge.schedulers.torque_request import (
    torque_begin,
    torque_memory,
    torque_nodes,
    torque_tasks,
)

_LINE_BREAKS = re.compile(r"[\n\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
# As the packaged templates write them for a job array.
_ARRAY = re.compile(r"^#(?:SBATCH --array=|PBS -J ).*\n", re.MULTILINE)
_ELEMENT_OUTPUT = re.compile(
    r"^(#(?:SBATCH --output=|PBS -o ).*/)(?:%a|\^array_index\^)/(job\.out\"?)$", re.MULTILINE
)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
_OPTIONAL = {
    "array": None,
    "site_modules": (),
    "site_prologue": "",
    "node_scratch": None,
    "gpu_resource": DEFAULT_GPU_RESOURCE,
    "account_option": "-A",
}
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\-\[\]&|*!]+")


def quote(value: object) -> str:
    """One word for a POSIX shell. The only function that quotes for a shell."""
    return shlex.quote(str(value))


def path_on_node(path: object) -> str:
    """One word for the node's shell, which puts in its own ``$VARIABLES`` and ``~`` at the start.

    Nothing else in it is looked at: ``$(...)`` and backquotes stay text.
    """
    text, words = str(path), []
    if text == "~" or text.startswith("~/"):
        text, words = text[1:], ['"${HOME-}"']
    end = 0
    for match in _VARIABLE.finditer(text):
        words += [text[end : match.start()] and quote(text[end : match.start()])]
        words += [f'"${{{match[1] or match[2]}-}}"']
        end = match.end()
    return "".join([*words, text[end:] and quote(text[end:])]) or quote("")


def directive(value: object) -> str:
    """One word of a ``#SBATCH`` line, byte for byte.

    Between double quotes sbatch takes blanks, ``#`` and ``$`` as they are, and the character after
    a backslash literally (tried on 22.05 and 24.11). Raises InvalidJobSpec for a line break,
    which would begin a new directive.
    """
    text = one_line(value)
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def one_line(value: object) -> str:
    """The text itself; raises InvalidJobSpec for a line break: it would begin a new directive."""
    text = str(value)
    if _LINE_BREAKS.search(text):
        raise InvalidJobSpec(f"{text!r} holds a line break; a directive is one line of text")
    return text


def slurm_path(path: object) -> str:
    """A file name for ``--output``: ``%`` begins a pattern there, and ``%%`` is itself."""
    return str(path).replace("%", "%%")


def is_array(script: str) -> bool:
    """Whether the script asks for a job array whose elements have an output file each."""
    return bool(_ARRAY.search(script) and _ELEMENT_OUTPUT.search(script))


def plain_job(script: str) -> str:
    """The script of a job array as that of one job."""
    return _ELEMENT_OUTPUT.sub(r"\1\2", _ARRAY.sub("", script, count=1), count=1)


def with_site_directives(
    script: str,
    scheduler: Scheduler,
    *,
    skip: Collection[str],
    add: Sequence[str],
    own: Sequence[str],
) -> str:
    """The script without the options of ``skip``, in whatever form, and with those of ``add``.

    What a site adds comes after what hpc-bridge asks for and before ``own``, the user's directives.
    An option that is there already stays as it is.
    """
    prefix, option_name = scheduler.directive_prefix, scheduler.directive_option

    def option_of(line: str) -> str | None:
        words = line.split(maxsplit=1)
        is_directive = len(words) == 2 and words[0] == prefix.rstrip()
        return option_name(words[1].strip()) if is_directive else None

    lines, rest = _directives_and_rest(script)
    unwanted = {option_name(option) for option in skip}
    lines = [line for line in lines if option_of(line) not in unwanted]
    there = {option_of(line) for line in lines}
    added = [f"{prefix}{one_line(line)}\n" for line in add if option_name(line) not in there]
    if not added:
        return "".join([*lines, rest])
    asked = [at for at, line in enumerate(lines) if option_of(line) is not None]
    users = f"{prefix}{own[0]}\n" if own else None
    at = lines.index(users) if users in lines else (asked[-1] + 1 if asked else 1)
    return "".join([*lines[:at], *added, *lines[at:], rest])


def _directives_and_rest(script: str) -> tuple[list[str], str]:
    """The lines in which directives are looked for: those before the first command.

    What looks like one further on is text of the script, perhaps another script that it writes.
    """
    lines = script.splitlines(keepends=True)
    for at, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            return lines[:at], "".join(lines[at:])
    return lines, ""


def load_template(template: str | None, packaged: str) -> tuple[str, str]:
    """(name, text) of a template that is given as text, as a path, or not at all.

    Anything with a line break is text. Raises TemplateError when the file cannot be read.
    """
    if template is not None and "\n" in template:
        return "the pool's template", template
    path = Path(expanded_home(template)) if template else data_folder("job_scripts") / packaged
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # not UTF-8, or no path at all
        raise TemplateError(f"the template {path} cannot be read: {error}") from error


def render(
    spec: JobSpec, context: Mapping[str, Any], *, packaged: str, template: str | None = None
) -> str:
    """The job script.

    ``context`` adds to the template's variables: ``run_dir``, ``output``, ``python``, ``setup``,
    ``array`` (the indices of a job array, or None), and of the site ``site_modules``,
    ``site_prologue``, ``node_scratch`` and for PBS ``gpu_resource`` and ``account_option``.
    Raises TemplateError naming the variable and the line.
    """
    name, text = load_template(template, packaged)
    try:
        return _compiled(text).render({**_OPTIONAL, **context}, spec=_plain(spec))
    except TemplateSyntaxError as error:
        raise TemplateError(f"{name}, line {error.lineno}: {error.message}") from error
    except InvalidJobSpec:
        raise
    except Exception as error:
        raise TemplateError(f"{name}, line {_line_of(error)}: {error}") from error


@lru_cache(maxsize=32)
def _compiled(text: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(data_folder("job_scripts")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "quote": quote,
        "directive": directive,
        "memory": _optional(units.format_memory),
        "one_line": one_line,
        "path_on_node": path_on_node,
        "pbs_begin": pbs_begin,
        "pbs_licenses": pbs_licenses,
        "pbs_place": pbs_place,
        "pbs_select": pbs_select,
        "pbs_walltime": pbs_walltime,
        "pbs_word": pbs_word,
        "slurm_path": slurm_path,
        "torque_begin": torque_begin,
        "torque_memory": torque_memory,
        "torque_nodes": torque_nodes,
        "torque_tasks": torque_tasks,
        "walltime": _optional(units.format_walltime),
    }
    return environment.from_string(text)


def _plain(spec: JobSpec) -> SimpleNamespace:
    """The fields without the model's methods, which would lead out of the sandbox."""
    fields = {name: getattr(spec, name) for name in JobSpec.model_fields if name != "environment"}
    return SimpleNamespace(**fields)


def _optional(form: Callable[[int], str]) -> Callable[[int | None], str | None]:
    return lambda value: None if value is None else form(value)


def _line_of(error: BaseException) -> str:
    """The template's line at which rendering failed, from the rewritten traceback."""
    line = "?"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = str(trace.tb_lineno)
        trace = trace.tb_next
    return line
