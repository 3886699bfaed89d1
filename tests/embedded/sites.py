"""What tests of published profiles share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectNotFound

from hpc_bridge.cli.publishing import publish_profile

CPU = {"name": "cpu", "walltime": "1d", "nodes": 4, "memory_per_node": "64G", "default": True}
GPU = {"name": "gpu", "walltime": "1d", "nodes": 2, "gpus_per_node": {"a100": 4}}


def write_profile(folder: Path, name: str, **content: Any) -> Path:
    """A file with a profile of the embedded scheduler."""
    content = {"name": name, "scheduler": {"type": "local"}, "partitions": [CPU, GPU], **content}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def publish(folder: Path, name: str, **content: Any) -> Path:
    """Publish such a profile; returns its file."""
    file = write_profile(folder, name, **content)
    assert publish_profile(file, yes=True) == 0
    return file


def pool(name: str) -> WorkPool:
    """As the server has it now."""
    with get_client(sync_client=True) as client:
        return client.read_work_pool(name)


def pool_exists(name: str) -> bool:
    """Whether the server has it."""
    try:
        pool(name)
    except ObjectNotFound:
        return False
    return True


def default(name: str, variable: str) -> Any:
    """What the pool's form begins with."""
    return pool(name).base_job_template["variables"]["properties"][variable].get("default")


def choices(name: str, variable: str) -> list[str]:
    """What the pool's form offers."""
    field = pool(name).base_job_template["variables"]["properties"][variable]
    found: list[str] = field["anyOf"][0]["enum"]
    return found
