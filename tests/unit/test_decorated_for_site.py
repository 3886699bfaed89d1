"""``@slurm(site=...)``: the pool that it chooses, and what is refused at once."""

from __future__ import annotations

import getpass
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_bridge import BatchFlow, slurm
from hpc_bridge.data import data_folder
from hpc_bridge.errors import InvalidJobSpec, SiteError
from hpc_bridge.sites import files
from hpc_bridge.sites.choosing import site_of_pool
from hpc_bridge.sites.files import Place, place_of
from tests.unit.site_folders import SiteFolders

ME = getpass.getuser()
PROFILE = """\
partitions:
  - {name: cpu, default: true, walltime: 1d}
  - {name: gpu, walltime: 3d, nodes: 2, gpus_per_node: {a100: 4}}
"""


def bound(**options: Any) -> BatchFlow[..., Any]:
    @slurm(**options)
    @flow
    def train() -> None: ...

    return train


@pytest.fixture
def alpha(site_folders: SiteFolders) -> SiteFolders:
    site_folders.write(site_folders.system, "alpha", PROFILE)
    return site_folders


# the pool


def test_the_site_chooses_its_personal_pool_and_is_a_job_variable(alpha: SiteFolders) -> None:
    alpha.write(alpha.system, "beta")
    train = bound(site="alpha", partition="gpu")
    assert train.work_pool == f"alpha-{ME}"
    assert train.job_variables == {"site": "alpha", "partition": "gpu"}


def test_the_only_site_is_the_default(alpha: SiteFolders) -> None:
    assert bound().work_pool == f"alpha-{ME}"
    assert bound().job_variables == {}


