"""``@pbs``: its own words, what PBS cannot be asked for, and the pools that it goes through."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from prefect import flow
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_bridge import BatchFlow, pbs, slurm
from hpc_bridge.decorators import JobOptions, PBSOptions
from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import Resources
from hpc_bridge.settings import RunSettings
from hpc_bridge.workers.pbs import PBSJobConfiguration, PBSVariables, PBSWorker
from tests.unit.site_folders import SiteFolders

ME = getpass.getuser()


def bound(**options: Any) -> BatchFlow[..., Any]:
    @pbs(**options)
    @flow
    def train(dataset: str) -> str:
        return dataset

    return train


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InvalidJobSpec) as caught:
        act()
    return str(caught.value)


@pytest.fixture
def clusters(site_folders: SiteFolders) -> SiteFolders:
    """One of each kind."""
    site_folders.write(site_folders.system, "slurmy")
    path = site_folders.write(site_folders.system, "pbsy", "queues: [{name: gpuq, nodes: 2}]\n")
    path.write_text(path.read_text().replace("type: slurm", "type: pbs"))
    return site_folders


# words


def test_the_queue_is_the_one_field_inside() -> None:
    train = bound(queue="gpuq", gpus=1, walltime="2h")
    assert train.job_variables == {"partition": "gpuq", "gpus": 1, "walltime": "2h"}
    assert train.worker_cls is PBSWorker


def test_the_word_of_the_other_scheduler_is_an_error_that_says_so() -> None:
    assert refusal(lambda: bound(partition="gpuq")) == (
        "'partition' is Slurm's word; PBS's is 'queue'"
    )
    assert refusal(lambda: slurm(queue="gpu")) == (  # type: ignore[call-overload]
        "'queue' is PBS's word; Slurm's is 'partition'"
    )
    changed = bound(queue="workq")
    assert "PBS's is 'queue'" in refusal(
        lambda: changed.with_options(job_variables={"partition": "gpuq"})
    )


def test_a_later_queue_wins_wherever_it_is_given() -> None:
    train = bound(queue="workq", walltime="1h")
    other = train.with_options(job_variables={"queue": "gpuq"})
    assert other.job_variables == {"partition": "gpuq", "walltime": "1h"}
    deployment = RunnerDeployment.from_flow(
        train, "d", work_pool_name="p", job_variables={"queue": "gpuq"}
    )
    assert deployment.job_variables == {"partition": "gpuq", "walltime": "1h"}


def test_the_job_variable_of_a_run_may_be_called_queue_too() -> None:
    template = PBSWorker.get_default_base_job_template()
    template["variables"]["properties"]["partition"]["default"] = "workq"
    configured = asyncio.run(
        PBSJobConfiguration.from_template_and_values(template, {"queue": "gpuq"})
    )
    assert configured.partition == "gpuq"
    assert configured.scheduler_name == "pbs"


def test_an_unknown_option_is_refused_with_the_nearest_word_of_pbs() -> None:
    assert "did you mean 'queue'?" in refusal(lambda: bound(queues="gpuq"))
    assert "did you mean 'cpus_per_task'?" in refusal(lambda: bound(ncpus=4))


def test_a_decorator_without_a_flow_names_itself() -> None:
    assert "write @pbs above @flow" in refusal(lambda: pbs(nodes=1)(len))  # type: ignore[arg-type]


# what PBS has no word for


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"qos": "high"}, "qos: PBS has none; sites use queues instead"),
        ({"exclude": "c1"}, "exclude: PBS cannot leave out single nodes"),
        ({"gpus": "a100:2"}, "gpus: PBS counts GPUs without a type"),
        ({"gpus_per_node": "a100:2"}, "gpus_per_node: PBS counts GPUs without a type"),
        ({"begin": "now+1hour"}, "begin: 'now+1hour'; PBS takes a date and time"),
        ({"queue": "my queue"}, "queue: 'my queue' cannot stand in a #PBS line"),
        ({"account": "a\u0308"}, "account: 'a\u0308' cannot stand in a #PBS line"),
        ({"dependency": "afterok:1 2"}, "dependency: 'afterok:1 2' cannot stand"),
        ({"constraint": "a&b"}, "constraint: 'a&b'; PBS picks nodes by resources"),
        ({"licenses": "x y"}, "licenses: 'x y'; write 'matlab:1'"),
        ({"reservation": "R1", "queue": "workq"}, "reservation: in PBS it is a queue of its own"),
    ],
)
def test_what_pbs_cannot_be_asked_for_is_refused_at_decoration(
    options: dict[str, Any], words: str
) -> None:
    assert refusal(lambda: bound(**options)).startswith(words)


def test_the_form_of_a_pool_has_no_field_that_pbs_has_no_word_for() -> None:
    template = PBSWorker.get_default_base_job_template()
    for part in (template["variables"]["properties"], template["job_configuration"]):
        assert not {"qos", "exclude"} & part.keys()
        assert {"partition", "nodes", "gpus"} <= part.keys()
    assert template["variables"]["properties"]["partition"]["title"] == "Queue"


def test_every_option_is_a_field_of_the_pools_form() -> None:
    options = get_type_hints(PBSOptions).keys()
    assert options - {"queue"} <= PBSVariables.model_fields.keys()
    assert options - get_type_hints(JobOptions).keys() == {"queue"}
    fields = Resources.model_fields.keys() | RunSettings.model_fields.keys()
    assert fields - options == {"partition", "qos", "exclude"}


# pools and sites


def test_without_a_site_the_pool_is_named_after_pbs() -> None:
    assert bound().work_pool == f"pbs-{ME}"


def test_each_decorator_finds_the_only_site_of_its_kind(site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.system, "pbsy")
    path.write_text(path.read_text().replace("type: slurm", "type: pbs"))
    assert bound().work_pool == f"pbsy-{ME}"
    assert slurm(flow(lambda: None, name="f")).work_pool == f"slurm-{ME}"


def test_a_site_of_the_other_kind_is_refused(clusters: SiteFolders) -> None:
    assert bound(site="pbsy").work_pool == f"pbsy-{ME}"
    assert refusal(lambda: bound(site="slurmy")) == (
        "site 'slurmy' has slurm, to which no job of @pbs and of a pool of type 'pbs' goes;"
        " decorate the flow with @slurm, or name another site"
    )
    assert "decorate the flow with @pbs" in refusal(lambda: slurm(site="pbsy"))


def test_the_limits_of_a_site_are_told_in_the_words_of_pbs(clusters: SiteFolders) -> None:
    message = refusal(lambda: bound(site="pbsy", queue="gpuq", nodes=3))
    assert "queue 'gpuq'" in message
    assert "partition" not in message
    assert "there is no queue 'gpuk'" in refusal(lambda: bound(site="pbsy", queue="gpuk"))


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("local", "the embedded scheduler of this machine reads Slurm's scripts"),
        ("slurm", "@slurm"),
    ],
)
def test_another_scheduler_is_refused_where_it_is_asked_for(scheduler: str, words: str) -> None:
    assert words in refusal(lambda: bound(scheduler=scheduler))


@pytest.mark.parametrize("decorate", [pbs, slurm])
def test_a_setting_for_the_other_scheduler_is_refused_at_the_call(
    monkeypatch: pytest.MonkeyPatch, decorate: Callable[..., Any]
) -> None:
    """Not at decoration: one file may have flows of both kinds."""
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local" if decorate is pbs else "pbs")

    @decorate
    @flow
    def train() -> None: ...

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        message = refusal(train)
    assert "HPC_BRIDGE_SCHEDULER" in message
    assert ("@slurm" if decorate is pbs else "@pbs") in message
