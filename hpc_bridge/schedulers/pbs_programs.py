"""The small programs of POSIX shell that ask PBS where one command would not do.

Each connection of a client takes one of 512 reserved ports for a minute, and ``qstat`` and its like
open one for every id they are given; without ids qstat opens one but tells of everybody's jobs.
So the jobs of a user are found by qselect, a few are asked for by id, and more of them are picked
out of everybody's on the cluster's side. The exit code is that of the command that failed.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

FEW = 4
"""Ids that are asked for one by one, every interval."""
MANY = 50
"""The same for what is asked for seldom."""
NEXT = "hpc-bridge: next"
"""A line between the answers of several commands."""

# Ids have brackets, which are no patterns here.
_BEGIN = "set -f\n"
# What a pipeline ends with is its last command's.
_PICKED = """\
picked() {
    { x=$({ { "$@"; echo $? >&3; } | LC_ALL=C awk "$pick" >&4; } 3>&1); } 4>&1
    return "$x"
}
"""
_FOUND = """\
ids=$(_qselect {selection}) || exit $?
set -- $ids
[ $# -gt 0 ] || exit 0
[ $# -gt {few} ] || {{ _qstat {options} "$@"; exit $?; }}
"""
_BY_OWNER = """\
pick='BEGIN {{ RS = ""; ORS = "\\n\\n" }} index($0, "\\n    Job_Owner = {user}@")'
picked _qstat {options}
"""
_BY_ID = """\
pick='BEGIN {{ RS = ""; ORS = "\\n\\n"; n = split("{numbers}", all, " ")
for (i = 1; i <= n; i++) want[all[i]] = 1 }}
{{ id = $3; sub(/[[.].*/, "", id); if (id in want) print }}'
picked _qstat {options}
"""
_DEMAND = """\
pick='/^Job Id: / || /^    (job_state|queue|array_state_count|Resource_List[.]({resources})) = /'
picked _qstat -f -w
"""
# qdel has no option for it. A job that starts within these few milliseconds is deleted too.
_CANCEL_WAITING = """\
mine=$(id -un) || exit $?
waiting=$(_qselect -u "$mine" -T -s HQTW) || exit $?
ids=$(printf '%s\\n' "$waiting" | LC_ALL=C awk '
    BEGIN { for (i = 1; i < ARGC; i++) want[ARGV[i]] = 1; ARGC = 1 }
    { array = $1; sub(/[[][0-9]+[]]/, "[]", array) }
    ($1 in want) || (array in want)' "$@") || exit $?
[ -n "$ids" ] || exit 0
_qdel $ids
"""

Words = Sequence[str]


def status(qselect: Words, qstat: Words, user: str) -> list[str]:
    """Every live job of ``user``, elements one by one."""
    return _of_user(qselect, qstat, user, ["-u", user], ["-f", "-w", "-t"], FEW)


def find(qselect: Words, qstat: Words, user: str, name: str, *, history: bool = False) -> list[str]:
    """Jobs of ``user`` of that name; with ``history`` also those that are over."""
    also = ["-x"] if history else []
    selection = [*also, "-u", user, "-N", name]
    return _of_user(qselect, qstat, user, selection, [*also, "-f", "-w", "-t"], MANY)


def history(qstat: Words, ids: Collection[str], numbers: Collection[str]) -> list[str]:
    """Jobs by their ids, of arrays with all elements; ``numbers`` are what the ids begin with."""
    options = ["-x", "-f", "-w", "-t"]
    if len(ids) <= MANY:
        return [*qstat, *options, *ids]
    pick = _BY_ID.format(numbers=" ".join(numbers), options=shlex.join(options))
    return _program({"qstat": qstat}, _PICKED + pick)


def demand(qstat: Words, resources: Collection[str]) -> list[str]:
    """What is wanted of the jobs of all users, without their names and variables."""
    return _program({"qstat": qstat}, _PICKED + _DEMAND.format(resources="|".join(resources)))


def cancel_waiting(qselect: Words, qdel: Words, ids: Collection[str]) -> list[str]:
    """Delete those of the jobs that wait, of an array its elements that do."""
    return _program({"qselect": qselect, "qdel": qdel}, _CANCEL_WAITING, *ids)


def one_after_another(*commands: Words) -> list[str]:
    """Answers with a line NEXT between them, up to the first command that fails."""
    between = f" &&\necho && echo {shlex.quote(NEXT)} &&\n"
    return ["sh", "-c", between.join(shlex.join(command) for command in commands)]


def _of_user(
    qselect: Words, qstat: Words, user: str, selection: Words, options: Words, few: int
) -> list[str]:
    found = _FOUND.format(selection=shlex.join(selection), options=shlex.join(options), few=few)
    owner = "".join(char for char in user if char.isalnum() or char in "_.-")
    picked = _BY_OWNER.format(user=owner, options=shlex.join(options))
    return _program({"qselect": qselect, "qstat": qstat}, found + _PICKED + picked)


def _program(commands: dict[str, Words], body: str, *arguments: str) -> list[str]:
    functions = "".join(
        f'_{name}() {{ {shlex.join(words)} "$@"; }}\n' for name, words in commands.items()
    )
    return ["sh", "-c", _BEGIN + functions + body, "sh", *arguments]
