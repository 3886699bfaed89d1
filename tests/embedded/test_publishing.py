"""Profiles on a real server: published, exported, taken back, and what is refused."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate, WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from hpc_bridge.cli.publishing import (
    export_profile,
    publish_profile,
    show_difference,
    unpublish_site,
)
from hpc_bridge.data import data_folder
from hpc_bridge.errors import ServerUnreachable, SiteError
from hpc_bridge.sites.files import read_profile
from hpc_bridge.sites.template_check import with_template_text
from hpc_bridge.workers import SlurmWorker
from tests.embedded.sites import (
    CPU,
    GPU,
    choices,
    default,
    pool,
    pool_exists,
    publish,
    write_profile,
)

pytestmark = pytest.mark.usefixtures("server")

EVERYTHING: dict[str, Any] = {
    "description": "Quotes \" and ' and a # that is no comment",
    "contact": "hpc@example.org",
    "example": True,
    "scheduler": {
        "type": "local",
        "version": "1.10",
        "cluster": "main",
        "commands": {"sbatch": ["/opt/site/wrap", "sbatch"], "squeue": "/usr/bin/squeue"},
        "accounting": False,
        "arrays": False,
        "poll_interval": 7.5,
        "shortest_poll_interval": 2,
        "submissions_per_minute": 10,
        "live_jobs": 100,
        "skip_directives": ["--mem"],
        "add_directives": ["--wckey=flows"],
    },
    "login": {"transport": "openssh", "host": "login.example.org"},
    "paths": {"shared_dir": "/lustre/{user}/hpc", "node_scratch": "$TMPDIR"},
    "partitions": [
        {
            **CPU,
            "description": "Größere Knoten",
            "default_walltime": "1h",
            "nodes_per_job": 2,
            "cpus_per_node": 8,
            "accounts": ["bio"],
            "qos": ["normal"],
            "groups": ["hpc"],
        },
        GPU,
    ],
    "accounts": ["bio", {"name": "chem", "description": "Chemistry"}],
    "qos": ["normal", "on", "010"],
    "environment": {
        "modules": ["python/3.12"],
        "prologue": "ulimit -c 0\n\nexport A=1  # {{ not a placeholder }}\n",
        "python": "/opt/python/{user}",
        "template": "#!/bin/bash\necho {{ spec.name }}\n",
    },
    "containers": {
        "runtime": "apptainer",
        "images": [{"name": "torch", "path": "/images/torch.sif"}],
        "binds": ["/data:/mnt:ro"],
    },
    "network": {"nodes_reach_server": False, "api_url": "http://login:4200/api"},
    "job_variables": {
        "walltime": {"default": "1:30:00", "maximum": "12h", "minimum": "5m"},
        "nodes": {"default": 1, "maximum": 2, "description": "Ask for few."},
        "requeue": {"choices": [False], "default": False},
    },
    "retention": "forever",
    "costs": {"unit": "EUR", "node_hour": 1.5, "cpu_hour": 0.01, "gpu_hour": 0.8},
}


def raw(name: str) -> Any:
    """The block as the server has it."""
    with get_client(sync_client=True) as client:
        return client.read_block_document_by_name(name, "hpc-site-profile")


def test_a_profile_becomes_a_block_and_a_pool(tmp_path: Path) -> None:
    publish(tmp_path, "first", description="A cluster", paths={"shared_dir": "/lustre/{user}"})
    block = raw("first")
    assert block.data["partitions"][0]["walltime"] == "1-00:00:00"
    assert {"scheduler", "partitions", "job_variables"} <= set(
        block.block_schema.fields["properties"]
    )
    made = pool("first")
    assert made.type == "slurm"
    assert (made.description or "").startswith("A cluster.")
    assert choices("first", "partition") == ["cpu", "gpu"]
    assert default("first", "scheduler") == "local"
    assert default("first", "shared_dir") == "/lustre/{user}"
    storage = made.storage_configuration
    assert storage.bundle_execution_step == {"hpc_bridge.node.execute": {"launcher": ["python"]}}
    with get_client(sync_client=True) as client:
        assert storage.default_result_storage_block_id is not None
        results = client.read_block_document(storage.default_result_storage_block_id)
    assert results.data["basepath"] == "/lustre/{user}/results"


def test_publishing_twice_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = publish(tmp_path, "twice")
    before = pool("twice").updated, raw("twice").updated
    capsys.readouterr()
    assert publish_profile(file, yes=False) == 0  # there is nothing to ask about
    assert "nothing to change" in capsys.readouterr().out
    assert (pool("twice").updated, raw("twice").updated) == before


@pytest.mark.parametrize(
    "name", [*(f.stem for f in data_folder("site_configs").glob("*.yaml")), "all"]
)
def test_what_is_exported_is_what_was_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if name == "all":
        file = write_profile(tmp_path, name, **EVERYTHING)
        assert set(EVERYTHING) | {"format", "name"} == set(type(read_profile(file)).model_fields)
    else:
        file = data_folder("site_configs") / f"{name}.yaml"
    assert publish_profile(file, yes=True) == 0
    capsys.readouterr()
    export_profile(name)
    exported = tmp_path / "exported.yaml"
    exported.write_text(capsys.readouterr().out)
    assert read_profile(exported) == with_template_text(read_profile(file))
    assert publish_profile(exported, yes=False) == 0
    assert "nothing to change" in capsys.readouterr().out
    unpublish_site(name, yes=True, force=True)  # the packaged names are other tests' too


def test_the_text_of_a_template_travels(tmp_path: Path) -> None:
    (tmp_path / "own.sh.j2").write_text("#!/bin/bash\necho {{ spec.name }}\n")
    publish(tmp_path, "templated", environment={"template": "own.sh.j2"})
    assert raw("templated").data["environment"]["template"].startswith("#!/bin/bash")


@pytest.fixture(scope="module")
def judged(server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A published site with the partitions that the others have too."""
    publish(tmp_path_factory.mktemp("judged"), "judged")
    return "judged"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"partition": "big"}, r"'big' is not one of \['cpu', 'gpu'\]"),
        ({"nodes": 5}, "5 is greater than the maximum of 4"),
        ({"walltime": "90"}, "'90' does not match"),
        ({"gpus_per_node": "h100:1"}, "'h100:1' is not one of"),
        (
            {"partition": "gpu", "nodes": 2, "walltime": "90m", "gpus": "a100:8", "memory": None},
            None,
        ),
    ],
)
def test_the_server_judges_a_deployments_job_variables(
    judged: str, variables: dict[str, Any], words: str | None
) -> None:
    @flow
    def nothing() -> None: ...

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(nothing)
        body = {"name": "d", "flow_id": str(flow_id), "work_pool_name": judged}
        answer = httpx.post(
            f"{client.api_url}deployments/", json={**body, "job_variables": variables}
        )
    assert answer.status_code == (201 if words is None else 422)
    if words is not None:
        assert re.search(words, answer.json()["detail"])


