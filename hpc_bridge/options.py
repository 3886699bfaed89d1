"""What the decorators take, for type checkers and editors."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, TypedDict


class JobOptions(TypedDict, total=False):
    """What a decorator takes; every one is a job variable of the pool as well.

    Memory and walltime have units: ``"16G"``, ``"1500M"``; ``"2h"``, ``"90m"``, ``"1-12:00:00"`` or
    a ``timedelta``. GPUs are ``2`` or ``"a100:2"``.
    """

    site: str
    name: str
    comment: str
    account: str
    reservation: str
    constraint: str
    nodes: int
    tasks: int
    tasks_per_node: int
    cpus_per_task: int
    memory: str
    memory_per_cpu: str
    gpus: int | str
    gpus_per_node: int | str
    walltime: str | timedelta
    begin: str
    exclusive: bool
    licenses: str
    nodelist: str
    dependency: str
    requeue: bool
    warning: str
    on_walltime: Literal["end", "resubmit"]
    max_resubmissions: int
    directives: list[str]
    working_directory: str
    env: dict[str, str]
    labels: dict[str, str]
    scheduler: str
    shared_dir: str
    python: str
    setup: list[str] | str
    api_url: str
    template: str
    poll_interval: float
    arrays: bool
    array_throttle: int


class SlurmOptions(JobOptions, total=False):
    """What ``@slurm`` takes."""

    partition: str
    qos: str
    exclude: str


class PBSOptions(JobOptions, total=False):
    """What ``@pbs`` takes."""

    queue: str
