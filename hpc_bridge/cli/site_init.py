"""``hpc-bridge site init``: a profile drafted from the cluster itself."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.prompt import Confirm, Prompt

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.draft import Draft, Said, site_name
from hpc_bridge.sites.draft_text import draft_text
from hpc_bridge.sites.facts import Facts
from hpc_bridge.sites.files import user_part_file
from hpc_bridge.sites.login import host_of, is_one_of
from hpc_bridge.sites.login_node import LoginNode, login_node, this_machine
from hpc_bridge.sites.pbs_draft import draft_pbs
from hpc_bridge.sites.pbs_facts import ask_pbs
from hpc_bridge.sites.profile import NAME_PATTERN
from hpc_bridge.sites.slurm_draft import draft_slurm
from hpc_bridge.sites.slurm_facts import ask_slurm
from hpc_bridge.sites.surroundings import Surroundings
from hpc_bridge.sites.words import scheduler_name
from hpc_bridge.transports.login import LOCAL, Login


def init_site(
    name: str | None,
    output: Path | None,
    *,
    yes: bool,
    force: bool,
    console: Console,
    login: Login = LOCAL,
) -> None:
    """Ask the scheduler of this machine, or of a login host, then the person; write the file.

    ``output`` is a file, which names the site where nothing else does, a folder, or ``-`` for
    standard output. Raises SiteError where there is no scheduler or the file cannot be written,
    CommandError when the scheduler does not answer or the login host is not reached.
    """
    if name is not None:
        _check_name(name)
    name = name or _name_of_file(output)
    asks = not yes and sys.stdin.isatty() and sys.stderr.isatty()
    # A login may ask for a password, which goes with no spinner.
    node = this_machine() if login == LOCAL else login_node(login)
    scheduler = _scheduler(node)
    with console.status(f"asking {scheduler_name(scheduler)} what it has ..."):
        facts, draft = _asked(scheduler, node)
    for what, why in facts.refused.items():
        text = f"not known: {what} ({why})"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    try:
        answers = _answers(name, facts, node.around, console) if asks else {}
    except EOFError:
        raise SiteError("nothing is written without answers; --yes asks nothing") from None
    chosen = answers.pop("name", None) or name or site_name(facts.cluster)
    said = Said(chosen, login=_login_part(node), commands=node.commands_of(scheduler), **answers)
    text = draft_text(draft(said))
    if output == Path("-"):
        sys.stdout.write(text)
        return
    path = _file(output, chosen)
    overwrite = force or (asks and path.exists() and _may_replace(path, console))
    _write(path, text, overwrite=overwrite)
    if path.name != f"{chosen}.yaml":
        console.print(f"note: {path.name} must be called {chosen}.yaml to be found as a profile")
    console.print(
        f"wrote {path}. Read it through, then:\n"
        f"  hpc-bridge site validate {path}\n"
        "and put it where the profiles are (/etc/hpc-bridge/sites for everybody, or"
        f" ~/.config/hpc-bridge/sites), and check it with:\n"
        f"  hpc-bridge doctor {chosen}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if own := _own_part(login):
        console.print(
            f"You reached it by what is yours alone: write {' and '.join(own)} into"
            f" {user_part_file(chosen)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _own_part(login: Login) -> list[str]:
    """What of the way to the login host no profile says."""
    if login == LOCAL:
        return []
    alias = [] if login.host == host_of(login) else [f"'host: {login.host}'"]
    return alias + ([f"'user: {login.user}'"] if login.user else [])


def _login_part(node: LoginNode) -> dict[str, Any]:
    """Others may have no such alias in their SSH configuration, nor the same name there."""
    if node.login == LOCAL:
        return {}
    host = host_of(node.login)
    part = {"transport": node.login.transport, "host": host, "master": node.login.master}
    return part if is_one_of(node.around.host, [host]) else {**part, "machines": [node.around.host]}


def _asked(scheduler: str, node: LoginNode) -> tuple[Facts, Callable[[Said], Draft]]:
    """What the scheduler says, and how a profile is drafted from it."""
    if scheduler == "pbs":
        of_pbs = ask_pbs(node.ask)
        return of_pbs, lambda said: draft_pbs(of_pbs, node.around, said)
    of_slurm = ask_slurm(node.ask)
    return of_slurm, lambda said: draft_slurm(of_slurm, node.around, said)


def _scheduler(node: LoginNode) -> str:
    """Slurm where there are both: it comes with commands in the names of PBS's."""
    if "scontrol" in node.programs:
        return "slurm"
    if "qstat" in node.programs:
        return "pbs"
    missing = "no scheduler's commands are on PATH {} (neither Slurm's scontrol nor PBS's qstat). "
    if node.login != LOCAL:
        raise SiteError(
            f"{missing.format(f'on {node.login}, in a login shell of bash')}Is it a login node of"
            " the cluster?"
        )
    raise SiteError(
        f"{missing.format('here')}Run this on a login node of the cluster, after what brings them"
        " to PATH ('module load slurm'; PBS keeps them in /opt/pbs/bin), or name one: --host."
    )


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise SiteError(
            f"{name!r} cannot name a site: it is made of letters, digits, '.', '_' and '-', and"
            " begins with a letter or digit"
        )


def _name_of_file(output: Path | None) -> str | None:
    if output is None or output.suffix != ".yaml" or output.is_dir():
        return None
    return output.stem if re.fullmatch(NAME_PATTERN, output.stem) else None


def _answers(
    name: str | None, facts: Facts, around: Surroundings, console: Console
) -> dict[str, str]:
    """What only a person can say; the suggestion is taken with Enter."""

    def ask(question: str, suggestion: str) -> str:
        answer = Prompt.ask(question, console=console, default=suggestion or None)
        return (answer or "").strip()

    found: dict[str, str] = {}
    while name is None:
        try:
            found["name"] = name = ask("Name of the site", site_name(facts.cluster))
            _check_name(name)
        except SiteError as error:
            console.print(str(error), markup=False)
            name = None
    usual = f"{facts.scheduler} cluster {facts.cluster}"
    found["description"] = ask("One line about it", usual)
    found["contact"] = ask("Whom do users ask (an address or a page)", "")
    while not (folder := found.get("shared_dir", "")).startswith(("/", "~", "$")):
        if folder:
            console.print("begin it with /, ~ or an environment variable")
        found["shared_dir"] = ask(
            "Folder of each user that login and compute nodes share ({user}, ~, $VARIABLES)",
            around.shared_dir,
        )
    return found


def _may_replace(path: Path, console: Console) -> bool:
    try:
        return Confirm.ask(f"{path} exists; replace it?", console=console, default=False)
    except EOFError:
        return False


def _file(output: Path | None, name: str) -> Path:
    if output is None:
        return Path(f"{name}.yaml")
    return output / f"{name}.yaml" if output.is_dir() else output


def _write(path: Path, text: str, *, overwrite: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
    try:
        # Others read it; one that others could write would not be trusted.
        with os.fdopen(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise SiteError(f"{path} exists and is left as it is; --force replaces it") from None
    except OSError as error:
        raise SiteError(f"{path} cannot be written: {error.strerror}") from None