def test_of_two_sites_neither_is_the_default(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha.write(alpha.user, "beta")
    assert bound().work_pool == f"slurm-{ME}"
    monkeypatch.setenv("HPC_BRIDGE_SITE", "beta")
    assert bound().work_pool == f"beta-{ME}"


def test_packaged_profiles_alone_change_nothing(site_folders: SiteFolders) -> None:
    assert bound().work_pool == f"slurm-{ME}"
    assert site_of_pool(f"local-{ME}") is None
    assert bound(site="minihpc").work_pool == f"minihpc-{ME}"


def test_the_login_name_on_the_cluster_is_in_the_pools_name(alpha: SiteFolders) -> None:
    alpha.write_own_part("alpha", "user: anna\n")
    assert bound().work_pool == bound(site="alpha").work_pool == "alpha-anna"
    assert site_of_pool("alpha-anna") == "alpha"
    assert site_of_pool(f"alpha-{ME}x") is None


def test_a_named_pool_stays(alpha: SiteFolders) -> None:
    assert bound(site="alpha", work_pool="ours").work_pool == "ours"


def test_the_sites_pool_wins_over_the_settings_pool(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_WORK_POOL", "ours")
    assert bound().work_pool == "ours"
    assert bound(site="alpha").work_pool == f"alpha-{ME}"


@pytest.mark.parametrize("pool", ["beta", f"beta-{ME}"])
def test_a_pool_of_another_site_is_refused(alpha: SiteFolders, pool: str) -> None:
    alpha.write(alpha.system, "beta")
    with pytest.raises(InvalidJobSpec) as caught:
        bound(site="alpha", work_pool=pool)
    assert str(caught.value) == (
        f"work pool {pool!r} is of site 'beta', but site is 'alpha'; give one of them, or the pool"
        f" 'alpha-{ME}'"
    )


def test_another_scheduler_is_not_of_the_only_site(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bound(scheduler="local", walltime="9d", partition="x").work_pool == f"slurm-{ME}"
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local")
    assert bound(partition="x").work_pool == f"local-{ME}"


def test_another_site_takes_the_flow_to_its_pool(alpha: SiteFolders) -> None:
    alpha.write(alpha.system, "beta")
    train = bound(site="alpha").with_options(job_variables={"site": "beta"})
    assert (train.work_pool, train.job_variables) == (f"beta-{ME}", {"site": "beta"})
    named = bound(site="alpha", work_pool="ours").with_options(job_variables={"nodes": 2})
    assert named.work_pool == "ours"


# early refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "gpuu"}, "did you mean 'gpu'?"),
        ({"partition": "gpu", "gpus": 8, "nodes": 1}, "8 GPUs on 1 node: use nodes=2"),
        ({"site": "alpha", "scheduler": "local"}, "its scheduler is 'slurm', not 'local'"),
    ],
)
def test_what_the_site_would_not_take_is_refused_at_decoration(
    alpha: SiteFolders, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidJobSpec) as caught:
        bound(**options)
    assert words in str(caught.value)


def test_what_with_options_adds_is_refused_too(alpha: SiteFolders) -> None:
    train = bound(partition="gpu")
    with pytest.raises(InvalidJobSpec, match="allows 3 days; you asked for 9 days"):
        train.with_options(job_variables={"walltime": "9d"})


def test_a_partition_that_may_be_named_later_is_not_guessed(alpha: SiteFolders) -> None:
    train = bound(walltime="3d")
    assert train.with_options(job_variables={"partition": "gpu"}).job_variables["walltime"] == "3d"


def test_the_users_part_counts_at_decoration(alpha: SiteFolders) -> None:
    alpha.write_own_part("alpha", "partition: cpu\n")
    with pytest.raises(InvalidJobSpec, match="partition 'cpu' allows 1 day"):
        bound(walltime="3d")


# profiles that are not there


def test_a_site_that_no_server_could_know_is_refused_at_decoration(alpha: SiteFolders) -> None:
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(SiteError) as caught:
        bound(site="alhpa")
    assert str(caught.value) == "there is no site profile 'alhpa'; did you mean 'alpha'?"


def test_a_site_that_a_server_may_know_is_left_to_the_call(alpha: SiteFolders) -> None:
    with temporary_settings({PREFECT_API_URL: "http://server:4200/api"}):
        assert bound(site="alhpa").work_pool == f"alhpa-{ME}"


def test_a_broken_profile_is_told_at_once_when_it_is_named(alpha: SiteFolders) -> None:
    alpha.write(alpha.system, "alpha", "wrong: 1\n")
    assert bound(partition="gpuu").work_pool == f"alpha-{ME}"  # the call tells
    with pytest.raises(SiteError, match="wrong"):
        bound(site="alpha")


def test_a_name_that_is_no_name_is_refused(site_folders: SiteFolders) -> None:
    with pytest.raises(InvalidJobSpec, match=r"^site: "):
        bound(site="../alpha")


def test_on_a_compute_node_no_profile_is_looked_for(
    alpha: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_RUN_DIR", "/shared/runs/hb1")
    monkeypatch.setattr(files, "search_path", None)  # whoever looks would fail
    alpha.write_own_part("alpha", "user: anna\n")
    assert bound(site="alpha", partition="gpuu", work_pool="beta").work_pool == "beta"
    assert bound(site="nowhere").work_pool == f"nowhere-{ME}"
    assert bound(walltime="9d").work_pool == f"slurm-{ME}"


@pytest.mark.parametrize("how", ["named", "setting"])
@pytest.mark.usefixtures("site_folders")
def test_a_packaged_profile_judges_nothing_that_a_published_one_may_take(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    assert place_of("minihpc") == Place(data_folder("site_configs"), "packaged")
    options = {"site": "minihpc"} if how == "named" else {}
    if how == "setting":
        monkeypatch.setenv("HPC_BRIDGE_SITE", "minihpc")
    with temporary_settings({PREFECT_API_URL: "http://server:4200/api"}):
        bound(partition="of-the-published-one", **options)
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(InvalidJobSpec, match="there"):
        bound(partition="of-the-published-one", **options)
