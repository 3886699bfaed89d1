"""What may be asked of a job, and what is refused by the name of its field."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import JobSpec, Resources
from hpc_bridge.jobs.spec import check_environment, checked

TEXTS = [
    "partition", "account", "qos", "reservation", "constraint", "begin", "licenses", "nodelist",
    "exclude", "dependency", "comment", "working_directory",
]  # fmt: skip
COUNTS = ["nodes", "tasks", "tasks_per_node", "cpus_per_task"]
GPUS = ["gpus", "gpus_per_node"]
BREAKS = list("\n\r\0\x0b\x0c\x1c\x1d\x1e\x85")


def asked(**values: Any) -> Resources:
    return checked(Resources, values)


def refusal(**values: Any) -> str:
    with pytest.raises(InvalidJobSpec) as caught:
        checked(Resources, values)
    return str(caught.value)


def test_everything_may_be_left_out() -> None:
    assert asked().model_dump(exclude_defaults=True) == {}


def test_units_become_numbers() -> None:
    resources = asked(memory="16G", walltime="2h")
    assert (resources.memory, resources.walltime) == (16384, 7200)


def test_a_walltime_may_be_a_timedelta() -> None:
    assert asked(walltime=timedelta(minutes=90)).walltime == 5400


def test_a_request_survives_json() -> None:
    spec = JobSpec(
        name="hbabc",
        memory="1536M",
        walltime="1-12:00:00",
        gpus="a100:2",
        warning="SIGUSR1@120",
        directives=["--mail-type=END"],
        environment={"A": "1", "B": None},
    )
    assert JobSpec(**spec.model_dump(mode="json")) == spec


def test_a_job_spec_does_not_change() -> None:
    spec = JobSpec(name="hbabc")
    with pytest.raises(ValueError, match="frozen"):
        spec.nodes = 2


# numbers


@pytest.mark.parametrize(("value", "count"), [(1, 1), (2.0, 2), ("3", 3)])
def test_a_count_is_a_whole_number(value: object, count: int) -> None:
    for field in COUNTS:
        assert getattr(asked(**{field: value}), field) == count


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "banana", ""])
def test_a_wrong_count_is_refused_by_name(value: object) -> None:
    for field in COUNTS:
        message = refusal(**{field: value})
        assert message.startswith(f"{field}: ")
        assert repr(value) in message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2, "2"),
        ("2", "2"),
        ("a100:2", "a100:2"),
        ("h100-80gb.1:4", "h100-80gb.1:4"),
        ("3090:2", "3090:2"),
    ],
)
def test_gpus_are_a_number_with_or_without_a_type(value: object, text: str) -> None:
    for field in GPUS:
        assert getattr(asked(**{field: value}), field) == text


@pytest.mark.parametrize("value", [0, -1, "0", True, 1.5, "a100", "a100:0", ":2", "2:a100", ""])
def test_a_wrong_number_of_gpus_is_refused_by_name(value: object) -> None:
    for field in GPUS:
        message = refusal(**{field: value})
        assert message.startswith(f"{field}: ")
        assert f"{value}' is not a number" in message or f"{value!r} is not a number" in message


@pytest.mark.parametrize("value", [16, "16", "banana", "0G", True])
def test_wrong_memory_is_refused_by_name(value: object) -> None:
    for field in ("memory", "memory_per_cpu"):
        assert refusal(**{field: value}).startswith(f"{field}: {value!r}")


@pytest.mark.parametrize("value", [30, "30", "banana", "0h", True, timedelta(0)])
def test_a_wrong_walltime_is_refused_by_name(value: object) -> None:
    assert refusal(walltime=value).startswith(f"walltime: {value!r}")


@pytest.mark.parametrize("field", ["exclusive", "requeue"])
def test_a_wrong_switch_is_refused_by_name(field: str) -> None:
    assert refusal(**{field: "banana"}).startswith(f"{field}: ")


# text


@pytest.mark.parametrize("character", BREAKS, ids=ascii)
def test_a_line_break_in_a_value_is_refused_by_name(character: str) -> None:
    for field in TEXTS:
        message = refusal(**{field: f"/a{character}#SBATCH --nodes=64"})
        assert message.startswith(f"{field}: ")
        assert "a directive is one line of text" in message


@pytest.mark.parametrize("value", ["", "  ", "\t"])
def test_an_empty_text_is_refused_by_name(value: str) -> None:
    for field in TEXTS:
        assert refusal(**{field: value}) == f"{field}: is empty; leave it out instead"


def test_a_number_is_no_text() -> None:
    for field in TEXTS:
        assert refusal(**{field: 5}).startswith(f"{field}: ")


def test_a_line_break_in_the_name_is_refused() -> None:
    with pytest.raises(InvalidJobSpec, match=r"^name: "):
        checked(JobSpec, {"name": "hb\nabc"})


def test_a_relative_working_directory_is_refused() -> None:
    assert refusal(working_directory="data") == "working_directory 'data' is not absolute"


@pytest.mark.parametrize("value", ["--exclusive=user", ["--mail-type=END", "-H"]])
def test_further_directives_are_options(value: str | list[str]) -> None:
    assert asked(directives=value).directives == ([value] if isinstance(value, str) else value)


@pytest.mark.parametrize(
    "line", ["mail-type=END", "#SBATCH -H", " --hold", "--hold\n--nice", "", 5]
)
def test_what_is_no_directive_is_refused_by_name(line: object) -> None:
    assert refusal(directives=["--nice", line]).startswith("directives: ")


# the warning signal


@pytest.mark.parametrize("value", ["USR1@120", "SIGUSR1@120", "usr1@120", " sigusr1@120 "])
def test_a_warning_is_a_signal_and_seconds(value: str) -> None:
    assert asked(warning=value).warning == "USR1@120"


@pytest.mark.parametrize(
    "value", ["USR1", "USR1@", "USR1@0", "@120", "USR1@2m", "B:USR1@120", "banana", 120, True]
)
def test_what_is_no_warning_is_refused_by_name(value: object) -> None:
    assert refusal(warning=value).startswith(f"warning: {value!r} is not a warning signal")


@pytest.mark.parametrize("value", ["KILL@20", "sigstop@20"])
def test_a_warning_that_no_process_can_handle_is_refused(value: str) -> None:
    assert "no process can handle" in refusal(warning=value)


def test_a_warning_of_no_known_signal_is_refused_now_and_not_by_the_scheduler() -> None:
    assert refusal(warning="BANANA@120").startswith("warning: 'BANANA@120' is not a warning signal")


@pytest.mark.parametrize("warning", ["USR1@7200", "USR1@9999"])
def test_a_warning_that_comes_before_the_job_starts_is_refused(warning: str) -> None:
    assert refusal(warning=warning, walltime="2h") == (
        f"warning '{warning}' is not before the end of the walltime"
    )


def test_a_warning_within_the_walltime_is_fine() -> None:
    assert asked(warning="USR1@7199", walltime="2h").warning == "USR1@7199"


@pytest.mark.parametrize("value", ["off", "none", "OFF"])
def test_a_warning_may_be_switched_off(value: str) -> None:
    assert asked(warning=value, walltime="2h").warning_in_effect() is None


@pytest.mark.parametrize(
    ("walltime", "warning"),
    [
        (None, "USR1@60"),
        ("2h", "USR1@60"),
        ("4m", "USR1@60"),
        ("2m", "USR1@30"),
        ("20s", "USR1@5"),
        ("19s", None),
    ],
)
def test_a_job_is_warned_a_minute_or_a_quarter_of_its_walltime_before(
    walltime: str | None, warning: str | None
) -> None:
    assert asked(walltime=walltime).warning_in_effect() == warning


@pytest.mark.parametrize("walltime", [None, "6m"])
def test_a_warning_that_was_asked_for_stays_as_it_is(walltime: str | None) -> None:
    assert asked(warning="TERM@300", walltime=walltime).warning_in_effect() == "TERM@300"


@pytest.mark.parametrize("values", [{"warning": "off"}, {"walltime": "10s"}])
def test_a_resubmission_needs_the_warning(values: dict[str, Any]) -> None:
    message = refusal(on_walltime="resubmit", **values)
    assert message.startswith("on_walltime='resubmit' needs the warning before the walltime")
    assert asked(on_walltime="resubmit").max_resubmissions == 10


def test_no_resubmission_goes_by_a_signal_that_a_cancelled_job_gets() -> None:
    message = refusal(on_walltime="resubmit", warning="TERM@60")
    assert message.startswith("on_walltime='resubmit' cannot go by warning 'TERM@60'")


def test_a_wrong_answer_to_the_walltime_is_refused_by_name() -> None:
    assert refusal(on_walltime="again").startswith("on_walltime: ")
    assert refusal(max_resubmissions=0).startswith("max_resubmissions: ")


# what does not go together


@pytest.mark.parametrize(
    "values",
    [
        {"memory": "16G", "memory_per_cpu": "2G"},
        {"gpus": 1, "gpus_per_node": 1},
    ],
)
def test_two_that_exclude_each_other_are_both_named(values: dict[str, Any]) -> None:
    first, second = values
    assert refusal(**values) == f"{first} and {second} exclude each other; give one of them"


# names


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("walltme", "walltime"),
        ("gpu", "gpus"),
        ("node", "nodes"),
        # as Slurm calls it
        ("queue", "partition"),
        ("mem", "memory"),
        ("ntasks", "tasks"),
        ("time", "walltime"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(written: str, meant: str) -> None:
    assert (
        refusal(**{written: 1}) == f"'{written}' is not an option of a job; did you mean '{meant}'?"
    )


def test_an_unknown_name_like_no_other_is_refused_with_all_known_ones() -> None:
    message = refusal(xyzzy=1)
    assert message.startswith("'xyzzy' is not an option of a job; known are: account, ")
    for name in Resources.model_fields:
        assert name in message


def test_all_problems_are_named_at_once() -> None:
    lines = refusal(nodes=0, memory="banana", walltme="2h").splitlines()
    assert [re.split(r"[: ]", line)[0] for line in lines] == ["nodes", "memory", "'walltme'"]


# the environment


@pytest.mark.parametrize("name", ["A", "_a1", "PREFECT_API_URL"])
def test_a_variable_may_have_any_value_but_nul(name: str) -> None:
    variables = {name: "a\n'b' \"$c\" ü=1", "UNSET": None}
    assert JobSpec(name="hb", environment=variables).environment == variables


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A\n", "Ä", "BASH_FUNC_f%%"])
def test_what_cannot_be_the_name_of_a_variable_is_refused(name: str) -> None:
    with pytest.raises(
        InvalidJobSpec, match=re.escape(f"environment: {name!r} cannot be the name")
    ):
        checked(JobSpec, {"name": "hb", "environment": {name: "1"}})


def test_a_nul_in_a_variable_is_refused_without_showing_the_value() -> None:
    with pytest.raises(ValueError, match="the value of TOKEN holds a NUL byte") as caught:
        check_environment({"TOKEN": "secret\0"})
    assert "secret" not in str(caught.value)
