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
    batch = slurm(memory="500M", walltime="5m", setup=_time_baseline(), poll_interval=1)(first_line)
    baseline, flows, scripts, supervisors = [], [], [], []
    for repetition in range(4 if run.quick else 10):
        future = batch.submit()
        ages = future.result()
        began, ended = _baseline_of(future)
        if repetition == 0:
            continue
        baseline.append(ended - began)
        flows.append(ages["flow"])
        supervisors.append(ages["supervisor"] - ages["flow"])
        scripts.append(ages["script"] - ages["supervisor"] - (ended - began))
    ratio = median(flows) / median(baseline)
    before = [script + supervisor for script, supervisor in zip(scripts, supervisors, strict=True)]
    return [
        Row(
            f"flow process -> first line (median of {len(flows)})",
            seconds(flows),
            f"{seconds(baseline)} {BASELINE}",
            ratio,
            f"<= {TARGET} x",
        ),
        Row("job start -> flow process", milliseconds(before)),
        Row("  of that the job script", milliseconds(scripts)),
        Row("  of that the supervisor", milliseconds(supervisors)),
    ]


def _time_baseline() -> list[str]:
    """Setup lines that leave the baseline's start and end, in microseconds, in the claim."""
    python = shlex.quote(sys.executable)
    return [
        "began=${EPOCHREALTIME/[.,]/}",
        f"{python} -c {shlex.quote(BASELINE)}",
        'echo "$began ${EPOCHREALTIME/[.,]/}" > "$claim/baseline"',
    ]


def _baseline_of(future: Any) -> tuple[float, float]:
    text = (future.run_directory.newest_attempt() / "baseline").read_text()
    began, ended = (int(word) / 1e6 for word in text.split())
    return began, ended
