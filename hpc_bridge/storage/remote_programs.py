"""What RemoteFiles asks a login host, as programs for ``xargs`` and ``sh``, and their answers.

Questions come on stdin, each ended by a NUL: any name can be asked for, and as many as one likes.
Answers are bytes. GNU find, coreutils and xargs are what is needed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpc_bridge.errors import CommandError
from hpc_bridge.storage.cluster_files import Entry, Kind, Part

_REASONS = {os.strerror(number): number for number in errno.errorcode}
# Some have words of their own.
_OWN_REASONS = (
    (re.compile(r"Wrote only \d+ of \d+ bytes"), errno.ENOSPC),
    (re.compile(r"hard link not allowed for directory"), errno.EPERM),
    (re.compile(r"cannot overwrite directory .* with non-directory"), errno.EISDIR),
    (re.compile(r"cannot overwrite non-directory .* with directory"), errno.ENOTDIR),
)
_QUOTED = re.compile(r"'(/.*?)'(?=: | => | to )")


def reason(line: str) -> int | None:
    """The errno of which a program speaks (LC_ALL=C)."""
    known = _REASONS.get(line.rstrip().rpartition(": ")[2])
    if known is not None:
        return known
    return next((number for words, number in _OWN_REASONS if words.search(line)), None)


def os_error(stderr: str, path: object) -> OSError | None:
    """What a program's messages mean; ``path`` is where they name none."""
    for line in stderr.splitlines():
        if (number := reason(line)) is not None:
            named = _QUOTED.search(line)
            return OSError(number, os.strerror(number), named[1] if named else str(path))
    return None


# pieces of files

_READ = r"""
for q; do
    o=${q%% *}; r=${q#* }; l=${r%% *}; f=${r#* }
    if [ -e "$f" ] || [ -L "$f" ] || ! [ -x "${f%/*}/" ]; then
        case $o,$l in
        0,-) cat "$f" ;;
        -*,-) tail -c "${o#-}" "$f" ;;
        *,-) tail -c "+$((o + 1))" "$f" ;;
        0,*) head -c "$l" "$f" ;;
        -*,*) [ -f "$f" ] && [ -r "$f" ] && tail -c "${o#-}" "$f" | head -c "$l" ;;
        *) [ -f "$f" ] && [ -r "$f" ] && tail -c "+$((o + 1))" "$f" | head -c "$l" ;;
        esac 2>/dev/null && { printf %s "$0+"; continue; }
        e=$(head -c 1 "$f" 2>&1 >/dev/null)
        case $e in
        *": No such file or directory") ;;
        *) printf '%s\n' "${e:-$f: cannot be read}" >&2; exit 255 ;;
        esac
    fi
    printf %s "$0-"
done
"""


def reading(wanted: Sequence[Part], mark: str) -> tuple[list[str], list[bytes]]:
    """The command, which ends each piece with ``mark``, and what it is asked."""
    limits = ("-" if part.limit is None else str(part.limit) for part in wanted)
    return ["sh", "-c", _READ, mark], [
        f"{part.offset} {limit} ".encode() + os.fsencode(part.path)
        for part, limit in zip(wanted, limits, strict=True)
    ]


def pieces(answer: bytes, mark: str, count: int) -> list[bytes | None]:
    """What ``reading`` has read; as many as were asked for. Raises CommandError."""
    found: list[bytes | None] = []
    end = mark.encode()
    start = 0
    while (at := answer.find(end, start)) >= 0:
        after = at + len(end) + 1
        found.append(answer[start:at] if answer[after - 1 : after] == b"+" else None)
        start = after
    if len(found) != count or start != len(answer):
        raise CommandError(f"{len(found)} of {count} files were read, and then no more")
    return found


# what lies where

_FIELDS = 9
_FORMAT = "%H\\0%P\\0%y\\0%s\\0%T@\\0%m\\0%U\\0%n\\0%i\\0"
_KINDS: dict[bytes, Kind] = {b"f": "file", b"d": "folder", b"l": "link"}


def finding(links: str, depth: int) -> list[str]:
    """The command that describes what is found; ``links`` is find's -H or -L."""
    program = f"find {links} \"$@\" -maxdepth {int(depth)} -printf '{_FORMAT}'; [ $? -le 1 ]"
    return ["sh", "-c", program, "sh"]


def entries(answer: bytes) -> Iterable[tuple[bytes, str, Entry]]:
    """What was asked for, the name relative to it, and what that is. Raises CommandError."""
    fields = answer.split(b"\0")
    if len(fields) % _FIELDS != 1:
        raise _odd(answer)
    for at in range(0, len(fields) - 1, _FIELDS):
        top, name, kind, size, modified, mode, uid, links, inode = fields[at : at + _FIELDS]
        try:
            entry = Entry(
                _KINDS.get(kind, "other"),
                int(size),
                float(modified),
                int(mode, 8),
                int(uid),
                int(links),
                int(inode),
            )
        except ValueError:
            raise _odd(answer) from None
        yield top, os.fsdecode(name), entry


def _odd(answer: bytes) -> CommandError:
    return CommandError(f"what lies there cannot be read from find's answer: {answer[-200:]!r}")


def by_name(answer: bytes, stderr: str, paths: Sequence[Path]) -> list[Entry | None]:
    """Entries as ``ClusterFiles.entries`` gives them. Raises OSError and CommandError."""
    for line in stderr.splitlines():
        number, named = reason(line), _QUOTED.search(line)
        if number is not None and number not in (errno.ENOENT, errno.ENOTDIR):
            raise OSError(number, os.strerror(number), named[1] if named else line)
    # What a link leads to when it leads nowhere is the link itself.
    found = {path: entry for path, _, entry in entries(answer) if entry.kind != "link"}
    return [found.get(os.fsencode(path)) for path in paths]


def by_folder(answer: bytes, stderr: str, folders: Sequence[Path]) -> list[dict[str, Entry] | None]:
    """Listings as ``ClusterFiles.listings`` gives them. Raises OSError and CommandError."""
    found: dict[bytes, dict[str, Entry]] = {}
    for top, name, entry in entries(answer):
        if name and top in found:
            found[top][name] = entry
        elif name:
            raise _odd(answer)
        elif entry.kind == "folder":
            found[top] = {}
        elif entry.kind != "link":  # which leads nowhere
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(top))
    asked = {str(folder) for folder in folders}
    for line in stderr.splitlines():
        number, named = reason(line), _QUOTED.search(line)
        path = named[1] if named else line
        vanished = number == errno.ENOENT
        closed = number == errno.EACCES and path not in asked
        if number is not None and not vanished and not closed:
            raise OSError(number, os.strerror(number), path)
    listings = (found.get(os.fsencode(folder)) for folder in folders)
    return [known and _in_order(known) if known else known for known in listings]


def _in_order(known: dict[str, Entry]) -> dict[str, Entry]:
    return {name: known[name] for name in sorted(known, key=lambda name: name.split("/"))}


# changes

REMOVE_TREES = r"""
rm -rf -- "$@" 2>/dev/null && exit
find "$@" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
rm -rf -- "$@"
"""
MAKE_FOLDER = 'umask 077; mkdir -- "$1" || { [ "$0" = exist_ok ] && [ -d "$1" ]; }'
TOUCH = 'umask 077; touch -- "$@"'
LINK = 'ln -T -- "$1" "$2"'
LINK_AGAIN = 'ln -T -- "$1" "$2" || [ "$1" -ef "$2" ]'
"""After doubt: when it was made the first time, it is the same file."""
