"""Personal pools follow the published site; what their owners have changed stays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_bridge.cli.publishing import publish_profile, unpublish_site
from hpc_bridge.errors import SiteError
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.files import read_profile
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.user_part import UserPart
from hpc_bridge.workers import SlurmWorker
from hpc_bridge.workers.pools import ensure_work_pool
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


@pytest.fixture(autouse=True)
def _no_own_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPC_BRIDGE_SHARED_DIR")


def first_use(file: Path, name: str | None = None) -> WorkPool:
    """What a call of a flow does first, for anna; the site is known from its file."""
    site = Site(read_profile(file), UserPart(user="anna"), str(file))

    async def ensured() -> WorkPool:
        async with get_client() as client:
            return await ensure_work_pool(
                client,
                name or f"{site.name}-anna",
                worker_type="slurm",
                base_job_template=SlurmWorker.get_default_base_job_template,
                settings=load_settings(),
                site=site,
            )

    return asyncio.run(ensured())


def change(name: str, **update: Any) -> None:
    """As its owner does on the dashboard."""
    with get_client(sync_client=True) as client:
        client.update_work_pool(name, WorkPoolUpdate(**update))


def set_default(name: str, variable: str, value: Any) -> None:
    template = pool(name).base_job_template
    template["variables"]["properties"][variable]["default"] = value
    change(name, base_job_template=template)


def results_folder(name: str) -> str:
    block_id = pool(name).storage_configuration.default_result_storage_block_id
    assert block_id is not None
    with get_client(sync_client=True) as client:
        return str(client.read_block_document(block_id).data["basepath"])


def test_a_personal_pool_is_made_from_the_published_one(tmp_path: Path) -> None:
    file = publish(tmp_path, "team", paths={"shared_dir": "/lustre/{user}/hpc"})
    set_default("team", "comment", "the admin's, by hand")
    made = first_use(file)
    assert made.name == "team-anna"
    assert choices("team-anna", "partition") == ["cpu", "gpu"]
    assert default("team-anna", "comment") == "the admin's, by hand"
    assert default("team-anna", "shared_dir") == "/lustre/anna/hpc"
    assert default("team", "shared_dir") == "/lustre/{user}/hpc"
    assert results_folder("team-anna") == "/lustre/anna/hpc/results"
    record = made.base_job_template["variables"]["x-hpc-bridge"]
    assert (record["site"], record["user"]) == ("team", "anna")


def test_a_personal_pool_is_made_from_the_profile_where_nothing_is_published(
    tmp_path: Path,
) -> None:
    first_use(write_profile(tmp_path, "unpublished"))
    assert choices("unpublished-anna", "partition") == ["cpu", "gpu"]
    assert not pool_exists("unpublished")


def test_the_settings_of_who_makes_it_are_its_defaults_as_far_as_the_site_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_profile(
        tmp_path, "settled", scheduler={"type": "slurm", "shortest_poll_interval": 5}
    )
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "/my/python")
    monkeypatch.setenv("HPC_BRIDGE_POLL_INTERVAL", "1")
    first_use(file)
    assert default("settled-anna", "python") == "/my/python"
    assert default("settled-anna", "poll_interval") is None
    assert default("settled-anna", "scheduler") == "slurm"  # the environment says local


def test_publishing_brings_personal_pools_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = publish(tmp_path, "moved", paths={"shared_dir": "/old/{user}"})
    first_use(file)
    publish(tmp_path, "moved", partitions=[CPU], paths={"shared_dir": "/new/{user}"})
    assert "work pool 'moved-anna':" in capsys.readouterr().out
    assert choices("moved-anna", "partition") == ["cpu"]
    assert default("moved-anna", "shared_dir") == "/new/anna"
    assert results_folder("moved-anna") == "/new/anna/results"
    assert results_folder("moved") == "/new/{user}/results"


def test_the_owners_own_settings_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = publish(tmp_path, "owned", job_variables={"walltime": {"default": "1h"}})
    first_use(file)
    set_default("owned-anna", "partition", "gpu")
    set_default("owned-anna", "walltime", "2h")
    change("owned-anna", concurrency_limit=7, is_paused=True, description="mine")
    with get_client(sync_client=True) as client:
        client.create_work_queue("urgent", work_pool_name="owned-anna", priority=1)
    rules = {"walltime": {"default": "30m"}, "nodes": {"maximum": 2}}
    file = publish(tmp_path, "owned", job_variables=rules)
    now = pool("owned-anna")
    assert default("owned-anna", "partition") == "gpu"
    assert default("owned-anna", "walltime") == "2h"
    assert (now.concurrency_limit, now.is_paused, now.description) == (7, True, "mine")
    with get_client(sync_client=True) as client:
        queues = client.read_work_queues(work_pool_name="owned-anna")
    assert {queue.name for queue in queues} == {"default", "urgent"}
    capsys.readouterr()
    publish(tmp_path, "owned", partitions=[CPU], job_variables=rules)
    assert "partition: 'gpu' is not offered any more" in capsys.readouterr().out
    assert default("owned-anna", "partition") is None


def test_what_the_owner_changes_while_publishing_asks_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(tmp_path, "asked")
    first_use(file)
    file = write_profile(tmp_path, "asked", partitions=[CPU])

    def agreed(*_: Any, **__: Any) -> bool:
        set_default("asked-anna", "nodes", 3)
        return True

    with monkeypatch.context() as patched:
        patched.setattr("hpc_bridge.cli.publishing._agreed", agreed)
        with pytest.raises(SiteError, match="'asked-anna' was changed by somebody meanwhile"):
            publish_profile(file, yes=False)
    assert choices("asked", "partition") == ["cpu", "gpu"]
    assert publish_profile(file, yes=True) == 0
    assert choices("asked-anna", "partition") == ["cpu"]
    assert default("asked-anna", "nodes") == 3


def test_first_use_renews_a_pool_that_is_behind(tmp_path: Path) -> None:
    file = publish(tmp_path, "behind")
    first_use(file)
    old = pool("behind-anna")
    publish(tmp_path, "behind", partitions=[CPU])
    change("behind-anna", base_job_template=old.base_job_template)
    assert choices("behind-anna", "partition") == ["cpu", "gpu"]
    first_use(file)
    assert choices("behind-anna", "partition") == ["cpu"]
    before = pool("behind-anna").updated
    first_use(file)
    assert pool("behind-anna").updated == before


def test_a_pool_named_outright_that_is_no_ones_is_not_renewed(tmp_path: Path) -> None:
    template = SlurmWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for name in ("shared-by-hand", "by-hand-anna"):
            client.create_work_pool(
                WorkPoolCreate(name=name, type="slurm", base_job_template=template)
            )
    file = publish(tmp_path, "by-hand")
    first_use(file, "shared-by-hand")
    assert pool("shared-by-hand").base_job_template == template
    first_use(file)  # one of before that has the personal pool's name
    assert choices("by-hand-anna", "partition") == ["cpu", "gpu"]


def test_personal_pools_stay_when_the_site_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = publish(tmp_path, "leaving")
    first_use(file)
    capsys.readouterr()
    assert unpublish_site("leaving", yes=True, force=False) == 0
    assert "work pool 'leaving-anna' stays" in capsys.readouterr().out
    assert pool_exists("leaving-anna")
    publish(tmp_path, "leaving", partitions=[GPU])
    assert choices("leaving-anna", "partition") == ["gpu"]


Refuses = Callable[[str, str], int | None]


@contextmanager
def between(refuses: Refuses) -> Iterator[None]:
    """A proxy before the server that answers some requests itself, with a status code."""
    server = str(PREFECT_API_URL.value()).removesuffix("/api")

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = refuses(self.command, self.path)
            if status is None:
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("host", "content-length", "accept-encoding")
                }
                answer = httpx.request(
                    self.command, server + self.path, content=body, headers=headers, timeout=60
                )
                status, content = answer.status_code, answer.content
            else:
                content = b'{"detail": "not for you"}'
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, *args: Any) -> None: ...

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{proxy.server_address[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        proxy.shutdown()
        proxy.server_close()


def writes(method: str, path: str) -> bool:
    return method in ("PATCH", "DELETE") or (method == "POST" and not path.endswith("/filter"))


def test_a_server_that_lets_nobody_write_is_told(tmp_path: Path) -> None:
    file = write_profile(tmp_path, "read-only")
    with (
        between(lambda method, path: 403 if writes(method, path) else None),
        pytest.raises(SiteError, match=r"you have not the right to do that: not for you"),
    ):
        publish_profile(file, yes=True)
    assert not pool_exists("read-only")


def test_a_server_that_does_not_know_the_caller_is_told(tmp_path: Path) -> None:
    with (
        between(lambda method, path: 401),
        pytest.raises(SiteError, match="does not know you; set PREFECT_API_KEY"),
    ):
        publish_profile(write_profile(tmp_path, "unknown-caller"), yes=True)


@pytest.mark.parametrize("part", ["POST /api/work_pools/", "PATCH /api/work_pools/half"])
def test_what_failed_half_way_is_completed_by_publishing_again(tmp_path: Path, part: str) -> None:
    name = f"half-{part.split()[0].lower()}"
    file = write_profile(tmp_path, name)

    def refuses(method: str, path: str) -> int | None:
        return 403 if f"{method} {path}".startswith(part) and "filter" not in path else None

    with between(refuses), pytest.raises(SiteError, match="not the right"):
        publish_profile(file, yes=True)
    made = first_use(file)  # meanwhile a flow runs all the same
    assert made.storage_configuration.default_result_storage_block_id is not None
    assert publish_profile(file, yes=True) == 0
    assert choices(name, "partition") == ["cpu", "gpu"]
    assert pool(name).storage_configuration.default_result_storage_block_id is not None
    before = pool(name).updated
    assert publish_profile(file, yes=False) == 0
    assert pool(name).updated == before


def test_a_flow_runs_on_a_pool_that_may_not_be_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = publish(tmp_path, "frozen")
    first_use(file)
    old = pool("frozen-anna")
    publish(tmp_path, "frozen", partitions=[CPU])
    change("frozen-anna", base_job_template=old.base_job_template)
    with between(lambda method, path: 403 if writes(method, path) else None):
        assert first_use(file).name == "frozen-anna"
    assert choices("frozen-anna", "partition") == ["cpu", "gpu"]
