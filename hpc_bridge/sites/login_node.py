"""The login node that a profile is drafted from: this machine, or one that is reached over SSH."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpc_bridge.errors import CommandError
from hpc_bridge.schedulers import pbs, slurm
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.sites.surroundings import (
    FOLDERS,
    Folder,
    Runtime,
    Surroundings,
    look_around,
    mount_of,
    parse_mounts,
)
from hpc_bridge.transports.login import LOCAL, Login, transport_to

_SECONDS = 60.0
_COMMANDS = {"slurm": slurm.COMMANDS, "pbs": pbs.COMMANDS}
_SCHEDULERS = (*dict.fromkeys((*slurm.COMMANDS, "scontrol", "sacctmgr", *pbs.COMMANDS)),)
_LEAKED = (*slurm.SlurmScheduler.leaked_variables, *pbs.PBSScheduler.leaked_variables)
_RUNTIMES: tuple[Runtime, ...] = ("apptainer", "singularity")
_PROGRAMS = (*_SCHEDULERS, *_RUNTIMES)
# sshd's shell for a command is no login shell, but sites set PATH, $SCRATCH and the like for those.
_ASK = """\
mark=$1 login=$2
shift 2
for name; do printf '%s\\0' "$(command -v "$name")"; done
exec bash --login -c "$login" bash "$mark" "$@" </dev/null
"""
# To go to a folder has it mounted, where that is done on demand.
_ASK_IN_LOGIN_SHELL = f"""\
printf '%s\\0' "$1"
shift
for name; do printf '%s\\0' "$(command -v "$name")"; done
printf '%s\\0' "$PATH" "$(uname -n)" "$(type -t module)" "$(cd && pwd -P)"
for name in {" ".join(FOLDERS)}; do
    case $(printenv "$name") in
    /*) printf '%s\\0' "$(cd "$(printenv "$name")" && pwd -P)" ;;
    *) printf '\\0' ;;
    esac
done 2>/dev/null
cat /proc/self/mountinfo
"""


@dataclass(frozen=True)
class LoginNode:
    """One login node as one user sees it."""

    login: Login
    around: Surroundings
    programs: Mapping[str, str]
    """Paths of those commands of schedulers that are there, by name."""
    only_in_login_shells: Mapping[str, str] = field(default_factory=dict)
    """Those that are not found without their path."""
    path: str | None = None
    """PATH of a login shell; None where commands are found anyhow."""

    def ask(self, command: Sequence[str]) -> Answer:
        """Run a command of the scheduler there. Raises CommandError when it cannot be run."""
        argv = [*command] if self.path is None else ["env", f"PATH={self.path}", *command]
        done = transport_to(self.login).run(argv, timeout=_SECONDS, unset=_LEAKED)
        return Answer(tuple(command), done.exit_code, done.stdout, done.stderr)

    def commands_of(self, scheduler: str) -> dict[str, str]:
        """Paths for a profile: of those commands of the scheduler that need one."""
        hidden = self.only_in_login_shells
        return {name: hidden[name] for name in _COMMANDS[scheduler] if name in hidden}


def this_machine() -> LoginNode:
    """As it is seen by this process."""
    found = {name: path for name in _SCHEDULERS if (path := shutil.which(name))}
    return LoginNode(LOCAL, look_around(), found)


def login_node(login: Login) -> LoginNode:
    """What is at the other end, by one command. Raises CommandError."""
    mark = secrets.token_hex(16)
    argv = ["sh", "-c", _ASK, "sh", mark, _ASK_IN_LOGIN_SHELL, *_PROGRAMS]
    done = transport_to(login).run(argv, timeout=_SECONDS)
    before, found, answer = done.stdout.partition(f"{mark}\0")
    fields = answer.split("\0", len(_PROGRAMS) + 4 + len(FOLDERS))
    if done.exit_code != 0 or not found or len(fields) != len(_PROGRAMS) + 5 + len(FOLDERS):
        raise CommandError(
            f"the login shell (bash) on {login} does not answer: {done.stderr.strip()[-500:]}",
            command=argv[:2],
            exit_code=done.exit_code,
            stderr=done.stderr,
        )
    plain = _paths(before.split("\0"))
    programs = _paths(fields)
    path, host, module, home, *folders, mountinfo = fields[len(_PROGRAMS) :]
    mounts = parse_mounts(mountinfo)
    around = Surroundings(
        host=host,
        home=Folder("~", mount_of(home, mounts)),
        others=tuple(
            Folder(f"${name}", mount_of(folder, mounts))
            for name, folder in zip(FOLDERS, folders, strict=True)
            if folder
        ),
        has_modules=bool(module),
        container_runtime=next((name for name in _RUNTIMES if name in programs), None),
    )
    hidden = {
        name: programs[name] for name in _SCHEDULERS if name in programs and name not in plain
    }
    return LoginNode(login, around, programs, hidden, path)


def _paths(said: Sequence[str]) -> dict[str, str]:
    """A function or an alias is no program."""
    pairs = zip(_PROGRAMS, said, strict=False)
    return {name: path for name, path in pairs if path.startswith("/")}
