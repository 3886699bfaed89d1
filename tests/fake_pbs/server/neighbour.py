"""Somebody else's job whose attributes break the answer: the switch ``damage``."""

from __future__ import annotations

import time

KINDS = {
    "name": {"Job_Name": "nan"},
    "project": {"project": "1."},
    "bytes": {"X": "\xc3\xa9\xe2\x98\x83"},
    "escape": {"Account_Name": "C:\\Users"},
    "newline": {"X": "line1\nline2"},
    "empty": {"X": ""},
}
"""What the switch's file may say; empty: ``name`` and ``bytes``."""


def neighbours_job(server: str, said: str) -> dict:
    """A running job of another account, with what ``said`` names damaged."""
    now = int(time.time())
    damage: dict[str, str] = {}
    for kind in said.split() or ["name", "bytes"]:
        damage |= KINDS[kind]
    variables = "PBS_O_HOME=/home/other,PBS_O_LANG=C.UTF-8,PBS_O_LOGNAME=other"
    variables += ",PBS_O_WORKDIR=/home/other,PBS_O_SYSTEM=Linux"
    if "X" in damage:
        variables += f",X={damage.pop('X')}"
    attributes: dict[str, object] = {
        "Job_Name": "theirs",
        "Job_Owner": f"other@{server}",
        "job_state": "H",
        "queue": "workq",
        "server": server,
        "Checkpoint": "u",
        "ctime": now,
        "Error_Path": f"{server}:/home/other/theirs.e0",
        "Hold_Types": "u",
        "Join_Path": "n",
        "Keep_Files": "n",
        "Mail_Points": "a",
        "mtime": now,
        "Output_Path": f"{server}:/home/other/theirs.o0",
        "Priority": 0,
        "qtime": now,
        "Rerunable": "True",
        "Resource_List": {"ncpus": "1", "nodect": "1", "place": "pack", "select": "1:ncpus=1"},
        "substate": 20,
        "Variable_List": f"{variables},PBS_O_QUEUE=workq,PBS_O_HOST={server}",
        "project": "_pbs_project_default",
        "Submit_Host": server,
    }
    return {
        "id": f"0.{server}",
        "number": 0,
        "index": -1,
        "indices": [],
        "parent": None,
        "attributes": attributes | damage,
    }
