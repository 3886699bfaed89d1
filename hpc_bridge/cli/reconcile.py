"""``hpc-bridge reconcile``: what a worker does when it starts, once and for every pool."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from rich.console import Console

from hpc_bridge.cli.here import Here
from hpc_bridge.errors import (
    HPCBridgeError,
    ServerUnreachable,
    SettingsError,
    SubmissionRefused,
    TemplateError,
)
from hpc_bridge.journal import prepare_shared_directory
from hpc_bridge.storage.cluster_files import ClusterFiles
from hpc_bridge.tracking.adoption import Orphan, find_jobs, index_older_runs, orphans
from hpc_bridge.tracking.job import TrackedJob
from hpc_bridge.tracking.keeper import Keeper
from hpc_bridge.tracking.unsubmitted import give_up, may_submit, refuse

_PAGE = 200


def reconcile(console: Console, here: Here) -> int:
    """Give every flow run the state that its job's records call for; returns the exit code."""
    if not get_current_settings().api.url:
        raise SettingsError("there is no Prefect server: set PREFECT_API_URL to the shared server")
    shared = prepare_shared_directory(here.shared, here.files)
    try:
        counts = asyncio.run(_reconcile(shared, here.files, console))
    except httpx.TransportError as error:
        raise ServerUnreachable(f"the Prefect server does not answer: {error}") from error
    if not counts:
        console.print("Nothing to do: every submission's end is told, or a process looks after it.")
    return 1 if counts["failed"] else 0


async def _reconcile(shared: Path, files: ClusterFiles, console: Console) -> Counter[str]:
    counts: Counter[str] = Counter()
    await asyncio.to_thread(index_older_runs, shared, files)
    async with get_client() as client:
        pools = await _pool_ids(client)
        found = await asyncio.to_thread(
            # Those of another server's pools are not for this one to judge.
            lambda: list(
                orphans(shared, files, lambda _, run: run.get("work_pool_id") in {None, *pools})
            )
        )
        keeper = Keeper(client)
        jobs: list[TrackedJob] = []
        for orphan in found:
            try:
                jobs += await _jobs_of(client, orphan, counts, console)
            except (HPCBridgeError, OSError, ValueError) as error:
                counts["failed"] += 1
                console.print(f"{orphan.run.submission_id}: {error}", style="red")
        with console.status(f"asking the scheduler about {len(jobs)} jobs ..."):
            outcomes = await asyncio.gather(*(_bring_up(keeper, client, job) for job in jobs))
    for job, outcome in zip(jobs, outcomes, strict=True):
        counts[outcome] += 1
        console.print(f"job {job.job_id} ({job.run.submission_id}): {outcome}", highlight=False)
    return counts


async def _pool_ids(client: PrefectClient) -> set[str]:
    found: set[str] = set()
    while page := await client.read_work_pools(limit=_PAGE, offset=len(found)):
        found.update(str(pool.id) for pool in page)
    return found


async def _jobs_of(
    client: PrefectClient, orphan: Orphan, counts: Counter[str], console: Console
) -> list[TrackedJob]:
    try:
        wanted = await may_submit(client, orphan)
        jobs = await asyncio.to_thread(find_jobs, orphan, may_submit=wanted)
    except (SubmissionRefused, TemplateError) as refusal:
        await refuse(client, orphan, refusal)
        raise
    if jobs is None:
        counts["on its way"] += 1
        console.print(f"{orphan.run.submission_id}: may still be on its way; try again in a while")
        return []
    if not jobs:
        await give_up(client, orphan)
        counts["given up"] += 1
        console.print(f"{orphan.run.submission_id}: was never submitted, and its run has ended")
    return jobs


async def _bring_up(keeper: Keeper, client: PrefectClient, job: TrackedJob) -> str:
    """Until the job's flow run is told, or its job is seen to live."""
    try:
        flow_run = await client.read_flow_run(job.flow_run_id)
    except ObjectNotFound:
        if (await asyncio.to_thread(job.run.read_submission)).get("work_pool_id") is None:
            # Format 1 does not tell servers apart.
            return "its flow run is not known to this server"
        await asyncio.to_thread(job.run.settle, job.element, flow_state=None)
        return "its flow run has been deleted"
    if flow_run.infrastructure_pid != str(job.reference):
        await client.update_flow_run(flow_run.id, infrastructure_pid=str(job.reference))
    lives = asyncio.Event()
    follow = asyncio.ensure_future(keeper.follow(job, lives.set))
    seen = asyncio.ensure_future(lives.wait())
    waiting = {follow, seen}
    if flow_run.state is not None and flow_run.state.is_cancelling():
        await asyncio.sleep(0)
        await keeper.look_for_cancelling()
        waiting = {follow}  # which takes the job out of the queue, or ends it after a grace time
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    seen.cancel()
    if follow.done():
        state = follow.result()
        return f"its flow run is {state.name}" if state is not None else "its flow run is gone"
    follow.cancel()
    await asyncio.gather(follow, return_exceptions=True)
    return "lives"
