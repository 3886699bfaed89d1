"""What other people's code may rely on."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import hpc_bridge
from hpc_bridge import errors


def test_the_public_names_are_these() -> None:
    assert sorted(hpc_bridge.__all__) == ["BatchFlow", "BatchFlowRunFuture", "pbs", "slurm"]


def test_every_public_name_is_there() -> None:
    for name in hpc_bridge.__all__:
        assert getattr(hpc_bridge, name).__module__.startswith("hpc_bridge.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hpc_bridge' has no attribute 'banana'"):
        hpc_bridge.banana  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "hpc_bridge",
        "hpc_bridge.node.supervisor",
        "hpc_bridge.cluster",
        "hpc_bridge.watcher",
        "hpc_bridge.script",
        "hpc_bridge.schedulers.slurm",
        "hpc_bridge.settings",
    ],
)
def test_it_does_not_import_prefect(module: str) -> None:
    program = f"import sys, {module}; print([m for m in sys.modules if m.startswith('prefect')])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_supervisor_needs_the_standard_library_only() -> None:
    program = (
        "import sys, hpc_bridge.node.supervisor\n"
        "names = {m.split('.')[0] for m in sys.modules}\n"
        "print(sorted(names & {'pydantic', 'httpx', 'jinja2', 'cloudpickle', 'rich'}))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def drawn() -> dict[str, str]:
    """Child -> parent, from the tree in the docstring of the errors' module."""
    parents: dict[str, str] = {}
    line_of: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?P<lead>[│├└─ ]*)(?P<name>[A-Z]\w+)(?:  |$)", line)
        if match is None:
            continue
        depth = len(match["lead"]) // 4
        line_of[depth:] = [match["name"]]
        if depth:
            parents[match["name"]] = line_of[depth - 1]
    return parents


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    classes = {
        name: next(base.__name__ for base in kind.__bases__ if base.__module__ == errors.__name__)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__ and kind is not errors.HPCBridgeError
    }
    assert drawn() == classes


def test_errors_about_values_are_value_errors_too() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    ours = {kind.__name__ for kind in kinds if issubclass(kind, errors.HPCBridgeError)}
    values = {kind.__name__ for kind in kinds if issubclass(kind, ValueError)}
    assert values & ours == {"InvalidJobSpec", "SettingsError", "SiteError"}


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert {kind.__name__ for kind in kinds if getattr(kind, "retryable", False)} == {
        "CommandTimeout",
        "ConnectionLost",
        "SchedulerUnavailable",
        "ServerUnreachable",
        "TooManyJobs",
        "Unreachable",
    }


def test_a_command_error_carries_what_was_run_and_the_end_of_what_it_said() -> None:
    error = errors.CommandError("x", command=("a", "b"), exit_code=3, stderr="x" * 5000 + "end")
    assert (error.command, error.exit_code) == (["a", "b"], 3)
    assert error.stderr.endswith("end")
    assert len(error.stderr) == 2000
    assert errors.CommandError("x", retryable=True).retryable
