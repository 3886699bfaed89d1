"""The form of a site's pool, judged as the server judges it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate

from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.template import LARGEST, SMALLEST, site_template
from hpc_bridge.workers import PBSWorker, SlurmWorker

CPU: dict[str, Any] = {
    "name": "cpu",
    "description": "Plain nodes",
    "default": True,
    "walltime": "2d",
    "nodes": 10,
    "nodes_per_job": 4,
    "cpus_per_node": 32,
    "memory_per_node": "128G",
}
GPU: dict[str, Any] = {
    "name": "gpu",
    "walltime": "1d",
    "nodes": 2,
    "cpus_per_node": 64,
    "memory_per_node": "256G",
    "gpus_per_node": {"a100": 4, "t4": 2},
}


def template(**profile: Any) -> dict[str, Any]:
    profile = {"name": "hpc", "scheduler": {"type": "slurm"}, **profile}
    made = SiteProfile.model_validate(profile)
    return site_template(made, SlurmWorker.get_default_base_job_template())


def fields(**profile: Any) -> dict[str, Any]:
    found: dict[str, Any] = template(**profile)["variables"]["properties"]
    return found


def taken(form: dict[str, Any], name: str, value: Any) -> bool:
    """Whether the server would take it for a deployment."""
    schema = {"type": "object", "properties": form}
    return not validate({name: value}, schema, allow_none_with_default=True)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("partition", ["cpu", "gpu", "cpu,gpu"], ["big", "", "cpu,big", 1]),
        ("nodes", [1, 4], [0, 5, "2"]),
        ("cpus_per_task", [64], [65]),
        ("walltime", ["2h", "1d12h", "90 m", "01:30:00", "1-12", "1-12:00:00"], ["5", "1:30", 60]),
        ("memory", ["16G", "1500M", "1.5 GiB"], ["16", "lots", 16]),
        ("gpus_per_node", ["a100:4", "t4:2", 6, "6"], ["a100:5", "t4:3", "h100:1", 7, 0]),
        ("gpus", ["a100:8", "t4:4", 12, "12"], ["a100:9", "v100:1", 13]),
        ("account", ["bio"], ["chem"]),
        ("scheduler", ["slurm"], ["local"]),
        ("site", ["hpc"], ["other"]),
    ],
)
def test_the_form_takes_what_the_site_has(name: str, good: list[Any], bad: list[Any]) -> None:
    form = fields(partitions=[CPU, GPU], accounts=["bio"])
    assert [value for value in good if not taken(form, name, value)] == []
    assert [value for value in bad if taken(form, name, value)] == []


def test_every_field_may_be_left_empty_that_could_be_before() -> None:
    plain = SlurmWorker.get_default_base_job_template()["variables"]["properties"]
    form = fields(partitions=[CPU, GPU], accounts=["bio"], qos=["normal"])
    optional = [name for name in plain if taken(plain, name, None)]
    assert "partition" in optional
    assert [name for name in optional if not taken(form, name, None)] == []


@pytest.mark.parametrize("name", ["partition", "account", "qos", "gpus", "gpus_per_node"])
def test_choices_are_drawn_as_a_menu(name: str) -> None:
    # The page draws the first kind of an anyOf, unless its default is null; an enum that is not all
    # text is no menu to it.
    form = fields(partitions=[CPU, GPU], accounts=["bio"], qos=["normal"])
    first, *_, last = form[name]["anyOf"]
    assert first["type"] == "string"
    assert first["enum"]
    assert all(isinstance(choice, str) for choice in first["enum"])
    assert last == {"type": "null"}
    assert "default" not in form[name]


def test_the_servers_words_about_a_wrong_partition_name_the_right_ones() -> None:
    import jsonschema

    schema = {"type": "object", "properties": fields(partitions=[CPU, GPU])}
    with pytest.raises(jsonschema.ValidationError, match=r"'big' is not one of \['cpu', 'gpu'\]"):
        jsonschema.validate({"partition": "big"}, schema)


def test_what_the_profile_does_not_say_is_not_restricted() -> None:
    plain = SlurmWorker.get_default_base_job_template()["variables"]["properties"]
    form = fields()
    for name in ("partition", "account", "qos", "nodes", "gpus", "cpus_per_task", "constraint"):
        assert form[name]["anyOf"] == plain[name]["anyOf"]


def test_a_limit_that_one_partition_lacks_is_no_limit() -> None:
    unlimited = {name: value for name, value in GPU.items() if name not in ("nodes", "walltime")}
    form = fields(partitions=[CPU, unlimited])
    assert taken(form, "nodes", 1000)
    assert taken(form, "gpus", "a100:1000")
    assert not taken(form, "gpus", "h100:1")
    assert LARGEST not in form["walltime"]["anyOf"][0]


def test_a_site_without_gpus_takes_none() -> None:
    form = fields(partitions=[CPU])
    assert not taken(form, "gpus", 1)
    assert taken(form, "gpus", None)
    assert "has none" in form["gpus"]["description"]


def test_rules_narrow_what_partitions_allow_and_set_defaults() -> None:
    form = fields(
        partitions=[CPU, GPU],
        job_variables={
            "nodes": {"minimum": 2, "maximum": 3, "default": 2},
            "walltime": {"minimum": "10m", "maximum": "12h", "default": "1h"},
            "gpus_per_node": {"maximum": 2, "default": 1},
            "qos": {"choices": ["short", "long"]},
            "partition": {"choices": ["cpu"], "default": "cpu"},
            "exclusive": {"choices": [True], "default": True},
            "tasks": {"choices": [1, 8]},
        },
    )
    assert [taken(form, "nodes", count) for count in (1, 2, 3, 4)] == [False, True, True, False]
    assert form["walltime"]["anyOf"][0][LARGEST] == "12:00:00"
    assert form["walltime"]["anyOf"][0][SMALLEST] == "00:10:00"
    assert "At least 10 minutes. At most 12 hours." in form["walltime"]["description"]
    assert form["gpus_per_node"]["anyOf"][0]["enum"] == [
        "1",
        "2",
        "a100:1",
        "a100:2",
        "t4:1",
        "t4:2",
    ]
    assert taken(form, "qos", "short")
    assert not taken(form, "qos", "normal")
    assert not taken(form, "partition", "gpu")
    assert not taken(form, "exclusive", False)
    assert taken(form, "tasks", 8)
    assert not taken(form, "tasks", 2)
    defaults = {name: field.get("default") for name, field in form.items()}
    assert defaults["nodes"] == 2
    assert defaults["walltime"] == "1h"
    assert defaults["gpus_per_node"] == "1"
    assert defaults["partition"] == "cpu"
    assert defaults["exclusive"] is True


def test_the_sites_own_words_are_on_the_form() -> None:
    form = fields(
        partitions=[CPU, GPU],
        accounts=[{"name": "bio", "description": "Biology"}],
        job_variables={"comment": {"description": "Name your grant."}},
    )
    about = form["partition"]["description"]
    assert "• cpu: Plain nodes; at most 2 days, 4 nodes, 32 CPUs, 128G •" in about
    assert "• gpu: at most 1 day, 2 nodes, 64 CPUs, 256G, 4 a100 GPUs, 2 t4 GPUs" in about
    assert "That is cpu." in about
    assert "• bio: Biology" in form["account"]["description"]
    assert form["comment"]["description"] == "Name your grant."


def test_what_is_executed_is_not_in_the_pool(tmp_path: Path) -> None:
    made = template(
        scheduler={"type": "slurm", "commands": {"sbatch": "/opt/wrapped sbatch"}},
        environment={
            "modules": ["a-module"],
            "prologue": "a-prologue",
            "python": "/opt/python",
            "template": "a-template\nof lines",
        },
    )
    text = repr(made)
    for executed in ("wrapped", "a-module", "a-prologue", "a-template"):
        assert executed not in text
    assert "default" not in made["variables"]["properties"]["python"]
    assert "At this site: /opt/python." in made["variables"]["properties"]["python"]["description"]


def test_defaults_come_from_the_profile() -> None:
    form = fields(
        scheduler={
            "type": "local",
            "poll_interval": 5,
            "shortest_poll_interval": 2,
            "arrays": False,
        },
        paths={"shared_dir": "/lustre/{user}/hpc"},
        network={"api_url": "http://login:4200/api"},
    )
    defaults = {name: field.get("default") for name, field in form.items()}
    assert defaults["site"] == "hpc"
    assert defaults["scheduler"] == "local"
    assert defaults["shared_dir"] == "/lustre/{user}/hpc"
    assert defaults["api_url"] == "http://login:4200/api"
    assert defaults["poll_interval"] == 5
    assert defaults["arrays"] is False
    assert not taken(form, "poll_interval", 1)


def test_a_long_menu_becomes_a_pattern() -> None:
    big = {**GPU, "nodes": 500}
    text = fields(partitions=[big])["gpus"]["anyOf"][0]
    assert "enum" not in text
    form = fields(partitions=[big])
    assert taken(form, "gpus", "a100:128")
    assert not taken(form, "gpus", "h100:1")
    assert not taken(form, "gpus", "a100:0")
    assert not taken(form, "gpus", 500 * 6 + 1)


def test_every_default_is_one_that_the_form_takes() -> None:
    from hpc_bridge.data import data_folder
    from hpc_bridge.sites.files import read_profile

    base = SlurmWorker.get_default_base_job_template()
    for file in data_folder("site_configs").glob("*.yaml"):
        form = site_template(read_profile(file), base)["variables"]["properties"]
        wrong = {
            name: field["default"]
            for name, field in form.items()
            if "default" in field and not taken(form, name, field["default"])
        }
        assert wrong == {}, file


def pbs_fields(**profile: Any) -> dict[str, Any]:
    made = SiteProfile.model_validate({"name": "p", "scheduler": {"type": "pbs"}, **profile})
    form = site_template(made, PBSWorker.get_default_base_job_template())
    found: dict[str, Any] = form["variables"]["properties"]
    return found


def test_a_site_with_pbs_offers_queues_and_plain_numbers_of_gpus() -> None:
    form = pbs_fields(queues=[CPU, {**GPU, "gpus_per_node": {"a100": 4}}])
    assert form["partition"]["title"] == "Queue"
    assert taken(form, "partition", "gpu")
    assert not taken(form, "partition", "cpu,gpu")  # Slurm alone takes a list
    for value, is_right in ((4, True), ("4", True), (5, False), ("a100:2", False)):
        assert taken(form, "gpus_per_node", value) is is_right, value
    assert not {"qos", "exclude"} & set(form)


def test_no_type_of_gpu_is_taken_where_pbs_has_not_said_which_there_are() -> None:
    form = pbs_fields(job_variables={"gpus": {"maximum": 200}})
    assert taken(form, "gpus", "150")
    assert not taken(form, "gpus", "a100:2")


def test_rules_for_the_queue_are_on_the_form() -> None:
    rules = {"queue": {"default": "gpu", "description": "Ask us."}}
    field = pbs_fields(queues=[CPU, GPU], job_variables=rules)["partition"]
    assert field["default"] == "gpu"
    assert field["description"].startswith("Ask us.")
