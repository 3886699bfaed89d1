"""``hpc-bridge site validate``."""

from __future__ import annotations

import sys
from pathlib import Path

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.files import check_name, read_profile
from hpc_bridge.sites.login import reached
from hpc_bridge.sites.template_check import template_file
from hpc_bridge.sites.trust import distrust
from hpc_bridge.sites.user_part import UserPart
from hpc_bridge.sites.words import queue_word


def validate_profile(path: Path) -> int:
    """Print every problem of a file; the exit code is 1 when it is wrong.

    Who could have written it is only a warning: it may be a draft that has yet to be installed.
    """
    try:
        profile = read_profile(path)
        check_name(profile, path)
    except SiteError as error:
        sys.stderr.write(f"{error}\n")
        _warn([path])
        return 1
    template = template_file(profile)
    _warn([path] if template is None else [path, template])
    count, word = len(profile.partitions), queue_word(profile.scheduler.type)
    sys.stdout.write(
        f"{path} is valid: site {profile.name!r}, {profile.scheduler.type},"
        f" {count} {word}{'' if count == 1 else 's'}\n"
        f"from here: {reached(profile, UserPart())}\n"
    )
    return 0


def _warn(files: list[Path]) -> None:
    reasons = dict.fromkeys(reason for file in files for reason in distrust(file))
    for reason in reasons:
        sys.stderr.write(f"warning: not trusted for jobs as it is here: {reason}\n")
