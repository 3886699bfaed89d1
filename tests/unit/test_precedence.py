"""Which place has the say about a job variable, and which site is meant."""

from __future__ import annotations

import asyncio
import copy
import getpass
import logging
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient

from hpc_bridge.errors import InvalidJobSpec, SiteError
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.site import Site
from hpc_bridge.tracking.retention import kept_for
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.prepared import pinned
from hpc_bridge.workers.slurm import SlurmWorker
from hpc_bridge.workers.submission import connection_of, node_environment
from tests.unit.site_folders import SiteFolders

PROFILE = """\
partitions: [{name: cpu, default: true, walltime: 1d}, {name: gpu, gpus_per_node: {a100: 4}}]
paths: {shared_dir: "/scratch/{user}"}
environment: {python: $SITE_PYTHON/bin/python}
job_variables: {walltime: {default: 2h}, account: {default: everybody}, nodes: {default: 1}}
retention: 7d
"""


def template(**defaults: Any) -> dict[str, Any]:
    """A pool's, with defaults of its own."""
    made = copy.deepcopy(SlurmWorker.get_default_base_job_template())
    for name, value in defaults.items():
        made["variables"]["properties"].setdefault(name, {})["default"] = value
    return made


def configured(_pool: dict[str, Any] | None = None, **values: Any) -> BatchJobConfiguration:
    async def made() -> BatchJobConfiguration:
        # Nobody listens there: what is in files needs no server.
        async with PrefectClient("http://127.0.0.1:9/api") as client:
            return await BatchJobConfiguration.from_template_and_values(
                _pool or template(), values, client=client
            )

    return asyncio.run(made())


