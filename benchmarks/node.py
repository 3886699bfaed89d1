"""Node side: from the start of the flow's process to the flow's first line.

Each repetition is one job. Its setup lines time the baseline on the node, in the same job, just
before; the flow reads from /proc when its process, the supervisor and the job script were started.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from prefect import flow

from benchmarks.rows import Row, Run, milliseconds, seconds
from hpc_bridge import slurm

TITLE = "node: process start -> first line of the flow"
BASELINE = "import prefect.flow_engine"
# The interpreter's exit takes part of the baseline's time, and the flow's first line comes before.
STRICT = f"{BASELINE}, os; os._exit(0)"
TARGET = 1.3


@flow
def first_line() -> dict[str, Any]:
    """Seconds from the start of this process and of its two ancestors to the first line."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ages = []
    process = os.getpid()
    for _ in range(3):
        # proc(5): 4 is the parent, 22 the start in clock ticks since boot.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ages.append(now - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
        process = int(fields[1])
    return dict(zip(("flow", "supervisor", "script"), ages, strict=True))


def measure(run: Run) -> list[Row]:
    """Run the jobs one after the other; the first only warms caches."""
    batch = slurm(memory="500M", walltime="5m", setup=_time_baselines(), poll_interval=1)(
        first_line
    )
    jobs = [_run(batch) for _ in range(4 if run.quick else 9)][1:]
    flows, imports, strict, before, supervisors = (
        [job[name] for job in jobs] for name in ("flow", "import", "strict", "before", "supervisor")
    )
    return [
        Row(
            f"flow process -> first line (median of {len(jobs)})",
            seconds(flows),
            f'{seconds(imports)} python -c "{BASELINE}"',
            median(flows) / median(imports),
            f"<= {TARGET} x",
        ),
        Row(
            "",
            "",
            f"{seconds(strict)} the same without the interpreter's exit",
            median(flows) / median(strict),
        ),
        Row("job start -> flow process", milliseconds(before)),
        Row("  of that the supervisor", milliseconds(supervisors)),
    ]


def _time_baselines() -> list[str]:
    """Setup lines that leave the times around both baselines, in microseconds, in the claim."""
    python = shlex.quote(sys.executable)
    now = "${EPOCHREALTIME/[.,]/}"
    return [
        f"times={now}",
        f"{python} -c {shlex.quote(BASELINE)}",
        f'times="$times {now}"',
        f"{python} -c {shlex.quote(STRICT)}",
        f'echo "$times {now}" > "$claim/baseline"',
    ]


def _run(batch: Any) -> dict[str, float]:
    """Seconds of one job's steps, those of /proc to 10 ms; the baselines' time is taken out."""
    future = batch.submit()
    age = future.result()
    times = (future.run_directory.newest_attempt() / "baseline").read_text().split()
    began, between, ended = (int(time) / 1e6 for time in times)
    return {
        "import": between - began,
        "strict": ended - between,
        "flow": age["flow"],
        "supervisor": age["supervisor"] - age["flow"],
        "before": age["script"] - age["flow"] - (ended - began),
    }
