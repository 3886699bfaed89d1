"""The end of a job, told to a real server: one final state, whoever else tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import states
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import Artifact, State
from prefect.flows import flow

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.jobs.usage import JobUsage
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.outcome import settle
from hpc_bridge.tracking.usage import KEY, publish_usage

pytestmark = pytest.mark.usefixtures("server")


@flow
def plain() -> None: ...


def job(state: JobState, **known: Any) -> JobStatus:
    return JobStatus(JobId("42"), "hbabc", state, state.value, **known)


def with_run(
    state: State[Any], work: Callable[[PrefectClient, UUID], Awaitable[None]]
) -> list[tuple[str | None, str | None]]:
    """(type, name) of all states of a new flow run after ``work``, the first ones left out."""

    async def main() -> list[tuple[str | None, str | None]]:
        async with get_client() as client:
            flow_run = await client.create_flow_run(plain)
            await client.set_flow_run_state(flow_run.id, state, force=True)
            await work(client, flow_run.id)
            history = await client.read_flow_run_states(flow_run.id)
        ordered = sorted(history, key=lambda state: state.timestamp)
        return [(state.type.value, state.name) for state in ordered[2:]]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("before", "end", "name"),
    [
        (states.Pending(name="Queued"), JobState.NODE_FAIL, "NodeFail"),
        (states.Running(), JobState.TIMEOUT, "WalltimeExceeded"),
        (states.Running(), JobState.CANCELLED, "Cancelled"),
        (states.Cancelling(), JobState.CANCELLED, "Cancelled"),
        (states.Cancelling(), JobState.NODE_FAIL, "Cancelled"),
        (states.Paused(timeout_seconds=86400), JobState.NODE_FAIL, "NodeFail"),
    ],
)
def test_many_settlers_set_one_state(
    tmp_path: Path, before: State[Any], end: JobState, name: str
) -> None:
    async def all_at_once(client: PrefectClient, flow_run_id: UUID) -> None:
        run = RunDirectory(tmp_path)
        told = await asyncio.gather(
            *(settle(client, flow_run_id, job(end), run) for _ in range(10))
        )
        assert {state.name for state in told if state is not None} == {name}

    assert [name for _, name in with_run(before, all_at_once)] == [name]


def test_a_flow_that_completes_at_the_same_time_has_one_end(tmp_path: Path) -> None:
    async def both(client: PrefectClient, flow_run_id: UUID) -> None:
        run = RunDirectory(tmp_path)
        await asyncio.gather(
            client.set_flow_run_state(flow_run_id, states.Completed()),
            *(settle(client, flow_run_id, job(JobState.COMPLETED), run) for _ in range(5)),
        )

    for _ in range(5):
        ends = [name for _, name in with_run(states.Running(), both)]
        # The server itself lets a completion follow a crash; a crash never follows a completion.
        assert ends in (["Completed"], ["JobFailed", "Completed"])


@pytest.mark.parametrize(
    ("end", "name"), [(JobState.OUT_OF_MEMORY, "OutOfMemory"), (JobState.CANCELLED, "Cancelled")]
)
def test_a_crash_by_a_signal_is_explained(tmp_path: Path, end: JobState, name: str) -> None:
    async def twice(client: PrefectClient, flow_run_id: UUID) -> None:
        for _ in range(2):
            state = await settle(client, flow_run_id, job(end), RunDirectory(tmp_path))
            assert state is not None
            assert state.name == name

    assert [name for _, name in with_run(states.Crashed(name="Killed"), twice)] == [name]


def test_the_usage_is_one_artifact_of_the_run() -> None:
    found: list[Artifact] = []

    async def thrice(client: PrefectClient, flow_run_id: UUID) -> None:
        await publish_usage(client, flow_run_id, "# first", None)
        await publish_usage(client, flow_run_id, "# second", JobUsage(max_memory=512))
        await publish_usage(client, flow_run_id, "# second", JobUsage(max_memory=512))
        found.extend(
            await client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    key=ArtifactFilterKey(any_=[KEY]),
                    flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]),
                )
            )
        )

    with_run(states.Running(), thrice)
    (artifact,) = found
    assert (artifact.type, artifact.data) == ("markdown", "# second")
    assert artifact.metadata_ == {"max_memory_mib": "512"}
