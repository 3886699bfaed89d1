"""Job configurations for a cluster that is reached over SSH: whose paths, address and groups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import InfrastructureNotFound
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from hpc_bridge.errors import InvalidJobSpec, SettingsError, Unreachable
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.script import load_template
from hpc_bridge.settings import load_settings
from hpc_bridge.sites import choosing
from hpc_bridge.sites.choosing import check_early
from hpc_bridge.sites.files import load_site
from hpc_bridge.sites.travelling import travelling
from hpc_bridge.storage import reach
from hpc_bridge.storage.bundle import default_interpreter
from hpc_bridge.storage.cluster_files import LocalFiles
from hpc_bridge.transports.base import Completed
from hpc_bridge.transports.login import LOCAL, Login
from hpc_bridge.workers import base
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.prepared import pinned
from hpc_bridge.workers.slurm import SlurmWorker
from hpc_bridge.workers.submission import api_url, node_environment
from tests.unit.site_folders import SiteFolders

PROFILE = """\
login: {transport: paramiko, host: login.hpc.example}
partitions: [{name: cpu, default: true}, {name: gpu, groups: [gpu users]}]
"""
SHARED_API = "http://prefect.hpc.example:4200/api"


class Elsewhere(LocalFiles):
    """Of an account that has another home and another environment."""

    def expanded(self, text: str) -> str:
        for written, there in (("~", "/home/anna"), ("$WORK", "/gpfs/a"), ("{user}", "anna")):
            text = text.replace(written, there)
        return text


class LoginHost:
    """Answers what groups the account has."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str]] = []
        self.answer: Completed | Exception = Completed(0, "anna\0gpu users\0", "")

    def run(self, argv: Sequence[str], *, timeout: float) -> Completed:
        self.commands.append(argv)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def configured(**values: Any) -> BatchJobConfiguration:
    async def made() -> BatchJobConfiguration:
        # Nobody listens there: what is in files needs no server.
        async with PrefectClient("http://127.0.0.1:9/api") as client:
            return await BatchJobConfiguration.from_template_and_values(
                SlurmWorker.get_default_base_job_template(), values, client=client
            )

    return asyncio.run(made())


@pytest.fixture(autouse=True)
def hpc(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[SiteFolders]:
    """The one site that is known, and a laptop whose home and variables are others."""
    site_folders.write(site_folders.user, "hpc", PROFILE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WORK", "/gpfs/on/the/laptop")
    monkeypatch.setattr(
        reach, "files_at", lambda login: LocalFiles() if login == LOCAL else Elsewhere()
    )
    choosing._groups_on.cache_clear()
    yield site_folders
    choosing._groups_on.cache_clear()


@pytest.fixture
def login_host(monkeypatch: pytest.MonkeyPatch) -> LoginHost:
    host = LoginHost()
    monkeypatch.setattr(choosing, "transport_to", lambda _: host)
    return host


def test_the_login_is_that_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured().login == Login("paramiko", "login.hpc.example")
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "local")
    assert configured().login == LOCAL
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local")
    assert configured().profiled_site is None
    assert configured().login == LOCAL


def test_ssh_to_a_host_that_no_site_names_is_refused(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site_folders.user / "hpc.yaml").unlink()
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "openssh")
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "slurm")
    with pytest.raises(SettingsError, match=r"transport says openssh, .* name one with"):
        _ = configured().login
    assert configured(scheduler="local").login == LOCAL


# Paths


def test_nothing_else_waits_while_ssh_says_who_the_user_is(
    hpc: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    hpc.write(hpc.user, "hpc", PROFILE + "paths: {shared_dir: '/gpfs/{user}/hb'}\n")
    asked: list[threading.Thread] = []

    def name(_: Login) -> str:
        asked.append(threading.current_thread())
        return "anna"

    monkeypatch.setattr("hpc_bridge.sites.site.name_on_cluster", name)
    assert configured().shared == Path("/gpfs/anna/hb")
    assert asked
    assert threading.main_thread() not in asked


def test_nothing_else_waits_while_a_connection_is_made_to_cancel_a_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[threading.Thread] = []

    def connection_of(_: BatchJobConfiguration) -> Any:
        asked.append(threading.current_thread())
        return SimpleNamespace(cluster=SimpleNamespace(scheduler=SlurmScheduler()))

    monkeypatch.setattr(base, "connection_of", connection_of)
    worker: Any = None
    with pytest.raises(InfrastructureNotFound):
        asyncio.run(SlurmWorker.kill_infrastructure(worker, "pbs:7", configured()))
    assert asked
    assert threading.main_thread() not in asked


def test_paths_are_those_of_the_cluster(hpc: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured().shared == Path("/home/anna/.hpc-bridge")
    hpc.write_own_part("hpc", "python: ~/env\nshared_dir: $WORK/hb\n")
    made = configured()
    assert (made.interpreter, made.shared) == ("/home/anna/env", Path("/gpfs/a/hb"))
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "$WORK/env")
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", "/scratch/{user}")
    made = configured()
    assert (made.interpreter, made.shared) == ("/gpfs/a/env", Path("/scratch/anna"))
    assert configured(python="/asked").interpreter == "/asked"


def test_a_variable_that_is_not_set_there_is_refused() -> None:
    made = configured(shared_dir="$NOT_SET_THERE/hb")
    with pytest.raises(SettingsError, match=r"shared_dir: '\$NOT_SET_THERE/hb' is not an absolute"):
        _ = made.shared


def test_the_python_of_this_machine_is_never_that_of_a_cluster_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingsError) as caught:
        _ = configured().interpreter
    for place in ("my-sites/hpc.yaml", "HPC_BRIDGE_PYTHON", "python=...", "environment.python"):
        assert place in str(caught.value)
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "local")
    assert configured().interpreter == default_interpreter()


