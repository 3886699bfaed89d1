"""Whose account it is at the other end, and what a path's ``~`` and ``$VARIABLES`` are there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from hpc_bridge.errors import CommandError
from hpc_bridge.storage.cluster_files import Account

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_PERSON = re.compile(r"~([A-Za-z0-9_][\w.-]*)(?=/|$)", re.ASCII)

# sshd's shell for a command is no login shell, but sites set $SCRATCH and the like for those. What
# it says before the mark is noise; where it says nothing at all, what is set anyhow has to do. The
# names are checked words: nothing of a path is ever run.
_ASK = """\
id -un; id -u; printf '%s\\n' "$HOME"
for n in $HPC_BRIDGE_PEOPLE; do eval "h=~$n"; printf '%s\\n' "$h"; done
[ -n "$HPC_BRIDGE_NAMES" ] || exit 0
HPC_BRIDGE_TELL='printf "%s\\0" "$HPC_BRIDGE_MARK"; for n in $HPC_BRIDGE_NAMES; do \
v=$(printenv "$n") && printf "%s\\0%s\\0" "$n" "$v"; done; printf "%s\\0" "$HPC_BRIDGE_MARK"'
export HPC_BRIDGE_TELL
tell='exec sh -c "$HPC_BRIDGE_TELL"'
sh -c "$tell"
case ${SHELL:-sh} in
*csh) printf '%s\\n' "$tell" | timeout 30 "$SHELL" -l ;;
*) timeout 30 "${SHELL:-sh}" -lc "$tell" </dev/null ;;
esac 2>/dev/null
exit 0
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What was asked of an account."""

    account: Account
    homes: Mapping[str, str]
    """By the name of their owner; only of those who have one."""
    variables: Mapping[str, str]
    """Only those that are set."""


def people_in(text: str) -> list[str]:
    """Those whose home a path begins with."""
    match = _PERSON.match(text)
    return [match[1]] if match else []


def variables_in(text: str) -> list[str]:
    """Names of the variables that a path mentions."""
    return sorted({match[1] or match[2] for match in _VARIABLE.finditer(text)})


def asking(people: Collection[str], names: Collection[str], mark: str) -> list[str]:
    """The command that asks for all of that."""
    settings = {"PEOPLE": " ".join(people), "NAMES": " ".join(names), "MARK": mark}
    given = [f"HPC_BRIDGE_{name}={value}" for name, value in settings.items()]
    return ["env", *given, "sh", "-c", _ASK]


def answered(answer: bytes, people: Collection[str], mark: str) -> Known:
    """What it has said. Raises CommandError."""
    text = answer.decode(errors="surrogateescape")
    lines = text.split("\n", 3 + len(people))
    if len(lines) <= 3 + len(people) or not lines[1].isdecimal():
        raise CommandError(f"the account there cannot be asked for; this came: {text[:200]!r}")
    user, uid, home, *homes, rest = lines
    found = zip(people, homes, strict=True)
    variables: dict[str, str] = {}
    # Between each two marks, those of one shell; the login shell's come last, and win. What has no
    # mark after it has broken off.
    for section in rest.split(f"{mark}\0")[1:-1:2]:
        fields = section.split("\0")
        if len(fields) % 2 != 1:
            raise CommandError(f"the variables there cannot be read; this came: {section[:200]!r}")
        variables |= zip(fields[:-1:2], fields[1::2], strict=True)
    return Known(
        Account(user, int(uid), home),
        {name: place for name, place in found if not place.startswith("~")},
        variables,
    )


def expanded(text: str, known: Known) -> str:
    """As ``files.expanded_path`` does here; what is not known stays."""
    text = text.replace("{user}", known.account.user)
    if text == "~" or text.startswith("~/"):
        text = known.account.home.rstrip("/") + text[1:] or "/"
    for name in people_in(text):
        if name in known.homes:
            text = known.homes[name] + text[1 + len(name) :]
    text = str(PurePosixPath(text))
    return _VARIABLE.sub(lambda match: known.variables.get(match[1] or match[2], match[0]), text)
