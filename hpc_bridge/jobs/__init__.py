"""The neutral vocabulary: what is asked of a job and what is known of it."""

from hpc_bridge.jobs.spec import JobSpec, Resources
from hpc_bridge.jobs.states import NEVER_STARTED, JobId, JobState, JobStatus

__all__ = ["NEVER_STARTED", "JobId", "JobSpec", "JobState", "JobStatus", "Resources"]
