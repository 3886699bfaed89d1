"""``hpc-bridge demo``: the main job on the embedded scheduler, with everything to look at."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hpc_bridge.cli.server import own_server
from hpc_bridge.data import data_folder

_TAIL_LINES = 12


def run_demo(console: Console, *, serve: bool, folder: Path | None) -> None:
    """Start a server, submit the example, follow it, and show what it left."""
    folder = (folder or Path(tempfile.mkdtemp(prefix="hpc-bridge-demo-"))).resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    console.print(f"[bold]hpc-bridge demo[/] in {folder}", soft_wrap=True)
    with console.status("starting a Prefect server of its own (SQLite) ...") as status:
        server = own_server(
            folder / "prefect",
            waiting=lambda seconds: status.update(
                f"starting a Prefect server of its own (SQLite) ... {seconds:.0f} s"
            ),
        )
        url = server.__enter__()
    try:
        console.print(f"Prefect server at {url}")
        _point_prefect_at(url, folder)
        _run_example(console, url)
        if serve:
            console.print("The server stays up; end it with Ctrl-C.")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
        else:
            console.print("The server ends now; `hpc-bridge demo --serve` keeps it up.")
    finally:
        server.__exit__(None, None, None)


def _point_prefect_at(url: str, folder: Path) -> None:
    """Before Prefect is imported: its settings are read from the environment once."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "HPC_BRIDGE_"))]:
        del os.environ[name]
    os.environ |= {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "HPC_BRIDGE_CONFIG": os.devnull,
        "HPC_BRIDGE_SCHEDULER": "local",
        "HPC_BRIDGE_SHARED_DIR": str(folder / "shared"),
    }


def _run_example(console: Console, url: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.flows import load_flow_from_entrypoint

    example = data_folder("examples") / "pi.py"
    console.print(f"submitting estimate_pi of {example}", soft_wrap=True)
    flow: Any = load_flow_from_entrypoint(f"{example}:estimate_pi", use_placeholder_flow=False)
    future = flow.submit()
    console.print(f"job {future.job_id} is in the queue of the embedded scheduler")
    run = future.run_directory
    with get_client(sync_client=True) as client:
        _follow(console, client, future)
        flow_run = client.read_flow_run(future.flow_run_id)
        states = client.read_flow_run_states(future.flow_run_id)
    result = future.result()

    table = Table("state", "at (UTC)", title=f"States of flow run {flow_run.name}")
    for state in states:
        table.add_row(state.name, f"{state.timestamp:%H:%M:%S.%f}"[:-3])
    console.print(table)
    console.rule(f"the last lines of the job's output ({run.output()})")
    console.print(run.output_tail(_TAIL_LINES), markup=False, highlight=False)
    console.rule()
    console.print(f"job script: {run.path / 'job.sh'}", soft_wrap=True)
    console.print(f"result:     {result}")
    dashboard = url.removesuffix("/api")
    console.print(f"dashboard:  {dashboard}/runs/flow-run/{future.flow_run_id}", soft_wrap=True)


def _follow(console: Console, client: Any, future: Any) -> None:
    """Print each state as it comes."""
    shown: set[str] = set()
    with console.status("waiting for the job ..."):
        while True:
            state = client.read_flow_run(future.flow_run_id).state
            if state.name not in shown:
                shown.add(state.name)
                console.print(f"  {time.strftime('%H:%M:%S')}  {state.name}")
            if state.is_final():
                return
            future.wait(timeout=0.5)
