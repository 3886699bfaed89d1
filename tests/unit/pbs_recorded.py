"""What a real PBS answered, beside what the fake one does."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.fake_pbs.server.forms import Row

DATA = Path(__file__).parents[1] / "data" / "pbs"
RECORDED: dict[str, dict[str, Any]] = {
    entry["name"]: entry
    for path in sorted(DATA.glob("*.jsonl"))
    for entry in map(json.loads, path.read_text().splitlines())
    if "client" not in entry  # those are of the tools of a later version
}
RESEARCHER = {"FAKE_PBS_AS": "researcher"}
RESULT = subprocess.CompletedProcess[bytes]


def stdout_of(entry: dict[str, Any]) -> str:
    """Bytes as characters."""
    if "stdout_hex" in entry:
        return bytes.fromhex(entry["stdout_hex"]).decode("latin-1")
    return str(entry["stdout"])


def records(text: str, is_wide: bool = False) -> list[tuple[str, list[Row]]]:
    """What a full text answer says, by job; broken lines are put together again."""
    text = text if is_wide else text.replace("\n\t", "")
    found = []
    for block in re.split(r"(?m)^Job Id: ", text)[1:]:
        job, _, rest = block.partition("\n")
        rows: list[Row] = []
        for line in re.split(r"\n    (?=[A-Za-z_.]+ = )", "\n" + rest.rstrip("\n"))[1:]:
            name, _, value = line.partition(" = ")
            attribute, dot, resource = name.partition(".")
            rows.append((attribute, resource if dot else None, value))
        found.append((job, rows))
    return found


def without_time(text: str) -> str:
    return re.sub(r'"timestamp":\d+', '"timestamp":0', text)


def same(done: RESULT, entry: dict[str, Any]) -> None:
    """Exit code, words and shape."""
    said = done.returncode, done.stderr.decode(), without_time(done.stdout.decode("latin-1"))
    assert said == (entry["exit_code"], entry["stderr"], without_time(stdout_of(entry)))