def test_a_difference_is_shown_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, "shown")
    file = write_profile(tmp_path, "shown", partitions=[CPU])
    capsys.readouterr()
    show_difference(file, None)
    out = capsys.readouterr().out
    assert "-  - name: gpu\n" in out
    assert "partition: choices (cpu, gpu) -> (cpu)" in out
    assert choices("shown", "partition") == ["cpu", "gpu"]
    publish(tmp_path, "other-shown", partitions=[GPU])
    capsys.readouterr()
    show_difference(file, "other-shown")
    assert "+  - name: cpu\n" in capsys.readouterr().out
    with pytest.raises(SiteError, match="did you mean 'other-shown'"):
        show_difference(file, "othershown")


def test_without_a_terminal_it_must_be_said_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(SiteError, match="--yes"):
        publish_profile(write_profile(tmp_path, "unasked"), yes=False)
    assert not pool_exists("unasked")


@pytest.mark.parametrize(("answer", "published"), [("y\n", True), ("\n", False), ("", False)])
def test_it_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, published: bool
) -> None:
    name = f"asked-{len(answer)}-{published}".lower()
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert publish_profile(write_profile(tmp_path, name), yes=False) == (0 if published else 1)
    assert pool_exists(name) is published


def test_a_site_with_pbs_has_a_pool_of_that_type_and_queues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"name": "of-pbs", "scheduler": {"type": "pbs"}, "queues": [CPU, GPU]}
    file = tmp_path / "of-pbs.yaml"
    file.write_text(yaml.safe_dump(content))
    assert publish_profile(file, yes=True) == 0
    assert "+queues:" in capsys.readouterr().out
    assert pool("of-pbs").type == "pbs"
    assert choices("of-pbs", "partition") == ["cpu", "gpu"]
    export_profile("of-pbs")
    exported = capsys.readouterr().out
    assert set(yaml.safe_load(exported)) == {"format", *content}
    file.write_text(exported)
    assert publish_profile(file, yes=True) == 0
    assert "nothing to change" in capsys.readouterr().out


