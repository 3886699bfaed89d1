"""Whose files may hold text that will be executed as this user: root's and the user's own."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from hpc_bridge.errors import SiteError


def distrust(path: Path) -> list[str]:
    """Why the file is not trusted, each with the command that repairs it; empty when it is.

    Both its folder and, behind a link, the folder of what it leads to could be used to replace it.
    """
    folders = dict.fromkeys([path.absolute().parent, Path(os.path.realpath(path)).parent])
    return [reason for one in (path, *folders) if (reason := _reason(one)) is not None]


def check_trusted(path: Path) -> None:
    """Raise SiteError when somebody else could have written what is in the file."""
    if reasons := distrust(path):
        raise SiteError("\n".join([f"{path} is not trusted:", *(f"  {one}" for one in reasons)]))


def _reason(path: Path) -> str | None:
    try:
        found = path.stat()
    except OSError:
        return None  # nor can it be read, and reading says why
    what = "folder" if stat.S_ISDIR(found.st_mode) else "file"
    if found.st_uid not in (0, os.geteuid()):
        owner = _user(found.st_uid)
        return (
            f"the {what} {path} belongs to {owner}, and must be root's or yours: copy the profile,"
            f" or run 'sudo chown root {path}'"
        )
    if found.st_mode & stat.S_IWOTH:
        return f"the {what} {path} can be written by everybody: {_run(found, f'chmod o-w {path}')}"
    if found.st_mode & stat.S_IWGRP and not _alone_in_group(found):
        return (
            f"the {what} {path} can be written by the group {_group(found.st_gid)}:"
            f" {_run(found, f'chmod g-w {path}')}"
        )
    return None


def _run(found: os.stat_result, command: str) -> str:
    """Only the owner and root can change who may write."""
    if os.geteuid() in (0, found.st_uid):
        return f"run '{command}'"
    return f"ask its owner ({_user(found.st_uid)}) to run '{command}'"


def _alone_in_group(found: os.stat_result) -> bool:
    """Many systems give each user a group of their own, whose files it may write."""
    try:
        group, owner = grp.getgrgid(found.st_gid), pwd.getpwuid(found.st_uid)
    except KeyError:
        return False
    alone = set(group.gr_mem) <= {owner.pw_name}
    return found.st_uid != 0 and alone and group.gr_name == owner.pw_name


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
