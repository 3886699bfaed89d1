"""Select statements and ``#PBS`` lines from a neutral request."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import JobSpec, Resources
from hpc_bridge.schedulers.pbs import PBSScheduler
from hpc_bridge.script import is_array, plain_job, render
from tests.unit.rendered_scripts import CONTEXT, HOSTILE

ALWAYS = [
    "-N hbabc",
    "-o /shared/runs/hbabc/job.out",
    "-j oe",
    "-k oed",
    "-W umask=077",
    "-r y",
]


def rendered(values: dict[str, Any] | None = None, **context: Any) -> str:
    spec = JobSpec(name="hbabc", **(values or {}))
    return render(spec, CONTEXT | context, packaged="pbs.sh.j2")


def lines(script: str) -> list[str]:
    found = [line for line in script.splitlines() if line.startswith("#PBS")]
    return [line.removeprefix("#PBS ") for line in found]


def asked(**values: Any) -> list[str]:
    return [line for line in lines(rendered(values)) if line not in ALWAYS]


SELECTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"nodes": 1}, ["select=1:ncpus=1", "place=pack"]),
    ({"nodes": 2}, ["select=2:ncpus=1", "place=scatter"]),
    ({"cpus_per_task": 4}, ["select=1:ncpus=4"]),
    ({"memory": "16G"}, ["select=1:ncpus=1:mem=16gb"]),
    ({"memory": "1500M"}, ["select=1:ncpus=1:mem=1500mb"]),
    ({"memory_per_cpu": "2G", "cpus_per_task": 4}, ["select=1:ncpus=4:mem=8gb"]),
    ({"gpus": 2}, ["select=1:ncpus=1:ngpus=2"]),
    ({"gpus": 4, "nodes": 2}, ["select=2:ncpus=1:ngpus=2", "place=scatter"]),
    ({"gpus_per_node": 2, "nodes": 2}, ["select=2:ncpus=1:ngpus=2", "place=scatter"]),
    ({"tasks": 8}, ["select=8:ncpus=1:mpiprocs=1"]),
    (
        {"tasks": 8, "cpus_per_task": 2, "memory_per_cpu": "1G"},
        ["select=8:ncpus=2:mpiprocs=1:ompthreads=2:mem=2gb"],
    ),
    (
        {"nodes": 2, "tasks_per_node": 4, "cpus_per_task": 2},
        ["select=2:ncpus=8:mpiprocs=4:ompthreads=2", "place=scatter"],
    ),
    (
        {"nodes": 2, "tasks": 5},
        ["select=1:ncpus=3:mpiprocs=3+1:ncpus=2:mpiprocs=2", "place=scatter"],
    ),
    ({"tasks": 8, "tasks_per_node": 4}, ["select=2:ncpus=4:mpiprocs=4"]),
    ({"exclusive": True}, ["select=1:ncpus=1", "place=free:exclhost"]),
    ({"exclusive": True, "nodes": 2}, ["select=2:ncpus=1", "place=scatter:exclhost"]),
    (
        {"nodes": 1, "constraint": "cpu_type=rome:ib=True"},
        ["select=1:ncpus=1:cpu_type=rome:ib=True", "place=pack"],
    ),
    (
        {"nodes": 2, "nodelist": "c1,c2"},
        ["select=1:ncpus=1:host=c1+1:ncpus=1:host=c2", "place=scatter"],
    ),
]
FIELDS: list[tuple[str, object, str]] = [
    ("partition", "gpuq", "-q gpuq"),
    ("reservation", "R123", "-q R123"),
    ("account", "proj", "-A proj"),
    ("walltime", "1d12h", "-l walltime=36:00:00"),
    ("walltime", "90s", "-l walltime=00:01:30"),
    ("begin", "2027-01-31T08:00:00", "-a 202701310800.00"),
    ("begin", "2027-01-31", "-a 202701310000.00"),
    ("dependency", "afterok:12.server", "-W depend=afterok:12.server"),
    ("licenses", "matlab:2", "-l matlab=2"),
    ("licenses", "ansys", "-l ansys=1"),
    ("directives", ["-m abe"], "-m abe"),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"qos": "high"}, "qos"),
    ({"exclude": "c3"}, "exclude"),
    ({"gpus": "a100:2"}, "gpus: PBS counts GPUs without a type"),
    ({"gpus_per_node": "a100:2"}, "gpus_per_node"),
    ({"gpus": 3, "nodes": 2}, "gpus: 3 cannot be shared out"),
    ({"tasks": 8, "memory": "1G"}, "give nodes"),
    ({"nodes": 3, "tasks": 2}, "fewer than nodes"),
    ({"nodelist": "c1,c2"}, "nodelist"),
    ({"nodelist": "c[1-2]", "nodes": 2}, "nodelist"),
    ({"constraint": "skylake&ib"}, "constraint"),
    ({"partition": "a", "reservation": "b"}, "reservation"),
    ({"begin": "now+1hour"}, "begin"),
    ({"licenses": "matlab:many"}, "licenses"),
    ({"directives": ["-l select=2:ncpus=4"], "nodes": 2}, "nodes"),
    ({"directives": ["-l place=excl"], "exclusive": True}, "exclusive"),
]


def test_nothing_is_said_of_what_is_not_asked_for() -> None:
    assert lines(rendered()) == ALWAYS


@pytest.mark.parametrize(("values", "expected"), SELECTS)
def test_the_select_statement(values: dict[str, Any], expected: list[str]) -> None:
    assert asked(**values) == [f"-l {line}" for line in expected]


@pytest.mark.parametrize(("field", "value", "line"), FIELDS)
def test_a_field_gives_its_line_and_nothing_else(field: str, value: object, line: str) -> None:
    assert asked(**{field: value}) == [line]


def test_every_field_is_rendered_refused_or_somebody_elses() -> None:
    covered = {field for values, _ in (*SELECTS, *REFUSED) for field in values}
    covered |= {field for field, _, _ in FIELDS}
    # The journal has the comment; the script itself gives the warning; requeue is always said.
    elsewhere = {"comment", "warning", "requeue"}
    elsewhere |= {"working_directory", "on_walltime", "max_resubmissions"}
    assert covered | elsewhere == set(Resources.model_fields)
    assert not covered & elsewhere


@pytest.mark.parametrize(("values", "match"), REFUSED)
def test_what_pbs_cannot_say_is_refused_in_words(values: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidJobSpec, match=re.escape(match)):
        rendered(values)


def test_a_select_of_ones_own_takes_the_place_of_ours() -> None:
    own = ["-l select=1:ncpus=4:mem=1gb+3:ncpus=1"]
    assert asked(directives=own, walltime="1h") == ["-l walltime=01:00:00", *own]


def test_requeueing_is_on_unless_it_is_refused() -> None:
    assert "-r n" in lines(rendered({"requeue": False}))
    assert "-r y" in lines(rendered({"requeue": True}))


def test_what_a_site_calls_its_gpus_and_accounts() -> None:
    script = rendered({"gpus": 2, "account": "p1"}, gpu_resource="ngpu2", account_option="-P")
    assert "-l select=1:ncpus=1:ngpu2=2" in lines(script)
    assert "-P p1" in lines(script)


@pytest.mark.parametrize("field", ["partition", "account", "dependency"])
@pytest.mark.parametrize("value", [*HOSTILE, "a\\", "a;b", "é", "a\u2028b", "a'b", "a b", "#x"])
def test_no_value_reaches_a_directive_that_qsub_could_read_otherwise(
    field: str, value: str
) -> None:
    if re.fullmatch(r"[-A-Za-z0-9_@%+=:,./\[\]^~]+", value):
        assert len(asked(**{field: value})) == 1
        return
    with pytest.raises(InvalidJobSpec, match=r"cannot stand in a #PBS line|line break|holds"):
        rendered({field: value})


def test_the_environment_is_not_in_the_script() -> None:
    script = rendered({"environment": {"TOKEN": "s3cret"}})
    assert "s3cret" not in script
    assert not [line for line in lines(script) if re.match(r"-[vV]\b", line)]


def test_every_line_is_one_that_qsub_takes() -> None:
    for values, _ in SELECTS:
        for line in lines(rendered(values)):
            own = any(line.startswith(f"{option} ") for option in ("-N", "-o", "-j", "-k", "-r"))
            if not own and "umask" not in line:
                PBSScheduler().check_directives([line])


def test_an_array_has_an_output_file_for_each_element() -> None:
    script = rendered(array="0-3%2")
    assert "-J 0-3%2" in lines(script)
    assert "-o /shared/runs/hbabc/^array_index^/job.out" in lines(script)
    assert is_array(script)
    assert PBSScheduler().job_count(script) == 4
    plain = plain_job(script)
    assert lines(plain) == ALWAYS
    assert not is_array(plain)
