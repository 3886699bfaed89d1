"""The small programs of POSIX shell that Torque-style wrappers of Slurm are asked by.

Their qsub reads neither ``#PBS`` lines nor standard input; sbatch, which it calls, reads the lines
in a way of its own, and so must not. Their ``qstat -f`` dies at the first job that has nodes
(24.11), so that the tables are read.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

Words = Sequence[str]

NO_JOBS = 153
"""Exit code of qstat that has nothing to tell of, without a word; ``qstat -q`` always has it."""

# What qsub is given goes through a shell unquoted, so the output's folder is where it is called.
# Of several -l it takes the last.
_SUBMIT = """\
script=$(cat; echo .)
script=${script%.}
directives=$(printf %s "$script" | LC_ALL=C awk '!/^#/ && NF { exit } sub(/^#PBS +/, "")')
output=$(printf '%s\\n' "$directives" | sed -n 's/^-o *//p' | tail -n 1)
options=$(printf '%s\\n' "$directives" | LC_ALL=C awk '
    /^-o/ { next }
    sub(/^-l */, "") { list = list (list == "" ? "" : ",") $0; next }
    { print }
    END { if (list != "") print "-l " list }')
if [ -n "$output" ]; then
    cd -- "${output%/*}" || exit 1
    options="$options -o ${output##*/}"
fi
set -f
printf %s "$script" | _qsub $options -N "$1" /dev/stdin
"""
# The name is cut by qstat, but ours are shorter.
_NAMED = """\
table=$(_qstat -u "$1") || exit $?
printf '%s\\n' "$table" | LC_ALL=C awk -v name="$2" '$4 == name'
"""
# qdel has no option for it. A job that starts within these few milliseconds is deleted too.
_CANCEL_WAITING = f"""\
table=$(_qstat "$@")
x=$?
[ $x -eq 0 ] || [ $x -eq {NO_JOBS} ] || exit $x
ids=$(printf '%s\\n' "$table" | LC_ALL=C awk '/^[0-9]/ && substr($0, 63, 1) == "Q" {{ print $1 }}')
[ -n "$ids" ] || exit 0
_qdel $ids
"""


def submit(qsub: Words, name: str) -> list[str]:
    """Submit the script on standard input with its ``#PBS`` lines as options."""
    return _program({"qsub": qsub}, _SUBMIT, name)


def named(qstat: Words, user: str, name: str) -> list[str]:
    """The lines of the jobs of ``user`` of that name."""
    return _program({"qstat": qstat}, _NAMED, user, name)


def cancel_waiting(qstat: Words, qdel: Words, ids: Collection[str]) -> list[str]:
    """Delete those of the jobs that wait."""
    return _program({"qstat": qstat, "qdel": qdel}, _CANCEL_WAITING, *ids)


def _program(commands: dict[str, Words], body: str, *arguments: str) -> list[str]:
    functions = "".join(
        f'_{name}() {{ {shlex.join(words)} "$@"; }}\n' for name, words in commands.items()
    )
    return ["sh", "-c", functions + body, "sh", *arguments]
