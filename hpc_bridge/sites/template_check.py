"""Shell text of a profile: where its template is and whether it renders, how its prologue reads."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hpc_bridge.errors import HPCBridgeError, SiteError
from hpc_bridge.files import expanded_home
from hpc_bridge.jobs import JobSpec
from hpc_bridge.script import render
from hpc_bridge.sites.profile import SiteProfile

_STDIN = "/dev/stdin"
_BASH_SECONDS = 10.0
_NOT_STARTED = 126
_PLAIN = {"name": "hpcb-0123456789", "comment": "a flow"}
_FULL = _PLAIN | {
    **{"partition": "cpu", "account": "project", "qos": "normal", "constraint": "ib"},
    **{"nodes": 2, "tasks_per_node": 2, "cpus_per_task": 4, "memory": "16G"},
    **{"gpus_per_node": "a100:2", "walltime": "2h", "warning": "USR1@60"},
    **{"directives": ["--mail-type=END"], "requeue": True},
}
_CONTEXT = {
    "run_dir": "/shared/runs/hpcb-0123456789",
    "output": "/shared/runs/hpcb-0123456789/job.out",
    "python": "/opt/python/bin/python",
    "setup": ["module load python"],
}


def template_file(profile: SiteProfile) -> Path | None:
    """The file of the template, where it is not text in the profile itself."""
    template = profile.environment.template
    return None if template is None or "\n" in template else Path(expanded_home(template))


def with_template_found(profile: SiteProfile, folder: Path) -> SiteProfile:
    """The profile with an absolute path for a template that is named relative to ``folder``."""
    path = template_file(profile)
    if path is None or path.is_absolute():
        return profile
    return _with_template(profile, os.path.normpath(folder / path))


def with_template_text(profile: SiteProfile) -> SiteProfile:
    """The profile with the template's text in place of its path, as it can travel.

    Raises SiteError when the file cannot be read.
    """
    path = template_file(profile)
    if path is None:
        return profile
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # not UTF-8, or no path at all
        raise SiteError(f"the template {path} cannot be read: {error}") from None
    return _with_template(profile, text if "\n" in text else f"{text}\n")


def template_problem(profile: SiteProfile) -> str | None:
    """Why the template does not render; None when it does, or when there is none.

    It is tried for a job that asks for little, one that asks for much, and an array.
    """
    template = profile.environment.template
    if template is None:
        return None
    requests: list[tuple[dict[str, Any], str | None]] = [
        *((_PLAIN, None), (_FULL, None), (_FULL, "0-3%2")),
    ]
    for values, array in requests:
        try:
            context = {**_CONTEXT, "array": array}
            render(JobSpec(**values), context, packaged="", template=template)
        except HPCBridgeError as error:
            return str(error).removeprefix("the pool's template, ")
    return None


def prologue_problem(profile: SiteProfile) -> str | None:
    """What bash says of a prologue that it cannot read; None when it can, or is not there.

    Nothing is executed, but a process is started: for those who write a profile, not for loading.
    """
    text, bash = profile.environment.prologue, shutil.which("bash")
    if not text.strip() or bash is None:
        return None
    # Patterns such as !(a) are read after 'shopt -s extglob' only, which is not executed here.
    options = ["-O", "extglob"] if "extglob" in text else []
    # Without BASH_ENV, whose file would be executed.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [bash, *options, "-n", _STDIN],
            input=text.encode(errors="replace"),
            capture_output=True,
            timeout=_BASH_SECONDS,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = done.stderr.decode(errors="replace").replace(f"{_STDIN}: ", "")
    if not 0 <= done.returncode < _NOT_STARTED:
        return None
    # A here-document without an end takes in the rest of the job script; bash only warns.
    if done.returncode == 0 and "here-document" not in said:
        return None
    words = "; ".join(said.split("\n")[:2]).strip("; ")
    return f"bash cannot read it: {words or f'exit code {done.returncode}'}"


def _with_template(profile: SiteProfile, template: str) -> SiteProfile:
    environment = profile.environment.model_copy(update={"template": template})
    return profile.model_copy(update={"environment": environment})