@pytest.fixture
def alpha(site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> SiteFolders:
    """The one site that is known."""
    monkeypatch.setenv("SITE_PYTHON", "/opt/python")
    site_folders.write(site_folders.system, "alpha", PROFILE)
    return site_folders


# who has the say


def test_every_place_wins_over_all_that_come_after_it(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def account(pool: dict[str, Any] | None = None, **values: Any) -> tuple[str | None, str | None]:
        made = configured(pool, **values)
        return made.account, made.interpreter

    assert account() == ("everybody", "/opt/python/bin/python")
    pool = template(account="pool", python="/pool")
    assert account(pool) == ("pool", "/pool")
    alpha.write_own_part("alpha", "account: mine\npython: ~/env\n")
    assert account(pool) == ("mine", str(Path.home() / "env"))
    (alpha.config / "config.toml").write_text('python = "/file"\n')
    assert account(pool) == ("mine", "/file")
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "/variable")
    assert account(pool) == ("mine", "/variable")
    assert account(pool, python="/asked", account="asked") == ("asked", "/asked")


def test_what_nobody_says_is_the_packages(alpha: SiteFolders) -> None:
    made = configured()
    assert (made.memory, made.exclusive, made.walltime) == (None, False, 7200)


def test_what_a_pool_begins_with_is_not_its_own_word(alpha: SiteFolders) -> None:
    rest = PROFILE.replace("nodes: {default: 1}", "exclusive: {default: true}")
    alpha.write(alpha.system, "alpha", rest)
    assert configured().exclusive


def test_paths_of_profile_and_shared_pool_have_the_login_name(alpha: SiteFolders) -> None:
    assert configured().shared == Path("/scratch") / getpass.getuser()
    alpha.write_own_part("alpha", "user: anna\n")
    assert configured().shared == Path("/scratch/anna")
    assert configured(template(shared_dir="/gpfs/{user}")).shared == Path("/gpfs/anna")


def test_the_limits_bind_whatever_has_the_say(alpha: SiteFolders) -> None:
    for made in (configured(walltime="3d"), configured(template(walltime="3d"))):
        with pytest.raises(InvalidJobSpec, match="partition 'cpu' allows 1 day; you asked for 3"):
            made.check_limits()
    configured(walltime="3d", partition="gpu").check_limits()


def test_a_literal_in_the_pools_job_configuration_is_judged_too(alpha: SiteFolders) -> None:
    pool = template()
    pool["job_configuration"]["gpus"] = "8"
    with pytest.raises(InvalidJobSpec, match="partition 'cpu' has no GPUs"):
        configured(pool).check_limits()


def test_without_any_profile_nothing_is_judged(site_folders: SiteFolders) -> None:
    made = configured(walltime="99d", partition="any")
    assert (made.profiled_site, made.site, made.python) == (None, None, None)
    made.check_limits()


# which site


def test_the_job_variable_names_the_site_before_all_others(alpha: SiteFolders) -> None:
    alpha.write(alpha.system, "beta")
    assert configured().profiled_site is None  # two are known
    assert configured(site="beta").site == "beta"
    assert configured(template(site="alpha")).site == "alpha"


def test_the_setting_names_the_default_site(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha.write(alpha.system, "beta")
    monkeypatch.setenv("HPC_BRIDGE_SITE", "beta")
    assert configured().site == "beta"
    assert configured(template(site="alpha")).site == "alpha"


def test_a_pool_of_another_site_is_refused(alpha: SiteFolders) -> None:
    with pytest.raises(InvalidJobSpec, match="is of site 'beta', but site is 'alpha'"):
        configured(template(site="beta"), site="alpha")


@pytest.mark.parametrize("where", ["values", "settings", "pool"])
def test_another_scheduler_is_not_of_the_default_site(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "settings":
        monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local")
    pool = template(scheduler="local") if where == "pool" else None
    values = {"scheduler": "local"} if where == "values" else {}
    made = configured(pool, **values)
    assert (made.profiled_site, made.scheduler_name) == (None, "local")


def test_another_scheduler_than_that_of_a_named_site_is_refused(alpha: SiteFolders) -> None:
    with pytest.raises(InvalidJobSpec, match="its scheduler is 'slurm', not 'local'"):
        configured(site="alpha", scheduler="local").check_limits()


def test_a_broken_profile_of_the_only_site_is_told_unless_another_scheduler_is_meant(
    alpha: SiteFolders,
) -> None:
    alpha.write(alpha.system, "alpha", "wrong: 1\n")
    with pytest.raises(SiteError, match="wrong"):
        configured()
    assert configured(scheduler="local").profiled_site is None


# what follows from it


def test_polling_is_never_faster_than_the_site_allows(
    alpha: SiteFolders, caplog: pytest.LogCaptureFixture
) -> None:
    text = PROFILE + "login: {transport: local}\n"
    path = alpha.write(alpha.system, "alpha", text)
    path.write_text(
        path.read_text().replace("{type: slurm}", "{type: slurm, shortest_poll_interval: 45}")
    )
    assert configured(poll_interval=90).polling_seconds == 90
    assert configured().polling_seconds == 45  # the package's would be 30
    with caplog.at_level(logging.INFO, "hpc_bridge"):
        made = configured(poll_interval=5)
        assert [made.polling_seconds, made.polling_seconds] == [45, 45]
    assert caplog.messages == ["Site alpha is asked every 45 s, not every 5 s"]


def test_the_cluster_is_asked_as_the_profile_says(alpha: SiteFolders, tmp_path: Path) -> None:
    path = alpha.write(alpha.system, "alpha")
    path.write_text(path.read_text().replace("{type: slurm}", "{type: slurm, cluster: north}"))
    made = configured(shared_dir=str(tmp_path))
    assert connection_of(made).options.cluster == "north"


def test_a_worker_elsewhere_gets_what_the_caller_has(alpha: SiteFolders) -> None:
    alpha.write_own_part("alpha", "account: mine\n")
    noted = pinned(configured())
    assert (noted["site"], noted["account"]) == ("alpha", "mine")
    assert "walltime" not in noted  # the profile is there too


def test_a_job_that_submits_goes_to_the_same_site(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://server:4200/api")
    assert node_environment(configured())["HPC_BRIDGE_SITE"] == "alpha"


def test_a_job_looks_for_profiles_in_the_same_folders(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site_folders.write(tmp_path / "sites", "alpha", PROFILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://server:4200/api")
    monkeypatch.setenv("HPC_BRIDGE_SITES", "sites:/opt/sites")
    found = node_environment(configured())["HPC_BRIDGE_SITES"]
    assert found == f"{tmp_path}/sites:/opt/sites"


def test_runs_are_kept_as_the_user_says_else_as_the_site_does(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = configured().profiled_site
    assert isinstance(site, Site)

    def days() -> int | None:
        kept = kept_for(load_settings(), site)
        return None if kept is None else kept.days

    assert days() == 7
    kept = kept_for(load_settings(), None)
    assert kept is not None
    assert kept.days == 30
    monkeypatch.setenv("HPC_BRIDGE_RETENTION", "30d")
    assert days() == 30
    monkeypatch.setenv("HPC_BRIDGE_RETENTION", "forever")
    assert days() is None
