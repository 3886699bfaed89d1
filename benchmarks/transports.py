"""``python -m benchmarks.transports --site DIR [--quick]``: commands over each SSH transport.

Beside them, in turn, bare ``ssh`` over a master of its own, and paramiko without us. It runs on
this machine, and reaches the login host of a test site that is up from outside.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.rows import Row, milliseconds, table
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.openssh import OpenSSHTransport
from hpc_bridge.transports.paramiko import ParamikoTransport
from hpc_bridge.transports.ssh import SSHTransport

TITLE = "transports: one command after another over SSH"
MIB = 2**20
_FOLDER = "/home/researcher/benchmark-transports"


def measure(config: str, quick: bool) -> list[Row]:
    """All in turn, so that each meets the same load of the machine."""
    logins: list[str] = []
    with ExitStack() as stack:
        master = stack.enter_context(_master(config))
        ours: dict[str, SSHTransport] = {
            "openssh": OpenSSHTransport(
                "login", mode="manage", config=config, on_login=logins.append
            ),
            "paramiko": ParamikoTransport("login", config=config, on_login=logins.append),
        }
        for transport in ours.values():
            stack.enter_context(transport)
        bare = [*master, "login", "true"]
        calls: dict[str, Callable[[], object]] = {
            "bare ssh": lambda: subprocess.run(bare, check=True),
            "openssh": lambda: ours["openssh"].run(["true"], timeout=60),
            "paramiko": lambda: ours["paramiko"].run(["true"], timeout=60),
        }
        taken = _in_turn(calls, 20 if quick else 200)
        base = taken["bare ssh"]
        rows = [
            Row(
                f"{name}, one command",
                _tenths(taken[name]),
                f"{_tenths(base)} bare ssh with a master",
                median(taken[name]) / median(base),
                target,
            )
            for name, target in (("openssh", ""), ("paramiko", "<= 5 ms"))
        ]
        rows.append(Row("logins of both in the whole run", str(len(logins)), target="2"))
        return [*rows, *_files(ours, master, 3 if quick else 5)]


def _in_turn(calls: dict[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(count):
        for name, call in calls.items():
            taken[name].append(_seconds(call))
    return taken


def _files(ours: dict[str, SSHTransport], master: list[str], count: int) -> list[Row]:
    """200 small files with a command after them; 64 MiB there and back."""
    small = Files(f"{_FOLDER}/small", {f"f{n}": os.urandom(4096) for n in range(200)})
    large = os.urandom(64 * MIB)
    copy = [*master, "login", f"mkdir -p {_FOLDER}; cat >{_FOLDER}/bare; cat {_FOLDER}/bare"]
    rows = []
    try:
        subprocess.run(copy, input=b"", check=True)
        for name, transport in ours.items():
            many = [_seconds(lambda t=transport: t.run(["true"], timeout=60, files=small))
                    for _ in range(count)]  # fmt: skip
            rows.append(Row(f"{name}, 200 files of 4 KiB and a command", milliseconds(many)))
            calls: dict[str, Callable[[], object]] = {
                "bare": lambda: subprocess.run(copy, input=large, capture_output=True, check=True),
                name: lambda t=transport: _there_and_back(t, large),
            }
            taken = _in_turn(calls, count)
            ratio = median(taken[name]) / median(taken["bare"])
            baseline = f"{milliseconds(taken['bare'])} cat over bare ssh"
            what = f"{name}, 64 MiB there and back, with sums"
            rows.append(Row(what, milliseconds(taken[name]), baseline, ratio))
    finally:
        subprocess.run([*master, "login", f"rm -rf {_FOLDER}"], check=True)
    return rows


def _there_and_back(transport: SSHTransport, content: bytes) -> None:
    transport.put(Files(_FOLDER, {"large": content}))
    if transport.get(f"{_FOLDER}/large") != content:
        raise ValueError("what came back is not what was sent")


@contextmanager
def _master(config: str) -> Iterator[list[str]]:
    """``ssh`` with a master that is open meanwhile."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        ssh = ["ssh", "-F", config, "-S", f"{folder}/m"]
        subprocess.run([*ssh, "-fNM", "login"], check=True, stdin=subprocess.DEVNULL)
        try:
            yield ssh
        finally:
            subprocess.run([*ssh, "-O", "exit", "login"], check=True, stderr=subprocess.DEVNULL)


def _tenths(values: list[float]) -> str:
    """Median, fastest, and what 9 of 10 stay below."""
    ordered = sorted(1000 * value for value in values)
    nine = ordered[len(ordered) * 9 // 10]
    return f"{median(ordered):.1f} ms ({ordered[0]:.1f}-{nine:.1f})"


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transports")
    parser.add_argument("--site", type=Path, required=True, help="folder of a site that is up")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}; Python {sys.version.split()[0]}")
    print(table(TITLE, measure(str(options.site / "ssh_config"), options.quick)))


if __name__ == "__main__":
    main()
