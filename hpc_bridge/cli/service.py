"""``hpc-bridge service``: a worker that starts by itself, from the templates in ``services/``."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import sys
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from hpc_bridge.data import data_folder
from hpc_bridge.errors import InvalidJobSpec, SettingsError
from hpc_bridge.jobs import units
from hpc_bridge.script import directive, one_line, quote, slurm_path
from hpc_bridge.settings import PoolType, Settings, pool_type
from hpc_bridge.sites.choosing import site_of_pool
from hpc_bridge.sites.files import load_site

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


_SUBMIT = {"slurm": "sbatch", "pbs": "qsub"}


def pool_type_of(pool: str, settings: Settings) -> PoolType:
    """Of a pool that need not be there yet: as its site has it, else as the settings say."""
    site = site_of_pool(pool)
    if site is not None:
        return pool_type(load_site(site).profile.scheduler.type)
    return pool_type(settings.effective_scheduler)


def systemd_unit(pool: str, name: str | None, kind: PoolType = "slurm") -> str:
    """A unit for ``systemd --user``. Raises InvalidJobSpec for a value with a line break."""
    name = name or f"{getpass.getuser()}@{socket.gethostname()}"
    return _render("worker.service.j2", pool, name, kind)


def scrontab_entry(
    pool: str,
    name: str | None,
    shared: Path,
    *,
    partition: str | None,
    account: str | None,
    walltime: str,
    kind: PoolType = "slurm",
) -> str:
    """An entry for scrontab(1). Raises InvalidJobSpec, and SettingsError for a pool of PBS."""
    if kind != "slurm":
        raise SettingsError(
            f"work pool {pool!r} is of PBS, and scrontab is Slurm's alone; 'hpc-bridge service"
            " systemd' prints what keeps a worker on a login or service node"
        )
    try:
        seconds = units.parse_walltime(walltime)
    except ValueError as error:
        raise InvalidJobSpec(f"walltime: {error}") from error
    return _render(
        "worker.scrontab.j2",
        pool,
        name or f"{getpass.getuser()}@scrontab",
        kind,
        job_name=f"hpc-bridge-worker-{_plain(pool)}",
        output=str(shared / f"worker-{_plain(pool)}.log"),
        partition=partition,
        account=account,
        walltime=units.format_walltime(seconds),
    )


def unit(value: object) -> str:
    """Text of a unit file, in which ``%`` begins a specifier (systemd.unit(5))."""
    return one_line(value).replace("%", "%%")


def unit_word(value: object) -> str:
    """One quoted word of a unit file (systemd.syntax(7), "Quoting")."""
    escaped = unit(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def command_word(value: object) -> str:
    """One quoted argument of ``ExecStart=``, where ``$`` begins a variable (systemd.service(5))."""
    return unit_word(value).replace("$", "$$")


def _render(template: str, pool: str, name: str, kind: PoolType, **values: str | None) -> str:
    environment = Environment(  # noqa: S701  what comes out is no HTML
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "command_word": command_word,
        "directive": directive,
        "one_line": one_line,
        "quote": quote,
        "slurm_path": slurm_path,
        "unit": unit,
        "unit_word": unit_word,
    }
    text = (data_folder("services") / template).read_text(encoding="utf-8")
    return environment.from_string(text).render(
        pool=pool,
        name=name,
        unit=f"hpc-bridge-worker-{_plain(pool)}",
        python=sys.executable,
        path=_path(kind),
        kind=kind,
        **values,
    )


def _path(kind: PoolType) -> str:
    """Where the scheduler's commands are now, before what every process has."""
    found = shutil.which(_SUBMIT[kind])
    folders = [] if found is None else [os.path.dirname(found)]  # noqa: PTH120  a link stays one
    return ":".join(dict.fromkeys([*folders, *_SYSTEM_PATH.split(":")]))


def _plain(pool: str) -> str:
    """The pool's name as part of a file's or unit's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", pool).strip("-")
