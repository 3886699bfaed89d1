"""Attributes of jobs: their order, their lists of variables, their sizes and durations.

Everything said by a user is kept as bytes in a ``str`` (Latin-1), as the real programs, which
know no encoding, would.
"""

from __future__ import annotations

import re

_ORDER = (
    "Job_Name Job_Owner resources_used job_state queue server Account_Name Checkpoint ctime "
    "depend Error_Path exec_host exec_vnode Execution_Time group_list Hold_Types Join_Path "
    "Keep_Files Mail_Points Mail_Users mtime Output_Path Priority qtime Remove_Files Rerunable "
    "Resource_List stime obittime session_id Shell_Path_List jobdir substate User_List "
    "Variable_List comment etime umask block run_count Stageout_status Exit_status "
    "Submit_arguments executable argument_list array array_id array_index array_state_count "
    "array_indices_submitted array_indices_remaining history_timestamp project Submit_Host "
    "max_run_subjobs"
)
ORDER = _ORDER.split()
"""As the server has them (master_job_attr_def.xml of v23.06.06)."""

TIMES = {"ctime", "etime", "stime", "obittime", "mtime", "qtime", "Execution_Time"}
"""Shown by qstat as ctime(3) writes them; ``history_timestamp`` is not."""

_RESOURCES = (
    "arch cput file host mem mpiprocs mpphost ncpus nice nodect nodes ompthreads pcput pmem "
    "pvmem software vmem vnode walltime accelerator accelerator_model naccelerators place select "
    "site soft_walltime max_walltime min_walltime"
)
KNOWN_RESOURCES = set(_RESOURCES.split())
NUMBERS = {"ncpus", "mpiprocs", "ompthreads", "nodect", "nice", "naccelerators", "ngpus"}
SIZES = {"mem", "vmem", "pmem", "pvmem", "file", "accelerator_memory"}
DURATIONS = {"walltime", "cput", "pcput"}

Attributes = dict[str, object]
"""Values are ``str``, ``int`` or, of resources, a ``dict`` of them."""


def ordered(attributes: Attributes) -> list[tuple[str, str | None, str]]:
    """(name, resource or None, value) as the server sends them."""
    rows: list[tuple[str, str | None, str]] = []
    for name in sorted(attributes, key=ORDER.index):
        value = attributes[name]
        if isinstance(value, dict):
            rows += [(name, resource, str(value[resource])) for resource in sorted(value)]
        else:
            rows.append((name, None, str(value)))
    return rows


def variable_list(variables: dict[str, str]) -> str:
    """As the server gives it: comma, double quote and backslash behind a backslash."""
    return ",".join(
        f"{name}=" + re.sub(r'([,"\\])', r"\\\1", value) for name, value in variables.items()
    )


def size_kb(text: str) -> int | None:
    """A size of PBS in kB, rounded up; None when it is none."""
    found = re.fullmatch(r"(\d+)([kmgtp]?)([bw]?)", text.strip(), re.IGNORECASE)
    if found is None:
        return None
    number = int(found[1]) * (8 if found[3].lower() == "w" else 1)
    power = " kmgtp".index(found[2].lower() or " ")
    return -(-number * 1024**power // 1024)


def seconds(text: str) -> int | None:
    """A duration of PBS, ``[[hh:]mm:]ss[.ms]``, in seconds; None when it is none."""
    if not re.fullmatch(r"\d+(:\d+){0,2}(\.\d+)?", text):
        return None
    total = 0
    for part in text.split(".")[0].split(":"):
        total = total * 60 + int(part)
    return total


def clock(duration: float) -> str:
    """A duration as PBS writes it: ``hh:mm:ss``."""
    whole = int(duration)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def ranges(numbers: list[int]) -> str:
    """``0-3,7`` for array_indices_remaining; ``-`` for none."""
    pieces: list[list[int]] = []
    for number in sorted(numbers):
        if pieces and number == pieces[-1][-1] + 1:
            pieces[-1].append(number)
        else:
            pieces.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in pieces) or "-"
