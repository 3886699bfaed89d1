"""Transports: commands, submissions and files over each, from outside of a test site.

Beside them, in turn, bare ``ssh`` over a master of its own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from uuid import uuid4

from benchmarks.rows import Row, milliseconds
from hpc_bridge.cluster import Cluster
from hpc_bridge.journal import new_submission_id
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.openssh import OpenSSHTransport
from hpc_bridge.transports.paramiko import ParamikoTransport
from hpc_bridge.transports.ssh import SSHTransport

TITLE = "transports: one after another over SSH, from outside of the site"
MIB = 2**20
_FOLDER = "/home/researcher/benchmark-transports"
_FILES = ("tracker.0", "job.out", "job.sh", "env", "submission.json")
# Held, so that none of them runs while the next is submitted.
_SCRIPT = "#!/bin/sh\n#SBATCH --hold --time=1 --mem=10M --output=/dev/null\n" + "# x\n" * 500


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
        rows += _submissions(ours, master, 20 if quick else 200)
        rows += _files(ours, master, 3 if quick else 5)
        rows.append(Row("logins of both in the whole run", str(len(logins)), target="2"))
        return rows


def _submissions(ours: dict[str, SSHTransport], master: list[str], count: int) -> list[Row]:
    """What a flow run's submission is: its files and sbatch, in one remote command."""
    clusters = {name: Cluster(SlurmScheduler(), transport) for name, transport in ours.items()}
    names: list[str] = []

    def submit(cluster: Cluster) -> None:
        names.append(name := new_submission_id())
        files = {f"live/{name}": b"", **{f"runs/{name}/{file}": b"x" * 2000 for file in _FILES}}
        below = f"bundles/{uuid4()}"
        files[f"{below}/bundle.json"] = os.urandom(20_000)
        links = {f"runs/{name}/0/bundle.json": f"{below}/bundle.json"}
        run_dir = f"{_FOLDER}/runs/{name}"
        cluster.submit(_SCRIPT, name, files=Files(_FOLDER, files, links), run_dir=run_dir)

    bare = [*master, "login", "sbatch --parsable"]
    calls: dict[str, Callable[[], object]] = {
        "bare ssh": lambda: subprocess.run(
            bare, input=_SCRIPT.encode(), check=True, capture_output=True
        ),
        "openssh": lambda: submit(clusters["openssh"]),
        "paramiko": lambda: submit(clusters["paramiko"]),
    }
    try:
        taken = _in_turn(calls, count)
    finally:
        subprocess.run([*master, "login", f"scancel --me; rm -rf {_FOLDER}"], check=True)
    baseline = f"{_tenths(taken['bare ssh'])} sbatch over bare ssh, without any file"
    return [
        Row(
            f"{name}, one submission with its files",
            _tenths(taken[name]),
            baseline,
            median(taken[name]) / median(taken["bare ssh"]),
        )
        for name in ours
    ]


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
