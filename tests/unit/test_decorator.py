"""``@slurm``: what it takes, what it refuses at once, and what it leaves on the flow."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_type_hints

import pytest
from prefect import flow
from prefect.flows import InfrastructureBoundFlow

from hpc_bridge import BatchFlow, slurm
from hpc_bridge.decorators import JobOptions, SlurmOptions
from hpc_bridge.errors import InvalidJobSpec, SettingsError
from hpc_bridge.jobs import Resources
from hpc_bridge.settings import RunSettings
from hpc_bridge.workers.configuration import BatchVariables


def bound(**options: Any) -> BatchFlow[..., Any]:
    @slurm(**options)
    @flow
    def train(dataset: str) -> str:
        return dataset

    return train


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InvalidJobSpec) as caught:
        act()
    return str(caught.value)


# what it leaves on the flow


def test_a_decorated_flow_keeps_what_was_asked() -> None:
    train = bound(partition="gpu", gpus=1, memory="16G", walltime="2h", work_pool="ours")
    assert isinstance(train, BatchFlow)
    assert isinstance(train, InfrastructureBoundFlow)
    assert (train.name, train.work_pool) == ("train", "ours")
    assert train.job_variables == {
        "partition": "gpu",
        "gpus": 1,
        "memory": "16G",
        "walltime": "2h",
    }


def test_nothing_need_be_asked() -> None:
    assert bound().job_variables == {}


def test_a_timedelta_becomes_a_text_that_json_can_hold() -> None:
    assert bound(walltime=timedelta(days=1, hours=12)).job_variables == {"walltime": "1-12:00:00"}


def test_one_decorator_serves_several_flows() -> None:
    decorate = slurm(nodes=2)

    @flow
    def first() -> None: ...

    @flow
    def second() -> None: ...

    assert [decorate(each).name for each in (first, second)] == ["first", "second"]


def test_the_flow_below_is_not_changed() -> None:
    @flow
    def plain() -> None: ...

    before = dict(vars(plain))
    slurm(nodes=2)(plain)
    assert vars(plain) == before
    assert not isinstance(plain, BatchFlow)


def test_included_files_and_launcher_are_prefects_own() -> None:
    train = bound(include_files=["*.csv"], launcher=["python"])
    assert train.include_files == ["*.csv"]
    assert train.job_variables == {}


# the pool


def test_the_default_pool_is_personal() -> None:
    assert bound().work_pool == f"slurm-{getpass.getuser()}"


@pytest.mark.parametrize(
    ("variables", "pool"),
    [
        ({"HPC_BRIDGE_WORK_POOL": "ours"}, "ours"),
        ({"HPC_BRIDGE_SITE": "alpha"}, f"alpha-{getpass.getuser()}"),
        ({"HPC_BRIDGE_SCHEDULER": "local"}, f"local-{getpass.getuser()}"),
    ],
)
def test_the_default_pool_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], pool: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert bound().work_pool == pool
    assert bound(work_pool="mine").work_pool == "mine"


def test_wrong_settings_are_said_at_decoration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "sge")
    with pytest.raises(SettingsError, match="'slurm', 'pbs' or 'local', got 'sge'"):
        bound()


# refusals


def test_what_is_no_flow_is_refused_with_the_order_of_decorators() -> None:
    def plain() -> None: ...

    assert refusal(lambda: slurm(nodes=1)(plain)) == (  # type: ignore[arg-type]
        "'plain' is not a flow; write @slurm above @flow"
    )


@pytest.mark.parametrize(
    ("written", "meant"), [("walltme", "walltime"), ("gpu", "gpus"), ("mem", "memory")]
)
def test_an_unknown_option_is_refused_with_the_nearest_known_one(written: str, meant: str) -> None:
    message = refusal(lambda: bound(**{written: "1"}))
    assert message == f"{written!r} is not an option of a job; did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"memory": 16}, "memory"),
        ({"memory": "banana"}, "memory"),
        ({"walltime": 30}, "walltime"),
        ({"gpus": 0}, "gpus"),
        ({"gpus": -1}, "gpus"),
        ({"nodes": 0}, "nodes"),
        ({"nodes": True}, "nodes"),
        ({"partition": "gpu\n#SBATCH --nodes=64"}, "partition"),
        ({"partition": ""}, "partition"),
        ({"warning": "soon"}, "warning"),
        ({"scheduler": "sge"}, "scheduler"),
        ({"shared_dir": "work"}, "shared_dir"),
        ({"api_url": "localhost:4200"}, "api_url"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"env": {"A B": "1"}}, "env"),
        ({"env": {"A": "\0"}}, "env"),
        ({"env": "A=1"}, "env"),
        ({"directives": ["nice"]}, "directives"),
    ],
)
def test_a_wrong_value_is_refused_at_decoration_by_name(
    options: dict[str, Any], field: str
) -> None:
    assert refusal(lambda: bound(**options)).startswith(field)


def test_all_wrong_values_are_named_at_once() -> None:
    message = refusal(lambda: bound(memory="banana", nodes=0))
    assert [line.split(":")[0] for line in message.splitlines()] == ["nodes", "memory"]


def test_two_options_that_exclude_each_other_are_named() -> None:
    message = refusal(lambda: bound(memory="16G", memory_per_cpu="2G"))
    assert message == "memory and memory_per_cpu exclude each other; give one of them"


# with_options


def test_further_job_variables_are_joined_and_win() -> None:
    train = bound(nodes=2, memory="16G", work_pool="ours")
    other = train.with_options(job_variables={"nodes": 4, "walltime": timedelta(hours=1)})
    assert isinstance(other, BatchFlow)
    assert other.job_variables == {"nodes": 4, "memory": "16G", "walltime": "01:00:00"}
    assert other.work_pool == "ours"
    assert train.job_variables == {"nodes": 2, "memory": "16G"}


def test_further_variables_of_the_environment_are_joined_too() -> None:
    train = bound(env={"A": "1", "B": "1"})
    other = train.with_options(job_variables={"env": {"B": "2", "C": "2"}})
    assert other.job_variables == {"env": {"A": "1", "B": "2", "C": "2"}}
    assert train.job_variables == {"env": {"A": "1", "B": "1"}}


def test_other_options_are_prefects_own() -> None:
    other = bound(nodes=2).with_options(name="other", retries=3)
    assert isinstance(other, BatchFlow)
    assert (other.name, other.retries, other.job_variables) == ("other", 3, {"nodes": 2})


@pytest.mark.parametrize("changes", [{"walltme": "2h"}, {"memory": "banana"}, {"nodes": 0}])
def test_wrong_further_job_variables_are_refused(changes: dict[str, Any]) -> None:
    assert next(iter(changes)) in refusal(lambda: bound().with_options(job_variables=changes))


def test_the_callers_own_variables_are_not_changed() -> None:
    changes = {"walltime": timedelta(hours=1)}
    bound().with_options(job_variables=changes)
    assert changes == {"walltime": timedelta(hours=1)}


def test_further_job_variables_are_checked_together_with_the_decorators() -> None:
    train = bound(memory="16G")
    message = refusal(lambda: train.with_options(job_variables={"memory_per_cpu": "2G"}))
    assert message == "memory and memory_per_cpu exclude each other; give one of them"


# one set of names


def test_every_option_is_a_field_of_the_pools_form() -> None:
    assert get_type_hints(SlurmOptions).keys() <= BatchVariables.model_fields.keys()


def test_every_resource_and_run_setting_is_an_option() -> None:
    fields = Resources.model_fields.keys() | RunSettings.model_fields.keys()
    assert fields <= get_type_hints(SlurmOptions).keys()


def test_slurms_own_options_are_the_only_ones_besides_the_common() -> None:
    own = get_type_hints(SlurmOptions).keys() - get_type_hints(JobOptions).keys()
    assert own == {"partition", "qos", "exclude"}


def test_every_field_of_the_form_has_a_title_and_a_description() -> None:
    for name in Resources.model_fields.keys() | RunSettings.model_fields.keys():
        field = BatchVariables.model_fields[name]
        assert field.title, name
        assert field.description, name
