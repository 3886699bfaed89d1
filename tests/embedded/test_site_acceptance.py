"""A published profile with text that jobs execute, on a real server."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client

from hpc_bridge.cli.site_list import list_sites
from hpc_bridge.cli.site_show import accept_site, show_site
from hpc_bridge.errors import SiteError
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.published import delete_published, write_published
from hpc_bridge.sites.resolve import resolve_site
from hpc_bridge.sites.site import Site

pytestmark = pytest.mark.usefixtures("server")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of somebody who has not accepted anything."""
    (tmp_path / "config.toml").touch()
    monkeypatch.setenv("HPC_BRIDGE_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path


@pytest.fixture
def name() -> Iterator[str]:
    """Of a site that is published by the test."""
    name = f"hpc-{uuid4().hex[:8]}"
    yield name

    async def remove() -> None:
        async with get_client() as client:
            await delete_published(client, name)

    asyncio.run(remove())


def publish(name: str, prologue: str, **parts: Any) -> None:
    profile = SiteProfile.model_validate(
        {
            "name": name,
            "scheduler": {"type": "slurm"},
            "environment": {"prologue": prologue},
            **parts,
        }
    )

    async def written() -> None:
        async with get_client() as client:
            await write_published(client, profile)

    asyncio.run(written())


def resolved(name: str | None) -> Site | None:
    async def found() -> Site | None:
        async with get_client() as client:
            return await resolve_site(name, client)

    return asyncio.run(found())


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_accepted_once_and_again_after_a_change(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    publish(name, "ulimit -c 0")
    with pytest.raises(SiteError, match=f"(?s)ulimit -c 0.*hpc-bridge site accept {name}"):
        resolved(name)
    for refusal in ("n\n", "", "maybe\n"):
        answer(monkeypatch, refusal)
        assert accept_site(name, yes=False) == 1
    with pytest.raises(SiteError):
        resolved(name)

    answer(monkeypatch, "y\n")
    assert accept_site(name, yes=False) == 0
    site = resolved(name)
    assert site is not None
    assert site.profile.environment.prologue == "ulimit -c 0"
    assert site.source.startswith("http")

    publish(name, "ulimit -c 1")
    with pytest.raises(SiteError, match=r"(?s)\n-  \| ulimit -c 0\n\+  \| ulimit -c 1\n"):
        resolved(name)
    assert accept_site(name, yes=True) == 0
    assert resolved(name) is not None
    capsys.readouterr()
    assert accept_site(name, yes=False) == 0
    assert "is accepted already" in capsys.readouterr().out


def test_a_template_whose_text_nobody_could_accept_is_refused(name: str, tmp_path: Path) -> None:
    publish(name, "", environment={"template": str(tmp_path / "own.j2")})
    with pytest.raises(SiteError, match=r"is no text but the path .*/own\.j2"):
        resolved(name)


def test_a_file_goes_before_the_server_and_the_server_before_the_package(
    name: str, config: Path
) -> None:
    publish(name, "")
    path = config / "sites" / f"{name}.yaml"
    path.parent.mkdir()
    path.write_text(f"name: {name}\nscheduler: {{type: slurm}}\n")
    site = resolved(name)
    assert site is not None
    assert site.source == str(path)
    path.unlink()
    site = resolved(name)
    assert site is not None
    assert site.source.startswith("http")
    packaged = resolved("minihpc")
    assert packaged is not None
    assert packaged.source.endswith("site_configs/minihpc.yaml")


def test_the_setting_may_be_a_name_without_a_profile(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITE", name)
    assert resolved(None) is None
    publish(name, "")
    site = resolved(None)
    assert site is not None
    assert site.name == name


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(SiteError, match=r"no site profile 'nowhere'(?s:.*)nor is one published"):
        resolved("nowhere")


def test_ones_own_part_merges_over_a_published_profile(name: str, config: Path) -> None:
    publish(name, "", partitions=[{"name": "cpu"}])
    part = config / "my-sites" / f"{name}.yaml"
    part.parent.mkdir()
    part.write_text("partition: cpu\n")
    site = resolved(name)
    assert site is not None
    assert site.user_variables() == {"partition": "cpu"}
    part.write_text("partition: gpu\n")
    with pytest.raises(SiteError, match="'gpu' is not offered"):
        resolved(name)


def test_published_sites_are_listed_and_shown(name: str, capsys: Captured) -> None:
    publish(name, "ulimit -c 0", description="Published")
    list_sites(as_json=True)
    out, err = capsys.readouterr()
    line = next(line for line in json.loads(out) if line["name"] == name)
    assert (line["description"], line["path"], err) == ("Published", None, "")
    assert line["from"].startswith("http")
    show_site(name, as_json=False)
    out, err = capsys.readouterr()
    assert f"# from {line['from']}\nname: {name}\n" in out
    assert "you have not accepted what this site would have your jobs execute; see" in err
