"""The profiles and the JSON schema that ship with the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from pydantic import BaseModel

from hpc_bridge.jobs.units import format_walltime
from hpc_bridge.sites.files import load_site
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.schema import profile_schema, schema_text
from hpc_bridge.sites.yaml_text import load
from tests.unit.site_folders import SiteFolders

FOLDER = Path(__file__).parents[2] / "site_configs"
PROFILES = sorted(FOLDER.glob("*.yaml"))
SLURM_CONF = Path(__file__).parents[1] / "site" / "etc" / "slurm.conf"

every_profile = pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)


def complaints(content: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(profile_schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]


def test_the_schema_beside_the_profiles_is_that_of_the_model() -> None:
    assert (FOLDER / "profile.schema.json").read_text() == schema_text(), (
        "write it anew: hpc-bridge site schema > site_configs/profile.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(profile_schema())


@every_profile
def test_editors_find_nothing_wrong(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=profile.schema.json\n")
    assert complaints(load(text).content) == []


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"nmae": "x"}, "$"),
        ({"scheduler": {"type": "lsf"}}, "$.scheduler.type"),
        ({"partitions": [{"nodes": 3}]}, "$.partitions[0]"),
        ({"job_variables": {"walltme": {}}}, "$.job_variables"),
        ({"accounts": [3]}, "$.accounts[0]"),
    ],
)
def test_editors_find_what_is_wrong(wrong: dict[str, Any], where: str) -> None:
    right = {"name": "hpc", "scheduler": {"type": "slurm", "skip_directives": "--mem"}}
    assert complaints(right | {"accounts": ["a", {"name": "b"}]}) == []
    assert [text.partition(":")[0] for text in complaints(right | wrong)] == [where]


@every_profile
def test_it_is_right(path: Path, site_folders: SiteFolders) -> None:
    assert path.is_file()
    profile = load_site(path.stem).profile
    assert profile.example is path.stem.startswith("example-")
    assert profile.description


def test_the_examples_show_every_field() -> None:
    shown = {field for path in PROFILES for field in used(load(path.read_text()).content)}
    assert fields(SiteProfile) - shown == set()


def test_every_field_is_described() -> None:
    described = {"name", "description", "type", "node_hour", "cpu_hour", "gpu_hour"}
    models = {SiteProfile, *(model for model in parts(SiteProfile))}
    missing = {
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description and not next(iter(parts_of(field.annotation)), None)
        and name not in described
    }  # fmt: skip
    assert missing == set()


def test_the_test_site_is_as_its_profile_says(site_folders: SiteFolders) -> None:
    """By the Slurm configuration that it is made from."""
    text = SLURM_CONF.read_text()
    nodes = {node["NodeName"]: node for node in entries(text, "NodeName")}
    configured = {}
    for partition in entries(text, "PartitionName"):
        its = [nodes[name] for name in partition["Nodes"].split(",")]
        gpus = {node["Gres"].removeprefix("gpu:") for node in its if "Gres" in node}
        configured[partition["PartitionName"]] = {
            "default": partition.get("Default") == "YES",
            "walltime": partition["MaxTime"],
            "default_walltime": f"00:{partition['DefaultTime']}:00",
            "nodes": len(its),
            "cpus": {int(node["CPUs"]) for node in its},
            "memory": {int(node["RealMemory"]) for node in its},
            "gpus": gpus,
        }
    described = {
        partition.name: {
            "default": partition.default,
            "walltime": format_walltime(partition.walltime or 0).removesuffix("0:00:00"),
            "default_walltime": format_walltime(partition.default_walltime or 0),
            "nodes": partition.nodes,
            "cpus": {partition.cpus_per_node},
            "memory": {partition.memory_per_node},
            "gpus": {f"{kind}:{count}" for kind, count in partition.gpus_per_node.items()},
        }
        for partition in load_site("minihpc").profile.partitions
    }
    assert described == configured


def test_the_accounts_of_the_test_site_are_those_of_its_profile(site_folders: SiteFolders) -> None:
    text = (SLURM_CONF.parent / "accounts").read_text()
    profile = load_site("minihpc").profile
    accounts = set(re.findall(r"^add account (\S+)", text, re.MULTILINE))
    qos = {"normal", *re.findall(r"^add qos (\S+)", text, re.MULTILINE)[0].split(",")}
    assert {account.name for account in profile.accounts} == accounts
    assert {one.name for one in profile.qos} == qos


def entries(text: str, kind: str) -> list[dict[str, str]]:
    lines = re.findall(rf"^{kind}=.*$", text, re.MULTILINE)
    return [dict(word.split("=", 1) for word in line.split()) for line in lines]


def parts_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from parts_of(inner)


def parts(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for part in parts_of(field.annotation):
            yield part
            yield from parts(part)


def fields(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names, without the names of entries."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(f"{prefix}{name}")
        for part in parts_of(field.annotation):
            found |= fields(part, f"{prefix}{name}.")
    return found


def used(content: Any, prefix: str = "") -> set[str]:
    if isinstance(content, list):
        return {name for entry in content for name in used(entry, prefix)}
    if not isinstance(content, dict):
        return set()
    if prefix == "job_variables.":
        return {f"{prefix}{key}" for rule in content.values() for key in rule}
    inner = {name for key, value in content.items() for name in used(value, f"{prefix}{key}.")}
    return inner | {f"{prefix}{key}" for key in content}
