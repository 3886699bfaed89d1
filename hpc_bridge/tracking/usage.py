"""What a job used, as an artifact of its flow run."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)

from hpc_bridge.jobs import JobSpec, JobState, JobStatus, units
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.sites.profile import CostsPart
from hpc_bridge.tracking.explanation import readable_memory

KEY = "hpc-job-usage"
NOT_RECORDED = "not recorded by the site"
_BAR_CELLS = 20
_LOW = 25.0
"""Percent below which less should be asked for."""
_SHORTEST_ADVISED = 60.0
"""Seconds; what a shorter job used says nothing about the next one."""


def usage_markdown(
    usage: JobUsage | None,
    status: JobStatus,
    spec: JobSpec | None,
    costs: CostsPart | None = None,
) -> str:
    """A table with bars, the cost where the site has one, and advice where much was not used."""
    known = usage or JobUsage(
        submitted=status.submitted, started=status.started, ended=status.ended
    )
    parts = [
        f"# Job {status.job_id}: {status.state.value}",
        _table(known, spec),
        _account(known, status, spec, costs),
        *(f"**{line}**" for line in _advice(known, status)),
    ]
    return "\n\n".join(parts) + "\n"


def _table(usage: JobUsage, spec: JobSpec | None) -> str:
    rows = [
        ("", "asked for", "used", "share"),
        ("---", "---", "---", "---"),
        _walltime_row(usage, spec),
        _cpu_row(usage, spec),
        _memory_row(usage, spec),
    ]
    if _has_gpus(usage, spec):
        rows.append(_gpu_row(usage, spec))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _walltime_row(usage: JobUsage, spec: JobSpec | None) -> tuple[str, ...]:
    asked, used = spec.walltime if spec else None, usage.wall_seconds
    share = 100 * used / asked if asked and used is not None else None
    told = units.format_walltime(asked) if asked else "the site's default"
    return "Walltime", told, _ran(usage), _bar(share)


def _cpu_row(usage: JobUsage, spec: JobSpec | None) -> tuple[str, ...]:
    asked = str(usage.cpus) if usage.cpus is not None else None
    if asked is None and spec is not None and spec.cpus_per_task:
        asked = f"{spec.cpus_per_task} per task"
    seconds = usage.cpu_seconds
    used = NOT_RECORDED if seconds is None else f"{_clock(seconds)} of CPU time"
    return "CPUs", asked or NOT_RECORDED, used, _bar(usage.cpu_efficiency)


def _memory_row(usage: JobUsage, spec: JobSpec | None) -> tuple[str, ...]:
    asked = None if usage.memory is None else readable_memory(usage.memory)
    if asked is None and spec is not None and spec.memory:
        asked = f"{units.format_memory(spec.memory)} per node"
    elif asked is None and (spec is None or spec.memory_per_cpu is None):
        asked = "the site's default"
    used = NOT_RECORDED if usage.max_memory is None else readable_memory(usage.max_memory)
    return "Memory", asked or NOT_RECORDED, used, _bar(usage.memory_efficiency)


def _gpu_row(usage: JobUsage, spec: JobSpec | None) -> tuple[str, ...]:
    asked = str(usage.gpus) if usage.gpus is not None else None
    if asked is None and spec is not None:
        asked = spec.gpus or (spec.gpus_per_node and f"{spec.gpus_per_node} per node")
    used = [] if usage.gpu_utilisation is None else [f"{usage.gpu_utilisation:.0f} % busy"]
    if usage.max_gpu_memory is not None:
        used.append(f"{readable_memory(usage.max_gpu_memory)} of memory")
    return (
        "GPUs",
        asked or NOT_RECORDED,
        ", ".join(used) or NOT_RECORDED,
        _bar(usage.gpu_utilisation),
    )


def _has_gpus(usage: JobUsage, spec: JobSpec | None) -> bool:
    if usage.gpus is None and spec is not None:
        return bool(spec.gpus or spec.gpus_per_node)
    return bool(usage.gpus)


def estimated_cost(usage: JobUsage, spec: JobSpec | None, costs: CostsPart) -> float | None:
    """Of the hours that the site charges for; None when one of them is not known."""
    charged = (
        (usage.node_hours, costs.node_hour),
        (usage.cpu_hours, costs.cpu_hour),
        (usage.gpu_hours if _has_gpus(usage, spec) else 0.0, costs.gpu_hour),
    )
    total = 0.0
    for hours, price in charged:
        if price:
            if hours is None:
                return None
            total += hours * price
    return total


def cost_metadata(usage: JobUsage, spec: JobSpec | None, costs: CostsPart | None) -> dict[str, str]:
    """The cost and its unit for programs; empty when it is not known."""
    cost = None if costs is None else estimated_cost(usage, spec, costs)
    if costs is None or cost is None:
        return {}
    return {"estimated_cost": f"{cost:.6g}", "cost_unit": costs.unit}


def _account(
    usage: JobUsage, status: JobStatus, spec: JobSpec | None, costs: CostsPart | None
) -> str:
    """Times and what the job is charged for."""
    queued = usage.queue_seconds
    where = f" on {status.nodes}" if status.nodes and usage.wall_seconds is not None else ""
    lines = [
        f"* In the queue: {NOT_RECORDED if queued is None else _clock(queued)}",
        f"* Run: {_ran(usage)}{where}",
        f"* Node hours: {_hours(usage.node_hours)}",
        f"* CPU hours: {_hours(usage.cpu_hours)}",
    ]
    if _has_gpus(usage, spec):
        lines.append(f"* GPU hours: {_hours(usage.gpu_hours)}")
    if costs is not None:
        cost = estimated_cost(usage, spec, costs)
        told = NOT_RECORDED if cost is None else f"{cost:.2f} {costs.unit}"
        lines.append(f"* Estimated cost: {told}")
    if usage.energy_joules is not None:
        lines.append(f"* Energy: {usage.energy_joules / 3.6e6:.3g} kWh")
    return "\n".join(lines)


def _advice(usage: JobUsage, status: JobStatus) -> list[str]:
    if status.state is not JobState.COMPLETED or (usage.wall_seconds or 0.0) < _SHORTEST_ADVISED:
        return []
    lines = []
    memory = usage.memory_efficiency
    if memory is not None and memory < _LOW and usage.memory:
        lines.append(
            f"It used {memory:.0f} % of {readable_memory(usage.memory)} of memory: a job that asks"
            " for less starts sooner."
        )
    cpu = usage.cpu_efficiency
    if cpu is not None and cpu < _LOW and (usage.cpus or 1) > 1:
        lines.append(
            f"It kept {cpu:.0f} % of {usage.cpus} CPUs busy: ask for fewer, or let it use them."
        )
    gpu = usage.gpu_utilisation
    if gpu is not None and gpu < _LOW and usage.gpus:
        lines.append(f"Its GPUs were busy for {gpu:.0f} % of the time.")
    return lines


def _bar(percent: float | None) -> str:
    if percent is None:
        return ""
    filled = min(_BAR_CELLS, round(percent / 100 * _BAR_CELLS))
    return f"`{'█' * filled}{'░' * (_BAR_CELLS - filled)}` {percent:.0f} %"


def _ran(usage: JobUsage) -> str:
    if usage.wall_seconds is not None:
        return _clock(usage.wall_seconds)
    return "did not start" if usage.started is None and usage.ended is not None else NOT_RECORDED


def _clock(seconds: float) -> str:
    return units.format_walltime(round(seconds))


def _hours(hours: float | None) -> str:
    return NOT_RECORDED if hours is None else f"{hours:.2f}"


async def publish_usage(
    client: PrefectClient,
    flow_run_id: UUID,
    markdown: str,
    usage: JobUsage | None,
    cost: Mapping[str, str] | None = None,
) -> None:
    """Make the artifact of the flow run, or bring the one it has up to date.

    ``cost`` is that of ``cost_metadata``.
    """
    metadata = _metadata(usage) | dict(cost or {})
    mine = await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            key=ArtifactFilterKey(any_=[KEY]),
            flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]),
        )
    )
    for artifact in mine:
        if artifact.data != markdown:
            await client.update_artifact(
                artifact.id, ArtifactUpdate(data=markdown, metadata_=metadata)
            )
    if not mine:
        await client.create_artifact(
            ArtifactCreate(
                key=KEY,
                type="markdown",
                description="What the flow run's job asked for and used.",
                data=markdown,
                metadata_=metadata,
                flow_run_id=flow_run_id,
            )
        )


def _metadata(usage: JobUsage | None) -> dict[str, str]:
    """What programs may want to add up; what is not known is left out."""
    if usage is None:
        return {}
    numbers = {
        "queue_seconds": usage.queue_seconds,
        "wall_seconds": usage.wall_seconds,
        "node_hours": usage.node_hours,
        "cpu_hours": usage.cpu_hours,
        "gpu_hours": usage.gpu_hours,
        "cpu_efficiency": usage.cpu_efficiency,
        "memory_efficiency": usage.memory_efficiency,
        "max_memory_mib": usage.max_memory,
    }
    return {name: f"{number:.6g}" for name, number in numbers.items() if number is not None}