def test_a_pool_of_another_type_is_left_alone(tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="of-process", type="process"))
    with pytest.raises(SiteError, match=r"'of-process' of type 'process'.*must be of type 'slurm'"):
        publish(tmp_path, "of-process")
    assert pool("of-process").base_job_template == {}
    with pytest.raises(ObjectNotFound):
        raw("of-process")


def test_a_profile_of_a_newer_format_is_not_touched(tmp_path: Path) -> None:
    file = publish(tmp_path, "newer")
    block = raw("newer")
    update = BlockDocumentUpdate(data={"format": 99, "wings": 2})
    with get_client(sync_client=True) as client:
        client.update_block_document(block.id, update)
    for command in (
        lambda: export_profile("newer"),
        lambda: publish_profile(file, yes=True),
        lambda: show_difference(file, None),
    ):
        with pytest.raises(SiteError, match="format 99, newer than this version"):
            command()
    assert raw("newer").data["wings"] == 2


def test_a_broken_profile_is_told_and_replaced(tmp_path: Path) -> None:
    file = publish(tmp_path, "broken")
    with get_client(sync_client=True) as client:
        client.update_block_document(
            raw("broken").id, BlockDocumentUpdate(data={"partitions": [{"nodes": 0}], "wings": 2})
        )
    with pytest.raises(
        SiteError, match=r"is broken; publish it again:\n(.*\n)*partitions\.0\.name"
    ):
        export_profile("broken")
    assert publish_profile(file, yes=True) == 0
    assert "wings" not in raw("broken").data
    export_profile("broken")


def test_two_sites_cannot_share_a_block(tmp_path: Path) -> None:
    publish(tmp_path, "My.Site")
    with pytest.raises(SiteError, match=r"'my-site' .* is of another site, 'My\.Site'"):
        show_difference(write_profile(tmp_path, "my_site"), None)
    with pytest.raises(SiteError, match="of another site"):
        publish(tmp_path, "my_site")
    assert not pool_exists("my_site")


def test_nothing_is_sent_of_a_profile_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_profile(tmp_path, "wrong", partitions=[CPU, CPU], colour="blue")
    monkeypatch.setattr("hpc_bridge.cli.publishing.ask", None)
    with pytest.raises(SiteError, match=r"colour"):
        publish_profile(file, yes=True)


def test_a_name_that_prefect_keeps_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="Prefect keeps"):
        publish(tmp_path, "prefect-hpc")
    with pytest.raises(ObjectNotFound):
        raw("prefect-hpc")


def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    file = write_profile(tmp_path, "away")
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ServerUnreachable, match="does not answer"),
    ):
        publish_profile(file, yes=True)
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ServerUnreachable, match="set PREFECT_API_URL"),
    ):
        publish_profile(file, yes=True)


def test_what_was_published_can_be_taken_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, "taken-back")
    assert unpublish_site("taken-back", yes=True, force=False) == 0
    assert not pool_exists("taken-back")
    with pytest.raises(SiteError, match="no site 'taken-back' is published"):
        unpublish_site("taken-back", yes=True, force=False)
    with pytest.raises(SiteError, match="no site 'taken-back' is published"):
        export_profile("taken-back")


def test_a_pool_in_use_is_only_removed_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @flow
    def nothing() -> None: ...

    publish(tmp_path, "in-use")
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(nothing), name="mine", work_pool_name="in-use")
    with pytest.raises(SiteError, match=r"used by deployment 'mine'.*--force"):
        unpublish_site("in-use", yes=True, force=False)
    assert pool_exists("in-use")
    assert unpublish_site("in-use", yes=True, force=True) == 0
    assert "deployment 'mine' loses its pool" in capsys.readouterr().out
    assert not pool_exists("in-use")


def test_a_pool_that_was_there_before_is_given_back(tmp_path: Path) -> None:
    template = SlurmWorker.get_default_base_job_template()
    template["variables"]["properties"]["comment"]["default"] = "ours"
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(
                name="before",
                type="slurm",
                description="by hand",
                base_job_template=template,
                concurrency_limit=3,
            )
        )
    publish(tmp_path, "before")
    assert default("before", "comment") == "ours"
    assert choices("before", "partition") == ["cpu", "gpu"]
    assert unpublish_site("before", yes=True, force=False) == 0
    left = pool("before")
    assert left.description == "by hand"
    assert left.concurrency_limit == 3
    assert "x-hpc-bridge" not in left.base_job_template["variables"]
