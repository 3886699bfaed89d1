"""The link from a flow run to its job, as labels that can be searched for."""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient

from hpc_bridge.settings import load_settings
from hpc_bridge.tracking.job import TrackedJob


async def label_flow_run(client: PrefectClient, job: TrackedJob) -> None:
    """Say on the flow run which job of which cluster it is; raises as the client does."""
    await client.update_flow_run_labels(
        job.flow_run_id,
        {
            "hpc-bridge.scheduler": job.scheduler,
            "hpc-bridge.site": job.site or load_settings().site or job.scheduler,
            "hpc-bridge.job-id": str(job.job_id),
            "hpc-bridge.submission": job.run.submission_id,
        },
    )
