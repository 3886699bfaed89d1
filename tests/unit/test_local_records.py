"""The embedded scheduler: its records, and what follows from them for a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.schedulers.local_directives import Request
from hpc_bridge.schedulers.local_records import Store
from hpc_bridge.schedulers.local_script import base_environment, expand, job_environment
from tests.unit.local_jobs import NOW, record


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "12"), ("state", None), ("restarts", 1.5), ("request", [])],
)
def test_a_record_with_a_wrong_type_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        record(**{field: value})


def test_ids_go_on_when_the_counter_is_lost(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "state"))
    store.prepare()
    assert [store.new_id(), store.new_id()] == [1, 2]
    (tmp_path / "state" / "last_id").write_text("garbage")
    assert store.new_id() == 3
    (tmp_path / "state" / "last_id").unlink()
    assert store.new_id() == 4


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("slurm-%j.out", "slurm-12.out"),
        ("%x-%A_%4j-%u@%N.%t", "train-12_0012-me@laptop.0"),
        ("100%%-%q", "100%-%q"),
        (r"\%j", "%j"),
    ],
)
def test_file_name_patterns(pattern: str, expected: str) -> None:
    assert expand(pattern, record(), "me") == expected


def test_variables_that_were_not_asked_for_are_not_set() -> None:
    plain = job_environment(record(), Request(), "/f", NOW)
    full = job_environment(
        record(restarts=2),
        Request(ntasks_per_node=2, cpus_per_task=1, walltime=60, memory_per_node=512),
        "/f",
        NOW,
    )
    assert {name: full[name] for name in sorted(set(full) - set(plain))} == {
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_END_TIME": str(int(NOW) + 60),
        "SLURM_MEM_PER_NODE": "512",
        "SLURM_NPROCS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_RESTART_COUNT": "2",
    }


def test_what_is_exported() -> None:
    mine = {"A": "1", "SLURM_JOB_ID": "9", "HPC_BRIDGE_LOCAL_JOB": "x", "TMPDIR": "/scratch"}
    assert base_environment("ALL", mine) == {"A": "1", "TMPDIR": "/scratch"}
    assert base_environment("NIL", mine) == {}
    none = base_environment("NONE", mine)
    assert none["TMPDIR"] == "/scratch"
    assert "A" not in none
    assert "SLURM_JOB_ID" not in none