def test_what_is_pinned_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    found = pinned(configured(python="~/env"))
    assert found["python"] == "/home/anna/env"
    assert found["shared_dir"] == "/home/anna/.hpc-bridge"
    assert "called_from" not in found
    assert str(tmp_path) not in str(found)


def test_a_template_of_this_machine_is_pinned_as_its_text(tmp_path: Path) -> None:
    own = tmp_path / "own.j2"
    own.write_text("#!/bin/sh")
    found = pinned(configured(python="~/env", template=str(own)))["template"]
    assert load_template(found, "")[1].strip() == "#!/bin/sh"
    assert str(own) not in found


def test_on_the_cluster_the_folder_of_the_call_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "local")
    assert pinned(configured())["called_from"] == str(Path.cwd())


def test_jobs_find_the_profile_that_came_along_and_no_folder_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(tmp_path))
    made = configured(api_url=SHARED_API)
    assert made.profiled_site is not None
    found = node_environment(made)
    path, _ = travelling(made.profiled_site)
    assert found["HPC_BRIDGE_SITES"] == f"/home/anna/.hpc-bridge/{path.parent}"
    assert not [value for value in found.values() if str(tmp_path) in value]
    assert found["HPC_BRIDGE_SHARED_DIR"] == "/home/anna/.hpc-bridge"
    assert found["PREFECT_HOME"] == "/home/anna/.hpc-bridge/prefect"


def test_the_profile_that_comes_along_is_the_same_and_brings_its_template(
    hpc: SiteFolders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    template = load_template(None, "slurm.sh.j2")[1]
    (hpc.user / "job.sh.j2").write_text(template)
    hpc.write(hpc.user, "hpc", f"{PROFILE}environment: {{template: job.sh.j2}}\n")
    site = load_site("hpc")
    path, content = travelling(site)
    file = tmp_path / "shared" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    hpc.write(hpc.user, "hpc", "description: another")
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(file.parent))
    came = load_site("hpc").profile
    assert came.environment.template == template
    assert came.model_copy(update={"environment": site.profile.environment}) == site.profile


# The address of the server


def address(**values: Any) -> str:
    with temporary_settings({PREFECT_API_URL: "http://laptop.home:4200/api"}):
        return api_url(configured(**values), get_current_settings())


def test_this_machines_own_address_is_not_that_of_a_cluster_elsewhere() -> None:
    with pytest.raises(SettingsError, match=r"jobs on login\.hpc\.example is not known") as caught:
        address()
    for place in ("HPC_BRIDGE_API_URL", "job variable api_url", "network.api_url"):
        assert place in str(caught.value)
    assert "laptop.home" not in str(caught.value)


def test_the_address_comes_from_job_variable_setting_or_profile(
    hpc: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address(api_url=SHARED_API) == SHARED_API
    hpc.write(hpc.user, "hpc", f"{PROFILE}network: {{api_url: '{SHARED_API}'}}\n")
    assert address() == SHARED_API
    monkeypatch.setenv("HPC_BRIDGE_API_URL", "http://other:4200/api")
    assert address() == "http://other:4200/api"


@pytest.mark.parametrize("url", ["http://127.0.0.1:4200/api", "http://localhost:4200/api"])
def test_an_address_that_only_works_here_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=f"login.hpc.example cannot be {url}"):
        address(api_url=url)


def test_on_the_cluster_the_submitters_own_address_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_TRANSPORT", "local")
    assert address() == "http://laptop.home:4200/api"


# Groups


def test_groups_are_asked_for_at_submission_and_once(login_host: LoginHost) -> None:
    made = configured(partition="gpu")
    check_early({"site": "hpc", "partition": "gpu"}, "slurm", asks_a_server=False)
    made.check_limits()
    assert login_host.commands == []
    made.check_limits(asks=True)
    made.check_limits(asks=True)
    assert login_host.commands == [["id", "-Gnz"]]


def test_a_partition_for_others_is_refused(login_host: LoginHost) -> None:
    login_host.answer = Completed(0, "anna\0gpu\0users\0", "")
    with pytest.raises(InvalidJobSpec, match="gpu users"):
        configured(partition="gpu").check_limits(asks=True)


def test_groups_that_no_profile_names_are_not_asked_for(
    hpc: SiteFolders, login_host: LoginHost
) -> None:
    hpc.write(hpc.user, "hpc", PROFILE.replace(", groups: [gpu users]", ""))
    configured(partition="gpu").check_limits(asks=True)
    assert login_host.commands == []


def test_groups_that_cannot_be_told_judge_nothing_and_an_outage_is_an_error(
    login_host: LoginHost,
) -> None:
    login_host.answer = Unreachable("no network")
    made = configured(partition="gpu")
    with pytest.raises(Unreachable):
        made.check_limits(asks=True)
    login_host.answer = Completed(1, "", "id: unrecognized option: z")
    made.check_limits(asks=True)


def test_the_settings_apply_to_this_machine_as_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", "~/hb")
    assert load_settings().shared == tmp_path / "hb"
