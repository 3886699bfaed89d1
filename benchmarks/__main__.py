"""``python -m benchmarks [NAME]... [--scheduler slurm|local] [--site DIR] [--quick]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import transports
from benchmarks.places import NoSite, Place, test_site, this_machine
from benchmarks.rows import Row, table
from hpc_bridge.cli.server import own_server

USUAL = ("node", "submission", "polling", "results", "transports", "ends", "worker")
NAMES = (*USUAL, "bursts")
# Else the server marks each run of a burst as late, and SQLite locks out what the worker asks.
_SERVER_PROFILE = """
active = "benchmarks"
[profiles.benchmarks]
PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS = "86400"
"""
_NEED_SLURM = {"transports", "ends", "worker", "bursts"}
_NEED_SERVER = {"node", "submission", "results", "ends", "worker", "bursts"}


def main() -> None:
    """Bring up what is needed, run, print a table per benchmark as it comes."""
    options = _options()
    names = options.names or USUAL
    began = time.monotonic()
    with ExitStack() as stack:
        place = stack.enter_context(_place(options))
        api_url = stack.enter_context(_server(place)) if _NEED_SERVER & set(names) else None
        print(f"{place.description}; {os.cpu_count()} cores; Python {sys.version.split()[0]}")
        for name in names:
            if name in _NEED_SLURM and place.scheduler != "slurm":
                print(f"\n{name}: only on a Slurm site")
                continue
            if place.ssh_config is not None and name == "transports":
                rows = transports.measure(str(place.ssh_config), options.quick)
                print(f"\n{table(transports.TITLE, rows)}", flush=True)
                continue
            argv = [sys.executable, "-m", "benchmarks.inside", name]
            argv += [place.scheduler, str(place.shared), *(["--quick"] if options.quick else [])]
            answer = json.loads(place.run(argv, api_url).splitlines()[-1])
            print(f"\n{table(answer['title'], [Row(**row) for row in answer['rows']])}", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(NAMES)}; default: all but bursts, which takes minutes",
    )
    parser.add_argument(
        "--scheduler",
        choices=("slurm", "local"),
        help="default: the Slurm test site where it can be, else the embedded scheduler",
    )
    parser.add_argument("--site", type=Path, help="folder of a test site that is up already")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    return options


@contextmanager
def _place(options: argparse.Namespace) -> Iterator[Place]:
    with ExitStack() as stack:
        if options.scheduler == "local":
            yield stack.enter_context(this_machine())
            return
        try:
            place = stack.enter_context(test_site(options.site))
        except NoSite as reason:
            if options.scheduler == "slurm":
                raise SystemExit(f"benchmarks: {reason}") from None
            print(f"no test site, so on the embedded scheduler: {reason}")
            place = stack.enter_context(this_machine())
        yield place


@contextmanager
def _server(place: Place) -> Iterator[str]:
    host = "0.0.0.0" if place.enter else "127.0.0.1"
    with tempfile.TemporaryDirectory(prefix="hpc-bridge-benchmarks-server-") as home:
        Path(home, "profiles.toml").write_text(_SERVER_PROFILE)
        with own_server(Path(home), host=host) as url:
            yield url


if __name__ == "__main__":
    main()
